"""Errors of the front door; every one is an `SsnaError`, whose message is meant for the user."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

from ssna.cache import SsnaError

__all__ = [
    "DatasetError",
    "DownloadError",
    "ExportError",
    "OutputError",
    "PackageError",
    "RunError",
    "ServiceError",
    "SourceError",
    "SsnaError",
    "is_whole_number",
    "no_list",
]


class SourceError(SsnaError):
    """A source's files are missing, damaged or lack what was asked of them."""


class DatasetError(SsnaError):
    """A folder is not a dataset, or its rows break the contract of docs/datasets.md."""


class DownloadError(SsnaError):
    """A public file cannot be fetched, or is not what its publisher says."""


class RunError(SsnaError):
    """A folder is not a finished run, or does not hold what was asked of it."""


class ExportError(SsnaError):
    """A run cannot be exported in the form that was asked for."""


class PackageError(SsnaError):
    """A package of one of ssna's extras is needed and not installed."""


class ServiceError(SsnaError):
    """A run cannot be served as asked."""


class OutputError(SsnaError):
    """The place to write to cannot be used."""


def no_list(given: object) -> str:
    """What was given where a list was expected, for a message: a text, a frame or one thing; empty if it is a list."""
    if isinstance(given, str):  # It would be read letter by letter.
        return f"the text '{given}'"
    if type(given).__name__ in ("DataFrame", "LazyFrame"):  # It would be read column by column.
        return "a data frame"
    return "" if isinstance(given, Iterable) else repr(given)


def is_whole_number(given: object) -> bool:
    """Whether it is one, of Python or NumPy; True and False are none."""
    return isinstance(given, Integral) and not isinstance(given, bool)
