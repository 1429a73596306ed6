"""The sorted keys of a list of segments: which segment and row holds a text's states.

The file is derived from the segments and may be deleted at any time. Its name carries a digest of the list of segment
names, so an index can never be taken for that of another list. It is memory-mapped, so opening it costs nothing that
grows with the number of rows. Layout, little-endian: 8 bytes magic; uint64 length of the JSON header; the header
(`rows`, and of each segment `name` and number of `layers`); zeros up to a multiple of 64; then for the n rows, sorted
by key and then by segment name, four arrays: uint64 high half of the key, uint64 low half, uint32 segment, uint32 row.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssna.cache.files import replacing
from ssna.cache.keys import Keys, slices, split_key
from ssna.cache.mapping import map_file
from ssna.cache.segment import Segment

_MAGIC = b"SSNAIDX1"
_ALIGNMENT = 64
MISSING = -1

UInt64s = npt.NDArray[np.uint64]
UInt32s = npt.NDArray[np.uint32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Index:
    """n rows sorted by key and, where a key stands several times, by segment name."""

    segments: tuple[str, ...]
    """Names, sorted."""
    layers: Int64s
    """Number of layers of each segment."""
    high: UInt64s
    low: UInt64s
    segment: UInt32s
    """(n,): position in `segments`."""
    row: UInt32s
    """(n,): row within the segment."""

    def find(self, keys: Keys, layers: int) -> tuple[Int64s, Int64s]:
        """Where the wanted rows are: positions in `segments`, and rows there; both ``(m,)``, `MISSING` if nowhere.

        Of several segments with the key and at least that many layers, the one with the smallest name wins.
        """
        high, low = split_key(keys)
        place = np.searchsorted(self.high, high)  # (m,): first row whose high half is at least the key's
        found = np.full(len(keys), MISSING, np.int64)
        open_ = np.arange(len(keys))
        while len(open_):
            open_ = open_[place[open_] < len(self.high)]
            open_ = open_[self.high[place[open_]] == high[open_]]
            at = place[open_]
            fits = (self.low[at] == low[open_]) & (self.layers[self.segment[at]] >= layers)
            found[open_[fits]] = at[fits]
            open_ = open_[~fits]
            place[open_] += 1
        hit = found != MISSING
        segment, row = np.full_like(found, MISSING), np.full_like(found, MISSING)
        segment[hit], row[hit] = self.segment[found[hit]], self.row[found[hit]]
        return segment, row


def by_segment(numbers: npt.NDArray[np.integer]) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Each number of a segment that occurs, ascending, with the positions where it stands, ascending."""
    order = np.argsort(numbers, kind="stable")
    for positions in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        if len(positions):
            yield int(numbers[positions[0]]), positions


def build_index(segments: Iterable[Segment]) -> Index:
    """The index of these segments, which come in order of their names; takes at most 33 bytes a row."""
    names, layers, halves = list[str](), list[int](), list[tuple[UInt64s, UInt64s]]()
    for segment in segments:
        names.append(segment.name)
        layers.append(len(segment.layers))
        halves.append(split_key(segment.rows.keys))
    starts = np.cumsum([0, *(len(high) for high, _ in halves)])
    none = np.empty(0, np.uint64)
    high = np.concatenate([none, *(high for high, _ in halves)])
    low = np.concatenate([none, *(low for _, low in halves)])
    halves.clear()
    order = np.lexsort((low, high))  # Stable: equal keys stay in the order of segment names.
    high = high[order]
    low = low[order]
    number, row = np.empty(len(order), np.uint32), np.empty(len(order), np.uint32)
    for part in slices(len(order)):
        number[part] = np.searchsorted(starts, order[part], side="right") - 1
        row[part] = order[part] - starts[number[part]]
    return Index(
        segments=tuple(names),
        layers=np.array(layers, np.int64),
        high=high,
        low=low,
        segment=number,
        row=row,
    )


def index_path(folder: Path, segments: Sequence[str]) -> Path:
    """Where the index of this list of segments is, or would be."""
    digest = hashlib.sha256("\n".join(segments).encode()).hexdigest()[:16]
    return folder / f"index-{digest}.bin"


def save_index(folder: Path, index: Index) -> None:
    """Write the index and remove those of earlier lists (a process that has one mapped keeps it)."""
    header = json.dumps(
        {
            "rows": len(index.high),
            "segments": [
                {"name": name, "layers": int(layers)} for name, layers in zip(index.segments, index.layers, strict=True)
            ],
        }
    ).encode()
    start = _MAGIC + struct.pack("<Q", len(header)) + header
    path = index_path(folder, index.segments)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(start + bytes(-len(start) % _ALIGNMENT))
        for array in (index.high, index.low, index.segment, index.row):
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    for other in folder.glob("index-*.bin"):
        if other != path:
            with suppress(OSError):
                other.unlink()


def load_index(folder: Path, segments: Sequence[str]) -> Index | None:
    """The saved index of exactly this list of segments, mapped; None if there is none or it is not sound."""
    try:
        mapped = map_file(index_path(folder, segments))
    except OSError:
        return None
    try:
        if mapped[: len(_MAGIC)].tobytes() != _MAGIC:
            return None
        (length,) = struct.unpack("<Q", mapped[8:16].tobytes())
        header = json.loads(mapped[16 : 16 + length].tobytes())
        rows, listed = int(header["rows"]), header["segments"]
        if [entry["name"] for entry in listed] != list(segments):
            return None
        arrays, offset = [], 16 + length + -(16 + length) % _ALIGNMENT
        for dtype in ("<u8", "<u8", "<u4", "<u4"):
            arrays.append(np.frombuffer(mapped, dtype, rows, offset) if rows else np.empty(0, dtype))
            offset += rows * np.dtype(dtype).itemsize
        if offset != len(mapped):
            return None
        return Index(tuple(segments), np.array([e["layers"] for e in listed], np.int64), *arrays)
    except (ValueError, KeyError, TypeError, OverflowError, struct.error):
        return None
