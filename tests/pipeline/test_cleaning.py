"""Cleaning steps on hand-worked interactions."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssna.cleaning import Counts, Interactions, at_least, k_core, without_duplicates
from ssna.errors import DatasetError, SourceError

Row = tuple[str | None, str | None, int | None, float | None]


def collect(rows: list[Row]) -> Interactions:
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float64}
    return Interactions.collect(pl.LazyFrame(rows, schema=schema, orient="row"))


def ids(interactions: Interactions) -> list[tuple[str, str, int | None]]:
    return interactions.with_ids().collect().rows()


def test_rows_are_in_order_of_user_time_and_source() -> None:
    rows = [("b", "x", 5, None), ("a", "z", 9, None), ("b", "y", 2, None), ("a", "w", 9, None), ("10", "x", 1, None)]
    assert ids(collect(rows)) == [("10", "x", 1), ("a", "z", 9), ("a", "w", 9), ("b", "y", 2), ("b", "x", 5)]


def test_without_times_the_order_of_the_source_counts() -> None:
    rows: list[Row] = [("b", "x", None, None), ("a", "z", None, None), ("b", "a", None, None)]
    assert ids(collect(rows)) == [("a", "z", None), ("b", "x", None), ("b", "a", None)]


def test_a_row_without_user_or_item_is_an_error_that_says_which() -> None:
    with pytest.raises(
        SourceError, match=r"1 interaction has no item_id \(the first is data row 2\)\. Complete the column 'item_id'"
    ):
        collect([("a", "x", 1, None), ("b", None, 2, None)])


def test_rating_threshold_keeps_what_reaches_it() -> None:
    interactions = collect([("a", "x", 1, 3.0), ("a", "y", 2, 4.0), ("b", "x", 3, 5.0)])
    interactions.step("rating", lambda frame: at_least(frame, 4))
    assert ids(interactions) == [("a", "y", 2), ("b", "x", 3)]
    (step,) = interactions.steps
    assert (step.before, step.after) == (Counts(3, 2, 2), Counts(2, 2, 2))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x", 1, None)], "--min-rating 4: the source has no ratings"),
        ([("a", "x", 1, math.nan), ("a", "y", 1, 5.0)], "--min-rating 4: 1 of 2 interactions have no rating, or one"),
        ([("a", "x", 1, None), ("a", "y", 1, 5.0)], "--min-rating 4: 1 of 2 interactions have no rating, or one"),
    ],
)
def test_a_rating_threshold_needs_ratings(rows: list[Row], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        at_least(collect(rows).frame, 4)


@pytest.mark.parametrize(
    ("rule", "times"),
    [("keep", [1, 1, 2, 3, 4]), ("exact", [1, 2, 3, 4]), ("first", [1, 2]), ("last", [2, 4])],
)
def test_duplicates_are_kept_or_dropped_by_rule(rule: str, times: list[int]) -> None:
    rows: list[Row] = [
        ("a", "x", 4, None),
        ("a", "x", 1, None),
        ("a", "y", 2, None),
        ("a", "x", 1, None),
        ("a", "x", 3, None),
    ]
    interactions = collect(rows)
    kept = without_duplicates(interactions.frame, rule)  # type: ignore[arg-type]
    assert kept["timestamp"].to_list() == times


pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40)


@given(pairs, st.integers(0, 4), st.integers(0, 4))
def test_k_core_is_what_removing_one_row_at_a_time_leaves(
    drawn: list[tuple[int, int]], min_user: int, min_item: int
) -> None:
    left = list(drawn)
    while True:
        users, items = [u for u, _ in left], [i for _, i in left]
        poor = [(u, i) for u, i in left if users.count(u) < min_user or items.count(i) < min_item]
        if not poor:
            break
        left.remove(poor[0])
    frame = pl.DataFrame(drawn, schema={"user_id": pl.UInt32, "item_id": pl.UInt32}, orient="row")
    if left:
        assert k_core(frame, min_user, min_item).rows() == left
    else:
        with pytest.raises(DatasetError, match=f"no interaction is left with at least {min_user} a user"):
            k_core(frame, min_user, min_item)
