"""Rows of a cache that were looked up once, and are read whole or in parts, as often as needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssna.cache.index import Int64s, UInt32s, by_segment
from ssna.cache.mapping import expect_reads, forget_pages
from ssna.cache.precision import Floats, decode
from ssna.cache.segment import SUFFIX, Segment, damaged

_ROWS_AT_ONCE = 256  # What is decoded at once stays in the processor's cache.
_SCATTERED_ONE_IN = 4  # Rows that are fewer than this share of those between the first and the last are scattered.


@dataclass(frozen=True)
class Selection:
    """The n rows that were asked for, in that order; of each, 8 bytes are held.

    It stays readable when another process compacts or removes the cache meanwhile.
    """

    layers: tuple[int, ...]
    """The LLM's block numbers of the a layers, top first"""
    width: int
    """D"""
    digest: str
    """SHA-256 of the rows' checksums in this order: equal digests, equal rows"""
    folder: Path
    """Of the segments"""
    segments: Sequence[Segment]
    number: UInt32s
    """Of each row, its place in `segments` ``(n,)``"""
    row: UInt32s
    """And its place there ``(n,)``"""

    def __len__(self) -> int:
        """n."""
        return len(self.row)

    def read(self, places: slice | Int64s = slice(None), into: Floats | None = None) -> Floats:
        """The states ``(m, a, D)`` at these places of the selection, float32, top layer first.

        Besides them a few hundred rows' pages of the mapped files are held meanwhile.

        Args:
            places: which of the rows.
            into: where to write them, of that shape and in any order of memory; None makes a new array.

        Raises:
            CacheError: if a segment is damaged, naming the file.
        """
        number, row = self.number[places], self.row[places]
        states = np.empty((len(row), len(self.layers), self.width), np.float32) if into is None else into
        for i, wanted in by_segment(number):
            self._copy(self.segments[i], row[wanted], wanted, states)
        return states

    def _copy(self, segment: Segment, rows: UInt32s, to: npt.NDArray[np.intp], states: Floats) -> None:
        """Decode these rows of a segment into the places `to`."""
        stored, layers = segment.rows, states.shape[1]
        whole = len(to) == len(states)  # One segment has all rows: they go side by side, which is faster.
        scattered = len(rows) * _SCATTERED_ONE_IN < int(rows.max()) - int(rows.min())
        expect_reads(stored.states, scattered)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            here, there = rows[part], part if whole else to[part]
            taken = stored.states[here] if layers == stored.states.shape[1] else stored.states[here, :layers]
            scales = stored.scales[here, :layers]
            if not (np.isfinite(scales) & (scales > 0)).all():
                path = self.folder / f"{segment.name}{SUFFIX}"
                raise damaged(path, "has scales that are no positive numbers")
            states[there] = taken if (scales == 1).all() else decode(taken, scales)
            if scattered:  # Each of them maps pages of its own; of rows side by side many share one.
                forget_pages(stored.states)
        if not scattered:
            forget_pages(stored.states)
