"""Holding a cache against what it says of itself: each file against its name, each row against its checksum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from ssna.cache.errors import SegmentGoneError
from ssna.cache.file_hashes import MEMORY, recall_sha256
from ssna.cache.files import fsync_folder, sha256_of_file
from ssna.cache.index import build_index, index_path, load_index
from ssna.cache.segment import SUFFIX, Rows, list_segments, name_of_digest, open_segment, wrong_rows
from ssna.cache.soundness import parse_errors
from ssna.cache.store import SEGMENTS, SET_ASIDE, read_manifest

_FILES_AT_ONCE = 64
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class SegmentReport:
    """What `verify` found in one segment."""

    segment: str
    """Its name"""
    rows: int
    """Number of its rows; 0 if it could not be read"""
    damage: str | None
    """What is wrong with the file or its rows; None if it is sound"""
    bad_keys: tuple[str, ...] = ()
    """Keys (hex) of the rows that do not have their checksum"""


def verify(path: Path, on_progress: Callable[[int, int], None] | None = None) -> Iterator[SegmentReport]:
    """Check every segment of a cache folder, one after the other.

    A file is first held against the SHA-256 in its name; only one that passes is read as HDF5.

    Args:
        path: the folder.
        on_progress: called with the segments whose files were read and their number.

    Raises:
        CacheError: if the folder is no cache.
    """
    fingerprint, folder = read_manifest(path).fingerprint, path / SEGMENTS
    names, progress = list_segments(folder), on_progress or (lambda done, total: None)
    for start in range(0, len(names), _FILES_AT_ONCE):
        hashes, unreadable = dict[str, str](), dict[str, str]()
        for number, name in enumerate(names[start : start + _FILES_AT_ONCE], start):
            progress(number, len(names))
            try:
                hashes[name] = sha256_of_file(folder / f"{name}{SUFFIX}")
            except FileNotFoundError:  # Another process has compacted the cache meanwhile.
                continue
            except OSError as error:
                unreadable[name] = f"it cannot be read ({error.strerror})"
        for name, why in unreadable.items():
            yield SegmentReport(name, 0, why)
        passing = [name for name, sha256 in hashes.items() if name_of_digest(sha256) == name]
        for name in hashes.keys() - passing:
            yield SegmentReport(name, 0, "its bytes do not have the SHA-256 that its name says")
        known = recall_sha256([folder / f"{name}{SUFFIX}" for name in passing], path.parent / MEMORY)
        new = [name for name, sha256 in zip(passing, known, strict=True) if sha256 != hashes[name]]
        errors = parse_errors(folder, new, fingerprint)
        for name in passing:
            if name not in errors:
                with suppress(SegmentGoneError):
                    yield _verify_rows(name, open_segment(folder, name, fingerprint).rows)
            elif not isinstance(errors[name], SegmentGoneError):
                yield SegmentReport(name, 0, str(errors[name]))


def _verify_rows(name: str, rows: Rows) -> SegmentReport:
    bad = list[str]()
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows.take(slice(start, start + _ROWS_AT_ONCE))
        bad += [part.keys[row].tobytes().hex() for row in wrong_rows(part)]
    damage = f"{len(bad)} of {len(rows)} rows do not have their checksum" if bad else None
    return SegmentReport(name, len(rows), damage, tuple(bad))


def verify_index(path: Path) -> bool:
    """Whether the saved index says what the segments say; one that does not is removed, and made anew when needed.

    All segments must be sound.
    """
    folder, names = path / SEGMENTS, list_segments(path / SEGMENTS)
    saved = load_index(path, names)
    if saved is None:
        return True
    fingerprint = read_manifest(path).fingerprint
    try:
        built = build_index(open_segment(folder, name, fingerprint) for name in names)
    except SegmentGoneError:  # Another process has replaced a segment, and with it the index.
        return True
    same = all(
        np.array_equal(getattr(saved, field), getattr(built, field))
        for field in ("layers", "high", "low", "segment", "row")
    )
    if not same:
        index_path(path, names).unlink(missing_ok=True)
    return same


def set_aside(path: Path, segment: str) -> Path:
    """Move a damaged segment out of the cache, so that the next extraction fills the gap; returns where it is."""
    folder = path / SET_ASIDE
    folder.mkdir(exist_ok=True)
    source, target = path / SEGMENTS / f"{segment}{SUFFIX}", folder / f"{segment}{SUFFIX}"
    for number in count(2):  # One of that name may have been set aside before.
        if not target.exists():
            break
        target = folder / f"{segment}-{number}{SUFFIX}"
    source.rename(target)
    fsync_folder(folder)
    fsync_folder(path / SEGMENTS)
    return target
