"""`--format sequences`: TSV files, user → item ids in order, and item → title.

As the IISAN project publishes its datasets: https://github.com/GAIR-Lab/IISAN.
"""

from __future__ import annotations

import polars as pl

from ssna.columns import ITEM, RATING, TIME, TITLE, USER
from ssna.sources.lines import split_lines
from ssna.sources.request import Request, stacked
from ssna.sources.source import Source


def read_sequences(request: Request) -> Source:
    """The users' files (id, tab, item ids separated by spaces, oldest first), then the items' (id, tab, title)."""
    files, items = request.without_columns().interactions_and_items("the users' TSV", "the items' TSV")
    users = stacked([split_lines(request, file, "\t", (USER, ITEM)) for file in files])
    interactions = users.select(
        pl.col(USER),
        pl.col(ITEM).str.split(" "),
        pl.lit(None, pl.Int64).alias(TIME),
        pl.lit(None, pl.Float64).alias(RATING),
    ).explode(ITEM)
    return Source(
        name=files[0].path.parent.resolve().name or "dataset",
        interactions=interactions.filter(pl.col(ITEM) != ""),
        items=split_lines(request, items, "\t", (ITEM, TITLE)),
        items_file=str(items),
    )
