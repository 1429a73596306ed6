"""The steps from a source's interactions to a dataset's, each with its counts before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from ssna.columns import ITEM, RATING, TIME, USER
from ssna.errors import DatasetError, SourceError
from ssna.sources import NO_ORIGIN, Origin
from ssna.terminal import counted

Duplicates = Literal["keep", "exact", "first", "last"]
DUPLICATES: tuple[Duplicates, ...] = get_args(Duplicates)


@dataclass(frozen=True)
class Counts:
    """Size of a set of interactions."""

    interactions: int
    users: int
    items: int


@dataclass(frozen=True)
class Step:
    """One cleaning step and what it left."""

    name: str
    before: Counts
    after: Counts

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


class Interactions:
    """Interactions under cleaning: users and items as numbers, so that tens of millions fit in memory."""

    def __init__(self, frame: pl.DataFrame, user_ids: pl.Series, item_ids: pl.Series) -> None:
        self.frame = frame
        """user and item (UInt32, positions in the id lists), timestamp (Int64 or null), rating (Float64 or null)"""
        self.user_ids = user_ids
        """Distinct ids, sorted"""
        self.item_ids = item_ids
        self.steps: list[Step] = []

    @classmethod
    def collect(cls, interactions: pl.LazyFrame, origin: Origin = NO_ORIGIN) -> Interactions:
        """Read a source's interactions, ordered by user, time and the source's own order.

        Args:
            interactions: as `Source` has them, timestamp in milliseconds.
            origin: of them, for messages.

        Raises:
            SourceError: if a row has no user or item.
        """
        # Categories are numbers already while the source streams in, so no id is held once a row.
        frame = interactions.select(
            pl.col(USER).cast(pl.Categorical),
            pl.col(ITEM).cast(pl.Categorical),
            TIME,
            pl.col(RATING).cast(pl.Float64, strict=False).fill_nan(None),
        ).collect(engine="streaming")
        for column in (USER, ITEM):
            if nulls := frame[column].null_count():
                place = origin.place(int(frame[column].is_null().arg_max() or 0))
                found = counted(nulls, "interaction has", "interactions have")
                raise SourceError(
                    f"{found} no {column} (the first is {place}). Complete the column '{origin.columns.of(column)}'."
                )
        users, user_ids = _numbered(frame[USER])
        items, item_ids = _numbered(frame[ITEM])
        numbers = pl.DataFrame({USER: users, ITEM: items, TIME: frame[TIME], RATING: frame[RATING]})
        return cls(numbers.sort(USER, TIME, maintain_order=True), user_ids, item_ids)

    def counts(self) -> Counts:
        """How many there are now."""
        return Counts(len(self.frame), self.frame[USER].n_unique(), self.frame[ITEM].n_unique())

    def step(self, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Apply a change and record what it did."""
        before = self.counts()
        self.frame = change(self.frame)
        self.steps.append(Step(name, before, self.counts()))

    def lacking(self, available: pl.Series) -> pl.Series:
        """Ids of interacted items that are not among `available`."""
        used = self.item_ids.gather(self.frame[ITEM].unique().sort())
        return used.filter(~used.is_in(available.implode()))

    def without(self, item_ids: pl.Series) -> pl.DataFrame:
        """The interactions with other items than these."""
        drop = self.item_ids.is_in(item_ids.implode()).to_numpy()
        return self.frame.filter(pl.Series(~drop[self.frame[ITEM].to_numpy()]))

    def with_ids(self) -> pl.LazyFrame:
        """user_id, item_id and timestamp, with the ids as strings again."""
        users, items = (
            pl.lit(ids).gather(pl.col(name)) for ids, name in ((self.user_ids, USER), (self.item_ids, ITEM))
        )
        return self.frame.lazy().select(users.alias(USER), items.alias(ITEM), TIME)


def _numbered(ids: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Each row's position among the sorted distinct ids (UInt32), and these ids."""
    distinct = ids.unique()
    names = distinct.cast(pl.String)
    order = names.arg_sort()
    physical = distinct.to_physical().to_numpy()
    position = np.zeros(int(physical.max(initial=0)) + 1, np.uint32)
    position[physical[order.to_numpy()]] = np.arange(len(names), dtype=np.uint32)
    return pl.Series(position[ids.to_physical().to_numpy()]), names.gather(order)


def at_least(frame: pl.DataFrame, min_rating: float) -> pl.DataFrame:
    """The interactions with at least that rating.

    Raises:
        SourceError: if the source has no ratings, or some interactions have none, or one that is no number.
    """
    missing = frame[RATING].null_count()
    if missing:
        some = f"{missing} of {len(frame)} interactions have no rating, or one that is no number"
        found = "the source has no ratings" if missing == len(frame) else some
        raise SourceError(
            f"--min-rating {min_rating:g}: {found}. Leave the option out, or give a column `rating` "
            "of numbers, or the name of one as --rating-column."
        )
    return frame.filter(pl.col(RATING) >= min_rating)


def without_duplicates(frame: pl.DataFrame, rule: Duplicates) -> pl.DataFrame:
    """The interactions, ordered, without those that repeat an earlier (`first`) or later (`last`) one of user and item.

    `exact` drops rows that agree in the time as well; `keep` drops none.
    """
    if rule == "keep":
        return frame
    if rule == "exact":
        return frame.unique([USER, ITEM, TIME], keep="first", maintain_order=True)
    return frame.unique([USER, ITEM], keep=rule, maintain_order=True)


def k_core(frame: pl.DataFrame, min_user: int, min_item: int) -> pl.DataFrame:
    """The largest set of interactions in which every user has `min_user` and every item `min_item` of them.

    Raises:
        DatasetError: if nothing is left.
    """
    user, item = frame[USER].to_numpy(), frame[ITEM].to_numpy()
    keep = np.ones(len(frame), np.bool_)
    while True:
        enough = keep & _frequent(user, keep, min_user)
        enough &= _frequent(item, enough, min_item)
        if enough.sum() == keep.sum():
            break
        keep = enough
    if not keep.any():
        raise DatasetError(
            f"no interaction is left with at least {min_user} a user and {min_item} an item "
            f"(there were {len(frame)}). Lower --min-user or --min-item."
        )
    return frame.filter(pl.Series(keep))


def _frequent(values: npt.NDArray[np.uint32], among: npt.NDArray[np.bool_], at_least: int) -> npt.NDArray[np.bool_]:
    """Which rows have a value that at least so many of the rows in `among` have."""
    enough: npt.NDArray[np.bool_] = (np.bincount(values[among], minlength=int(values.max(initial=0)) + 1) >= at_least)[
        values
    ]
    return enough
