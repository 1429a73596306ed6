"""Many segments into few, keeping exactly the rows that reading returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssna.cache.errors import CacheError, SegmentGoneError
from ssna.cache.index import Index, by_segment
from ssna.cache.segment import SUFFIX, Rows, open_segment, write_segment, wrong_rows
from ssna.cache.store import Cache
from ssna.cache.writer import COMMIT_BYTES

# Names are told apart by their first hexadecimal digits, few enough that a name in each range is soon found.
_NAME_DIGITS = 3
_ATTEMPTS = 5
_NAME_VALUES = 16**_NAME_DIGITS


@dataclass(frozen=True)
class Compaction:
    """What `compact` did."""

    segments_before: int
    segments_after: int
    rows_dropped: int
    """Rows that no read returned, because another of the same text won"""


@dataclass(frozen=True)
class _Part:
    """Rows of one segment that go into a new one."""

    segment: str
    rows: npt.NDArray[np.int64]


def compact(
    cache: Cache, segment_bytes: int = COMMIT_BYTES, on_progress: Callable[[int, int], None] | None = None
) -> Compaction:
    """Write the rows that win into segments of about `segment_bytes`, and remove those that they came from.

    Large segments that share no text with another stay as they are. Safe beside readers and writers, and when killed at
    any moment: the new segments are committed and checked before the first old one goes, and at every step between each
    read returns the same row as before. For that, of a text whose row is kept with few layers and again with more, the
    shallower must keep the smaller segment name (the smallest name wins), so new segments with such rows get names from
    one range for each depth; shallower ones are committed first; and old ones go in descending order of their names.

    Args:
        cache: the cache.
        segment_bytes: of a new segment.
        on_progress: called with the rows that were written and those to write.

    Raises:
        CacheError: if a segment is damaged, or another process compacts the cache as well.
        OSError: if there is no room for the new segments beside the old ones.
    """
    progress = on_progress or (lambda done, total: None)
    for _ in range(_ATTEMPTS):
        with suppress(SegmentGoneError):  # An extraction that ended has merged its own: its list is another now.
            return _compact(cache, segment_bytes, progress)
        cache.refresh()
    return _compact(cache, segment_bytes, progress)


def _compact(cache: Cache, segment_bytes: int, on_progress: Callable[[int, int], None]) -> Compaction:
    index = cache.index
    wins = _winning(index)
    merged = _to_merge(cache, index, wins, segment_bytes)
    if not merged.any():
        return Compaction(len(index.segments), len(index.segments), 0)
    several = _stands_several_times(index, wins)
    depths = np.unique(index.layers[merged]).tolist()
    written, done, total = list[str](), 0, int((wins & merged[index.segment]).sum())
    for level, depth in enumerate(depths):
        of_depth = wins & (merged & (index.layers == depth))[index.segment]
        for rows, accepts in (
            (of_depth & ~several, lambda name: True),
            (of_depth & several, _in_range(level, len(depths))),
        ):
            for group in _groups(cache, index, rows, segment_bytes):
                on_progress(done, total)
                written.append(_write(cache, group, accepts))
                done += sum(len(part.rows) for part in group)
    for name in sorted((index.segments[i] for i in np.flatnonzero(merged)), reverse=True):
        if name not in written:
            (cache.segments_folder / f"{name}{SUFFIX}").unlink(missing_ok=True)
    cache.refresh()
    after = len(cache.index.segments)
    return Compaction(len(index.segments), after, int((~wins).sum()))


def _winning(index: Index) -> npt.NDArray[np.bool_]:
    """Which rows a read returns for some number of layers ``(n,)``.

    These are the rows with more layers than all before them of their key.
    """
    layers, places = index.layers[index.segment], np.arange(len(index.segment))
    rank = places - np.maximum.accumulate(np.where(_same_as_before(index), 0, places))  # Rows before it of its key.
    wins, most = np.ones(len(layers), np.bool_), layers.copy()
    for earlier in range(1, int(rank.max(initial=0)) + 1):
        at = np.flatnonzero(rank == earlier)
        wins[at] = layers[at] > most[at - 1]
        most[at] = np.maximum(layers[at], most[at - 1])
    return wins


def _same_as_before(index: Index) -> npt.NDArray[np.bool_]:
    """Which rows have the key of the row before them ``(n,)``."""
    same = np.zeros(len(index.high), np.bool_)
    same[1:] = (index.high[1:] == index.high[:-1]) & (index.low[1:] == index.low[:-1])
    return same


def _stands_several_times(index: Index, wins: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which rows have a key of which several rows win ``(n,)``."""
    group = np.cumsum(~_same_as_before(index)) - 1
    winners = np.bincount(group, weights=wins)
    several: npt.NDArray[np.bool_] = winners[group] > 1
    return several


