"""What every source format is read into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

import polars as pl

from ssna.columns import ITEM, RATING, TIME, USER
from ssna.errors import SourceError
from ssna.sources.tables import Table

Format = Literal[
    "table", "sequences", "recbole", "movielens", "amazon", "yelp", "steam", "mind", "goodbooks", "unisrec", "recformer"
]
FORMATS: tuple[Format, ...] = get_args(Format)

TimestampUnit = Literal["auto", "s", "ms", "us", "ns"]
TIMESTAMP_UNITS: tuple[TimestampUnit, ...] = get_args(TimestampUnit)


@dataclass(frozen=True)
class Columns:
    """What a source calls its columns; None means the name that the format gives it, if it is there."""

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    timestamp: str | None = None
    items_item: str | None = None
    """The item id in the items' file, where it is called otherwise than in the interactions"""

    def of(self, column: str) -> str:
        """The source's name of a column of interactions (`user_id` and so on)."""
        return {USER: self.user, ITEM: self.item, RATING: self.rating, TIME: self.timestamp}[column] or column

    @property
    def described_item(self) -> str:
        """The source's name of the item id in the items' file."""
        return self.items_item or self.of(ITEM)


@dataclass(frozen=True)
class Origin:
    """Where interactions come from, as messages name it."""

    tables: Sequence[Table] = ()
    """Whose rows are the interactions, one table after another; none where they are made otherwise"""
    columns: Columns = Columns()

    def place(self, row: int) -> str:
        """Of the interaction of that number, from 0, in the source's order."""
        left = row
        for table in self.tables:
            rows = table.scan().select(pl.len()).collect(engine="streaming").item()
            if left < rows:
                return table.place(left)
            left -= rows
        return f"data row {row + 1}"


NO_ORIGIN = Origin()
"""Of interactions of which only the numbers of their rows are known"""


@dataclass(frozen=True)
class Source:
    """Interactions and items of a source, not yet cleaned."""

    name: str
    interactions: pl.LazyFrame
    """user_id and item_id as strings, timestamp and rating as the source has them (null where it has none)"""
    items: pl.LazyFrame
    """item_id as a string, then the source's other fields"""
    template: str | None = None
    """Of the item texts, where the format has no title field; None takes the title"""
    items_file: str | None = None
    """The file of the items, where the others hold none; None where interactions and items stand together"""
    origin: Origin = NO_ORIGIN
    """Of the interactions"""


def interactions_of(
    frame: pl.LazyFrame, user: str, item: str, rating: str | None = None, timestamp: str | None = None
) -> pl.LazyFrame:
    """The four columns of `Source.interactions` out of these columns of a frame whose ids are strings."""
    return frame.select(
        pl.col(user).alias("user_id"),
        pl.col(item).alias(ITEM),
        (pl.col(timestamp) if timestamp else pl.lit(None, pl.Int64)).alias("timestamp"),
        (pl.col(rating) if rating else pl.lit(None, pl.Float64)).alias("rating"),
    )


def pick(column: str | None, default: str, available: Mapping[str, object], what: str, option: str) -> str:
    """The name of a column that must be there.

    Raises:
        SourceError: if it is not; lists those that are.
    """
    name = column or default
    if name not in available:
        raise SourceError(
            f"{what} has no column '{name}' (found: {', '.join(available)}). Name the right one with {option}."
        )
    return name


def pick_optional(
    column: str | None, default: str, available: Mapping[str, object], what: str, option: str
) -> str | None:
    """The name of a column that may be missing as long as the user did not ask for it."""
    if column is None and default not in available:
        return None
    return pick(column, default, available, what, option)


def interaction_columns(frame: pl.LazyFrame, columns: Columns, what: str) -> pl.LazyFrame:
    """The four columns of `Source.interactions` out of a frame with the source's own names."""
    available = frame.collect_schema()
    user = pick(columns.user, "user_id", available, what, "--user-column")
    item = pick(columns.item, "item_id", available, what, "--item-column")
    rating = pick_optional(columns.rating, "rating", available, what, "--rating-column")
    timestamp = pick_optional(columns.timestamp, "timestamp", available, what, "--timestamp-column")
    ids = {name: id_strings(name, available[name]) for name in (user, item)}
    return interactions_of(frame.with_columns(**ids), user, item, rating, timestamp)


def item_columns(frame: pl.LazyFrame, columns: Columns, what: str, option: str = "--items-item-column") -> pl.LazyFrame:
    """`Source.items` out of a frame with the source's own names."""
    available = frame.collect_schema()
    item = pick(columns.described_item, ITEM, available, what, option)
    others = [name for name in available if name not in (item, ITEM)]
    return frame.select(id_strings(item, available[item]).alias(ITEM), *others)


def id_strings(column: str, dtype: pl.DataType) -> pl.Expr:
    """A column of ids as strings; whole numbers that a table stores as floats lose their `.0`."""
    ids = pl.col(column)
    if not dtype.is_float():
        return ids.cast(pl.String)
    return (
        pl.when(ids == ids.round())
        .then(ids.cast(pl.Int64, strict=False).cast(pl.String))
        .otherwise(ids.cast(pl.String))
    )


def id_text(given: object) -> str:
    """One id as a string, as `id_strings` writes those of a column."""
    if isinstance(given, Real) and not isinstance(given, Integral) and float(given).is_integer():
        return str(int(float(given)))
    return str(given)
