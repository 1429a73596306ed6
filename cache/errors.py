"""The base of every error that a user can cause, and the cache's own."""

from __future__ import annotations

from collections.abc import Sequence


class SsnaError(Exception):
    """Something the user can mend; the message says what was found, what was expected and what to do."""


class CacheError(SsnaError):
    """A cache, or a file in it, is not what its contract says."""


class SegmentGoneError(CacheError):
    """A segment that was listed is no longer there (another process compacted the cache): list again."""


class DiskFullError(SsnaError):
    """There is no room for what was to be written."""


class WrongIndexError(CacheError):
    """The index names a row that is not the one it should be: it is made anew."""


class MissingRowsError(CacheError):
    """Rows that were asked for are not cached.

    Attributes:
        positions: where the missing keys stand among those that were asked for.
    """

    def __init__(self, message: str, positions: Sequence[int]) -> None:
        super().__init__(message)
        self.positions = list(positions)
