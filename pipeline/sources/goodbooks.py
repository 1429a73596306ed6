"""`--format goodbooks`: Goodbooks-10k (https://github.com/zygmuntz/goodbooks-10k), `ratings.csv` and `books.csv`.

The ratings have no times; the file is sorted by time (README), so the order of its rows counts.
"""

from __future__ import annotations

import polars as pl

from ssna.columns import ITEM, TITLE
from ssna.sources.request import Request
from ssna.sources.source import Source, interactions_of

_EXPECTED = "a folder or zip of Goodbooks-10k with ratings.csv and books.csv"
_FIELDS = ("authors", "original_title", "original_publication_year", "language_code", "isbn", "average_rating")


def read_goodbooks(request: Request) -> Source:
    """The ratings and books."""
    bundle = request.without_columns().bundle("a folder or zip of Goodbooks-10k")
    ratings = bundle.require("ratings.csv", _EXPECTED)
    books = request.delimited(bundle.require("books.csv", _EXPECTED, beside=ratings), "csv", quote='"')
    return Source(
        name="goodbooks-10k",
        interactions=interactions_of(request.delimited(ratings, "csv", quote='"'), "user_id", "book_id", "rating"),
        items=books.select(pl.col("book_id").alias(ITEM), TITLE, *_FIELDS),
    )
