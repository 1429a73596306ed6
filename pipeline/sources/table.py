"""`--format table`: tables of interactions and one of items, columns named by options."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ssna.errors import SourceError
from ssna.sources.files import SourceFile, Workbench, require_file
from ssna.sources.request import Request, stacked
from ssna.sources.source import Columns, Origin, Source, interaction_columns, item_columns
from ssna.sources.tables import Table, kind_of_table


def read_table(request: Request) -> Source:
    """The interactions' tables, then the items' table (CSV, TSV, Parquet or JSON Lines, the text ones also gzipped)."""
    files, items = request.interactions_and_items("the interactions' file", "the items' file")
    tables, described = [_table(request, file) for file in files], _table(request, items).scan()
    frames = [table.scan() for table in tables]
    user = request.columns.user or "user_id"
    if user not in frames[0].collect_schema() and user in described.collect_schema():
        raise SourceError(
            f"{items} has the column '{user}' of interactions, and {files[0]} has not. Name the interactions' file "
            "first and the items' file last."
        )
    if items.path in [file.path for file in files]:
        raise SourceError(f"{items} is named as interactions and as items. Name the items' file last.")
    return Source(
        name=files[0].name.split(".")[0],
        interactions=stacked(
            [interaction_columns(frame, request.columns, str(file)) for frame, file in zip(frames, files, strict=True)]
        ),
        items=item_columns(described, request.columns, str(items)),
        items_file=str(items),
        origin=Origin(tables, request.columns),
    )


def read_items_table(path: Path, item_column: str | None, encoding: str | None, bench: Workbench) -> pl.LazyFrame:
    """One table of items: item_id as a string, then its other fields.

    Raises:
        SourceError: if the file is missing, of an unknown kind, or without that column.
    """
    request = Request("table", [path], Columns(items_item=item_column), encoding, None, bench)
    file = SourceFile(require_file(path, "a table of items"))
    return item_columns(_table(request, file).scan(), request.columns, str(file), "--item-column")


def read_histories_table(path: Path, bench: Workbench) -> pl.LazyFrame:
    """One table of histories, with the columns that it has.

    Raises:
        SourceError: if the file is missing, of an unknown kind, or no UTF-8 text.
    """
    request = Request("table", [path], Columns(), None, None, bench)
    file = SourceFile(require_file(path, "a table of histories"))
    try:
        return _table(request, file).scan()
    except SourceError as error:
        if isinstance(error.__cause__, UnicodeError):
            raise SourceError(f"{path} is no UTF-8 text ({error.__cause__}). Convert it to UTF-8.") from error
        raise


def _table(request: Request, file: SourceFile) -> Table:
    kind = kind_of_table(file.path)
    readable = request.bench.binary_file(file.path) if kind == "parquet" else request.text(file)
    return request.bench.remember(Table(str(file), readable, kind))