def _to_merge(cache: Cache, index: Index, wins: npt.NDArray[np.bool_], segment_bytes: int) -> npt.NDArray[np.bool_]:
    """Which segments are small or share a text with another."""
    same = np.flatnonzero(_same_as_before(index))
    sharing = np.zeros(len(index.segments), np.bool_)
    sharing[index.segment[np.concatenate([same, same - 1])]] = True
    sizes = np.array([segment.rows.nbytes for segment in cache.segments(index.segments)])
    small = sizes < segment_bytes // 2
    alone = small.sum() == 1 and not sharing.any()
    return sharing | (small & (not alone))


def _in_range(level: int, levels: int) -> Callable[[str], bool]:
    """Accepts names of the level-th of equal ranges of names."""
    first, last = (_NAME_VALUES * (level + i) // levels for i in (0, 1))
    return lambda name: first <= int(name[:_NAME_DIGITS], 16) < last


def _groups(cache: Cache, index: Index, chosen: npt.NDArray[np.bool_], segment_bytes: int) -> Iterator[list[_Part]]:
    """The chosen rows, in groups that make a segment each."""
    group, room = list[_Part](), segment_bytes
    places = np.flatnonzero(chosen)
    for number, here in by_segment(index.segment[places]):
        name = index.segments[number]
        rows = np.sort(index.row[places[here]].astype(np.int64))
        segment = cache.segment(name).rows
        row_bytes = max(1, segment.nbytes // max(1, len(segment)))
        while len(rows):
            taken, rows = np.split(rows, [max(1, room // row_bytes)])
            group.append(_Part(name, taken))
            room -= len(taken) * row_bytes
            if room < row_bytes:
                yield group
                group, room = [], segment_bytes
    if group:
        yield group


def _write(cache: Cache, group: list[_Part], accepts: Callable[[str], bool]) -> str:
    """Commit a group as a segment, and make sure that it can be read and holds the rows as they were."""
    folder, fingerprint = cache.segments_folder, cache.manifest.fingerprint
    layers, source = cache.segment(group[0].segment).layers, cache.manifest.llm["source"]

    def parts() -> Iterator[Rows]:
        return (cache.segment(part.segment).rows.take(part.rows) for part in group)

    count = sum(len(part.rows) for part in group)
    name = write_segment(folder, parts(), count, fingerprint, layers, source, accepts)
    cache.trust(name)
    read = open_segment(folder, name, fingerprint).rows
    if not _equal(read, parts()) or wrong_rows(read):
        (folder / f"{name}{SUFFIX}").unlink()
        raise CacheError(
            f"{cache.path}: rows of {', '.join(part.segment for part in group[:3])} are damaged, so nothing was "
            "removed. Run `ssna cache verify --repair`, extract again, and then compact."
        )
    return name


def _equal(rows: Rows, parts: Iterator[Rows]) -> bool:
    """Whether these rows are those of the parts, one after the other."""
    start = 0
    for part in parts:
        here = rows.take(slice(start, start + len(part))).fields()
        if not all(np.array_equal(here[name], field) for name, field in part.fields().items()):
            return False
        start += len(part)
    return start == len(rows)
