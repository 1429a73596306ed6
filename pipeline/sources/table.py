"""`--format table`: tables of interactions and one of items, columns named by options."""

from __future__ import annotations

import polars as pl

from ssna.sources.files import SourceFile
from ssna.sources.request import Request, stacked
from ssna.sources.source import Source, interaction_columns, item_columns
from ssna.sources.tables import Table, kind_of_table


def read_table(request: Request) -> Source:
    """The interactions' tables, then the items' table (CSV, TSV, Parquet or JSON Lines, the text ones also gzipped)."""
    files, items = request.interactions_and_items("the interactions' file", "the items' file")
    frames = [interaction_columns(_scan(request, file), request.columns, str(file)) for file in files]
    return Source(
        name=files[0].name.split(".")[0],
        interactions=stacked(frames),
        items=item_columns(_scan(request, items), request.columns, str(items)),
    )


def _scan(request: Request, file: SourceFile) -> pl.LazyFrame:
    kind = kind_of_table(file.path)
    readable = request.bench.binary_file(file.path) if kind == "parquet" else request.text(file)
    return request.bench.remember(Table(str(file), readable, kind)).scan()
