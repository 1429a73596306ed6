"""`ssna.recommend` and `ssna.recommend_users`: the next items for a user or a history, and for many users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ssna.columns import ITEM, TITLE, USER
from ssna.devices import resolve_device
from ssna.errors import RunError, is_whole_number, no_list
from ssna.histories import Histories, read_histories
from ssna.runs import Run, open_run
from ssna.sources import id_text
from ssna.stage2_adapt import SequenceRecommender, Sequences, nearest_in_histories, top_items, top_items_of_all

RANK, SCORE = "rank", "score"
NEAREST_ITEMS, NEAREST_COSINES = "nearest_item_ids", "nearest_cosines"
"""Of recommendations that are explained"""
_UNEXPLAINED = ", or leave --explain out"


@dataclass(frozen=True)
class Item:
    """An item as a person reads it."""

    item_id: str
    title: str


@dataclass(frozen=True)
class ScoredItem(Item):
    """An item with a score; scores compare within one answer only."""

    score: float


@dataclass(frozen=True)
class RecommendedItem(ScoredItem):
    """A recommended item, and what of the history it is like."""

    nearest: list[ScoredItem]
    """Other items of the history, up to three, whose vectors are nearest; nearest first, scored by their cosines.

    Empty of a model without item vectors, of an item without one, or where no other item of the history has one."""


@dataclass(frozen=True)
class Recommendation:
    """Recommended items beside what they are recommended for."""

    history: list[Item]
    """Oldest first"""
    items: list[RecommendedItem]
    """Best first"""


def recommend(
    run: Path | str,
    *,
    user: str | int | None = None,
    history: Iterable[str | int] | None = None,
    k: int = 10,
    allow_repeats: bool = False,
    explain: bool = False,
    device: str = "auto",
) -> Recommendation:
    """The k items that come next for a user of the dataset, or for any history, from the run folder alone.

    Args:
        run: a run folder.
        user: a user's id; all of the user's interactions are the history. Ids are text; a whole number stands for its
            digits.
        history: item ids instead, oldest first.
        k: how many items; fewer where there are not so many to choose from.
        allow_repeats: whether items of the history may be recommended again.
        explain: refuse a run without item vectors, by which `RecommendedItem.nearest` is told.
        device: a PyTorch device, or `auto`.

    Raises:
        RunError: if the folder is no finished run, or it has no such user or item.
    """
    if history is not None and (what := no_list(history)):
        raise RunError(f"the history is {what}; expected a list of item ids, oldest first.")
    item_ids = [] if history is None else [id_text(item) for item in history]
    if (user is None) == (not item_ids):
        found = "neither" if user is None else "both"
        raise RunError(f"expected a user (--user) or a history (--history), found {found}. Give one of them.")
    k, where = check_number(k), resolve_device(device)
    opened = open_run(Path(run), where, with_added=True)
    if explain:
        vectors_of(opened, _UNEXPLAINED)
    numbers = opened.history_of(id_text(user)) if user is not None else [opened.index_of(item) for item in item_ids]
    best, scores = top_items(opened.recommender, numbers, k, where, allow_repeats)
    return recommendation_of(opened, numbers, best, scores)


def recommend_users(
    run: Path | str,
    users: Iterable[str | int] | None = None,
    *,
    histories: Histories | None = None,
    k: int = 10,
    allow_repeats: bool = False,
    explain: bool = False,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """The k items that come next for many users, each user's whole history read.

    Args:
        run: a run folder.
        users: ids of users of the dataset; None means all, in the order of the dataset.
        histories: instead, those of any users: a table (CSV, TSV, Parquet or JSON Lines, the text ones also gzipped) or
            a frame of polars with the columns user_id and item_id, oldest first (or in any order with a timestamp), or
            a mapping from each user to item ids, oldest first. A user whom the dataset has counts with what is given
            here alone.
        k: how many items.
        allow_repeats: whether items of a user's history may be recommended again.
        explain: say too which items of the history each one is nearest to.
        device: a PyTorch device, or `auto`.
        on_progress: called with the users done and their number.

    Returns:
        A row a user and item: user_id, item_id, score and rank (from 1), best items first; fewer than k where there
        are not so many to choose from. Explained ones have nearest_item_ids and nearest_cosines too: lists,
        nearest first, of what `RecommendedItem.nearest` has.

    Raises:
        RunError: if the folder is no finished run, has no such user or item, or no item vectors to explain by.
        SourceError: if the histories cannot be read.
    """
    k, where = check_number(k), resolve_device(device)
    if users is not None and histories is not None:
        raise RunError("expected users or histories, found both. Give one of them.")
    opened = open_run(Path(run), where, with_added=True)
    if users is not None and (what := no_list(users)):
        raise RunError(f"the users are {what}; expected a list of user ids.")
    sequences, user_ids = opened.sequences, opened.user_ids
    if histories is not None:
        user_ids, sequences = read_histories(histories, opened)
    elif users is not None:
        places = opened.places_of([id_text(user) for user in users])
        user_ids, sequences = user_ids.gather(places), sequences.of_users(places)
    schema: dict[str, pl.DataType] = {USER: pl.String(), ITEM: pl.String(), SCORE: pl.Float32(), RANK: pl.UInt32()}
    vectors = None
    if explain:
        vectors = vectors_of(opened, _UNEXPLAINED)
        schema |= {NEAREST_ITEMS: pl.List(pl.String()), NEAREST_COSINES: pl.List(pl.Float32())}
    blocks, done = [pl.DataFrame(schema=schema)], 0
    for items, scores in top_items_of_all(opened.recommender, sequences, k, where, allow_repeats):
        count, each = items.shape
        block = pl.DataFrame(
            {
                USER: user_ids[done : done + count].repeat_by(each).explode(),
                ITEM: opened.items[ITEM].gather((items.flatten() - 1).numpy()),
                SCORE: scores.flatten().numpy(),
                RANK: pl.Series(list(range(1, each + 1)) * count, dtype=pl.UInt32),
            }
        )
        if vectors is not None:
            read = sequences.of_users(range(done, done + count))
            near, cosines = (part.flatten(0, 1).numpy() for part in nearest_in_histories(vectors, items, read))
            near_ids = opened.items[ITEM].gather(np.maximum(near, 1).ravel() - 1).reshape(near.shape)
            found = pl.lit(pl.Series((cosines > -np.inf).sum(axis=1)))  # These come first.
            block = block.with_columns(
                pl.lit(near_ids).arr.to_list().list.head(found).alias(NEAREST_ITEMS),
                pl.lit(pl.Series(cosines)).arr.to_list().list.head(found).alias(NEAREST_COSINES),
            )
        blocks.append(block.filter(pl.col(SCORE) > -float("inf")))
        done += count
        if on_progress is not None:
            on_progress(done, sequences.num_users)
    return pl.concat(blocks)


def recommendation_of(run: Run, history: list[int], items: list[int], scores: list[float]) -> Recommendation:
    """Item indices as a person reads them: a history, and what is recommended after it."""
    described = zip(described_items(run, items), scores, _nearest(run, items, history), strict=True)
    return Recommendation(
        [Item(*item) for item in described_items(run, history)],
        [RecommendedItem(*item, score, near) for item, score, near in described],
    )


def check_number(k: int) -> int:
    """How many items to name, as a number of Python.

    Raises:
        RunError: for k below 1, or no whole number.
    """
    if not is_whole_number(k) or k < 1:
        found = "at least 1" if is_whole_number(k) else "a whole number"
        raise RunError(f"--top {k!r}: expected {found}.")
    return int(k)


def described_items(run: Run, numbers: Sequence[int]) -> list[tuple[str, str]]:
    """Id and title of each item index."""
    rows = run.items.select(ITEM, TITLE)[pl.Series(numbers, dtype=pl.UInt32) - 1]
    described: list[tuple[str, str]] = rows.rows()
    return described


def scored_items(run: Run, numbers: Sequence[int], scores: Sequence[float]) -> list[ScoredItem]:
    """Item indices, each with its score, as a person reads them."""
    return [ScoredItem(*item, score) for item, score in zip(described_items(run, numbers), scores, strict=True)]


def vectors_of(run: Run, otherwise: str = "") -> Tensor:
    """The item vectors ``(N + 1, d)``; zero of an item that a model of IDs has not seen.

    Raises:
        RunError: if the run has none.
    """
    if not isinstance(run.recommender, SequenceRecommender):
        raise RunError(
            f"{run.path} ranks by popularity and has no item vectors. Give a run with a side network or IDs{otherwise}."
        )
    return run.recommender.item_embeddings


def _nearest(run: Run, items: list[int], history: list[int]) -> list[list[ScoredItem]]:
    """Of each recommended item, those of the history which it is like; see `RecommendedItem.nearest`."""
    if not items or not isinstance(run.recommender, SequenceRecommender):
        return [[] for _ in items]
    alone = Sequences(np.array(history), np.array([0, len(history)]))
    (near,), (cosines,) = nearest_in_histories(vectors_of(run), torch.tensor([items]), alone)
    found = cosines > -torch.inf
    described = iter(scored_items(run, near[found].tolist(), cosines[found].tolist()))
    return [list(islice(described, count)) for count in found.sum(dim=1).tolist()]
