"""Public dataset formats, each read into the same two lazy tables (`Source`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssna.errors import SourceError
from ssna.sources import recbole, sequences, table
from ssna.sources.files import Workbench, check_encoding, workbench
from ssna.sources.source import FORMATS, TIMESTAMP_UNITS, Columns, Format, Source, TimestampUnit

__all__ = [
    "FORMATS",
    "TIMESTAMP_UNITS",
    "Columns",
    "Format",
    "Source",
    "TimestampUnit",
    "Workbench",
    "read_source",
    "workbench",
]

_ENCODINGS = {
    "recbole": recbole.DEFAULT_ENCODING,
    "sequences": sequences.DEFAULT_ENCODING,
    "table": table.DEFAULT_ENCODING,
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
        paths: what the format takes: a folder or zip, or the interactions' and the items' file.
        columns: names of the source's columns where they are not the format's own.
        encoding: of text files; None for the format's own.
        name: of the dataset within a source that holds several.
        bench: unpacks and hashes the files.

    Raises:
        SourceError: if files or columns are missing, or a file is not of the format or encoding.
    """
    if format not in FORMATS:
        raise SourceError(f"format '{format}' is unknown; expected one of {', '.join(FORMATS)}.")
    codec = check_encoding(encoding or _ENCODINGS[format])
    if format == "recbole":
        return recbole.read_recbole(paths, columns, codec, bench, name)
    if format == "sequences":
        return sequences.read_sequences(paths, columns, codec, bench)
    return table.read_table(paths, columns, codec, bench)
