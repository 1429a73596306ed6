"""`--format table`: one table of interactions and one of items, columns named by options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ssna.errors import SourceError
from ssna.sources.files import Workbench, require_file
from ssna.sources.source import Columns, Source, interaction_columns, item_columns
from ssna.sources.tables import Table, kind_of_table

DEFAULT_ENCODING = "utf-8"


def read_table(paths: Sequence[Path], columns: Columns, encoding: str, bench: Workbench) -> Source:
    """The interactions' table, then the items' table (CSV, TSV, Parquet or JSON Lines, the text ones also gzipped)."""
    if len(paths) != 2:
        raise SourceError(
            f"--format table takes the interactions' file and the items' file; found {len(paths)} before OUT."
        )
    interactions, items = (_scan(path, encoding, bench) for path in paths)
    return Source(
        name=paths[0].name.split(".")[0],
        interactions=interaction_columns(interactions, columns, str(paths[0])),
        items=item_columns(items, columns, str(paths[1])),
    )


def _scan(path: Path, encoding: str, bench: Workbench) -> pl.LazyFrame:
    require_file(path, "a CSV, TSV, Parquet or JSON Lines file")
    kind = kind_of_table(path)
    readable = bench.binary_file(path) if kind == "parquet" else bench.text_file(path, encoding)
    return bench.remember(Table(str(path), readable, kind)).scan()
