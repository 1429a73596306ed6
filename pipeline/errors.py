"""Errors of the front door; every one is an `SsnaError`, whose message is meant for the user."""

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
