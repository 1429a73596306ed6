"""Collecting computed rows and committing them as segments."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ssna.cache.errors import CacheError, DiskFullError
from ssna.cache.files import signals_held_back, sweep_leftovers
from ssna.cache.keys import Keys
from ssna.cache.precision import Floats, StoredDtype, encode
from ssna.cache.segment import SUFFIX, Rows, checksums_of, open_segment, write_segment
from ssna.cache.store import Cache

COMMIT_BYTES = 256 * 2**20


def commit_interval(elapsed: float) -> float:
    """Seconds between commits after `elapsed` seconds: a crash costs at most 1 % of the work, 5 s to 60 s of it."""
    return min(max(5.0, 0.01 * elapsed), 60.0)


class SegmentWriter:
    """Buffers rows in memory and commits them; what `committed_rows` counts survives anything.

    Use as a context manager: leaving it, by an exception too, commits what is held. Any number of writers may
    work on one cache at once, in any processes on any machines.
    """

    def __init__(self, cache: Cache, layers: Sequence[int], stored_dtype: StoredDtype, llm: str) -> None:
        self._cache = cache
        self._layers = tuple(layers)
        self._stored_dtype = stored_dtype
        self._llm = llm
        self._held: list[Rows] = []
        self._held_bytes = 0
        self._own_segments: dict[str, int] = {}  # Their numbers of rows.
        self._started = self._last_commit = time.monotonic()
        self.committed_rows = 0
        sweep_leftovers(cache.segments_folder)
        sweep_leftovers(cache.path)

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.commit()
        if error is None:
            # Merging is a kindness: another process may be compacting the cache already, or the disk be too full.
            # Damage that it meets in other segments is told by whoever reads them.
            with suppress(CacheError, FileNotFoundError, DiskFullError):
                self._merge_own_segments()

    def add(
        self,
        keys: Keys,
        states: Floats,
        token_counts: npt.NDArray[np.uint32],
        truncated: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.bool_]:
        """Take over rows: keys ``(n, 16)``, states float32 ``(n, A, D)``, the rest ``(n,)``; commits when it is due.

        Returns:
            Which rows were taken, bool ``(n,)``: those whose states are all finite.
        """
        finite = np.asarray(np.isfinite(states).all(axis=(1, 2)))
        if not finite.all():
            keys, states = keys[finite], states[finite]
            token_counts, truncated = token_counts[finite], truncated[finite]
        stored, scales = encode(states, self._stored_dtype)
        checksums = checksums_of(keys, stored, scales, token_counts, truncated)
        rows = Rows(keys, stored, scales, token_counts, truncated, checksums)
        self._held.append(rows)
        self._held_bytes += rows.nbytes
        now = time.monotonic()
        due = now - self._last_commit >= commit_interval(now - self._started)
        if due or self._held_bytes >= COMMIT_BYTES:
            self.commit()
        return finite

    def commit(self) -> None:
        """Write what is held as one segment.

        Raises:
            DiskFullError: if there is no room for it; the rows stay held.
            OSError: if it cannot be written for another reason; the rows stay held.
        """
        with signals_held_back():
            if count := sum(map(len, self._held)):
                self._own_segments[self._write(self._held, count)] = count
                self.committed_rows += count
            self._held, self._held_bytes = [], 0
        self._last_commit = time.monotonic()

    def _write(self, parts: Iterable[Rows], count: int) -> str:
        folder, fingerprint = self._cache.segments_folder, self._cache.manifest.fingerprint
        with signals_held_back():  # HDF5 calls back into Python to write; an exception that begins there is lost.
            name = write_segment(folder, parts, count, fingerprint, self._layers, self._llm)
            self._cache.trust(name)
        return name

    def _merge_own_segments(self) -> None:
        """Join this run's small segments into segments of up to `COMMIT_BYTES`, then remove the small ones.

        Interrupted at any moment, the rows stand once or twice, never not at all.
        """
        folder, fingerprint = self._cache.segments_folder, self._cache.manifest.fingerprint
        self._cache.refresh()
        # A row that also stands in a segment of another writer keeps its place: under a new name another could win.
        shared = self._cache.segments_with_repeated_keys()
        groups: list[list[str]] = []
        room = 0
        for name in (name for name in self._own_segments if name not in shared):
            size = (folder / f"{name}{SUFFIX}").stat().st_size
            if not groups or size > room:
                groups.append([])
                room = COMMIT_BYTES
            groups[-1].append(name)
            room -= size
        for group in groups:
            if len(group) == 1:
                continue
            parts = (open_segment(folder, name, fingerprint).rows for name in group)
            merged = self._write(parts, sum(self._own_segments[name] for name in group))
            open_segment(folder, merged, fingerprint)
            for name in group:
                if name != merged:
                    (folder / f"{name}{SUFFIX}").unlink(missing_ok=True)
