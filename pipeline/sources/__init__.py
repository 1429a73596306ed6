"""Public dataset formats, each read into the same two lazy tables (`Source`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssna.errors import SourceError
from ssna.sources.files import Workbench, check_encoding, workbench
from ssna.sources.recbole import read_recbole
from ssna.sources.request import Request
from ssna.sources.sequences import read_sequences
from ssna.sources.source import FORMATS, TIMESTAMP_UNITS, Columns, Format, Source, TimestampUnit
from ssna.sources.table import read_table

__all__ = [
    "FORMATS",
    "READERS",
    "TIMESTAMP_UNITS",
    "Columns",
    "Format",
    "Reader",
    "Source",
    "TimestampUnit",
    "Workbench",
    "read_source",
    "workbench",
]


@dataclass(frozen=True)
class Reader:
    """A format: its function, and the sources that it takes in a line of help."""

    read: Callable[[Request], Source]
    takes: str


READERS: dict[Format, Reader] = {
    "table": Reader(read_table, "interactions' files, then items' file (CSV, TSV, Parquet, JSON Lines)"),
    "sequences": Reader(read_sequences, "users' TSV files (user, item ids in order), then items' TSV (item, title)"),
    "recbole": Reader(read_recbole, "one folder, zip or wheel with RecBole's atomic files"),
}


def read_source(
    format: Format,
    paths: Sequence[Path],
    columns: Columns,
    encoding: str | None,
    name: str | None,
    bench: Workbench,
) -> Source:
    """A source's interactions and items, as they stand in its files; to be collected before `bench` goes.

    Args:
        format: which reader.
        paths: what the format takes: a folder or zip, or the interactions' and the items' files.
        columns: names of the source's columns where they are not the format's own.
        encoding: of text files; None for the format's own.
        name: of the dataset within a source that holds several.
        bench: unpacks and hashes the files.

    Raises:
        SourceError: if files or columns are missing, or a file is not of the format or encoding.
    """
    if format not in READERS:
        raise SourceError(f"format '{format}' is unknown; expected one of {', '.join(FORMATS)}.")
    codec = None if encoding is None else check_encoding(encoding)
    return READERS[format].read(Request(format, paths, columns, codec, name, bench))
