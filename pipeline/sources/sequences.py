"""`--format sequences`: two TSV files, user → item ids in order, and item → title (as the IISAN project publishes)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ssna.columns import ITEM, RATING, TIME, TITLE, USER
from ssna.errors import SourceError
from ssna.sources.files import Workbench, require_file
from ssna.sources.source import Columns, Source

DEFAULT_ENCODING = "utf-8"


def read_sequences(paths: Sequence[Path], columns: Columns, encoding: str, bench: Workbench) -> Source:
    """The users' file (id, tab, item ids separated by spaces, oldest first), then the items' (id, tab, title)."""
    if columns != Columns():
        raise SourceError("--format sequences has no column names, so no --…-column option applies.")
    if len(paths) != 2:
        raise SourceError(f"--format sequences takes the users' TSV and the items' TSV; found {len(paths)} before OUT.")
    users, items = (
        _two_fields(require_file(path, f"the {what} TSV"), encoding, bench)
        for path, what in zip(paths, ("users'", "items'"), strict=True)
    )
    interactions = users.select(
        pl.col("first").alias(USER),
        pl.col("rest").str.split(" ").alias(ITEM),
        pl.lit(None, pl.Int64).alias(TIME),
        pl.lit(None, pl.Float64).alias(RATING),
    ).explode(ITEM)
    return Source(
        name=paths[0].parent.resolve().name or "dataset",
        interactions=interactions.filter(pl.col(ITEM) != ""),
        items=items.select(pl.col("first").alias(ITEM), pl.col("rest").alias(TITLE)),
    )


def _two_fields(path: Path, encoding: str, bench: Workbench) -> pl.LazyFrame:
    """Columns `first` and `rest` (String) of each line, split at its first tab; blank lines are passed over."""
    readable = bench.text_file(path, encoding)
    lines = pl.scan_lines(readable, row_index_name="number", row_index_offset=1)
    # A byte order mark at the start of the file is no part of the first id.
    content = lines.with_columns(pl.col("line").str.strip_prefix("\ufeff")).filter(pl.col("line") != "")
    wrong = content.filter(~pl.col("line").str.contains("\t", literal=True)).head(1).collect()
    if len(wrong):
        raise SourceError(
            f"{path}: line {wrong['number'][0]} has no tab ('{wrong['line'][0][:40]}'); expected an id, a tab and "
            "the rest."
        )
    parts = pl.col("line").str.splitn("\t", 2).struct
    return content.select(parts.field("field_0").alias("first"), parts.field("field_1").alias("rest"))
