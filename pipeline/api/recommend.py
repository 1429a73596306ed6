"""`ssna.recommend`: the next items for a user or a history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ssna.columns import ITEM, TITLE
from ssna.devices import resolve_device
from ssna.errors import RunError
from ssna.runs import Run, open_run
from ssna.stage2_adapt import top_items


@dataclass(frozen=True)
class Item:
    """An item as a person reads it."""

    item_id: str
    title: str


@dataclass(frozen=True)
class ScoredItem(Item):
    """A recommended item; scores compare within one answer only."""

    score: float


@dataclass(frozen=True)
class Recommendation:
    """Recommended items beside what they are recommended for."""

    history: list[Item]
    """Oldest first"""
    items: list[ScoredItem]
    """Best first"""


def recommend(
    run: Path | str,
    *,
    user: str | int | None = None,
    history: Sequence[str | int] | None = None,
    k: int = 10,
    allow_repeats: bool = False,
    device: str = "auto",
) -> Recommendation:
    """The k items that come next for a user of the dataset, or for any history, from the run folder alone.

    Args:
        run: a run folder.
        user: a user's id; all of the user's interactions are the history. Ids are text; a whole number stands for its
            digits.
        history: item ids instead, oldest first.
        k: how many items.
        allow_repeats: whether items of the history may be recommended again.
        device: a PyTorch device, or `auto`.

    Raises:
        RunError: if the folder is no finished run, or it has no such user or item.
    """
    if (user is None) == (not history):
        found = "neither" if user is None else "both"
        raise RunError(f"expected a user (--user) or a history (--history), found {found}. Give one of them.")
    if isinstance(history, str):
        raise RunError(f"the history is the text '{history}'; expected a list of item ids, oldest first.")
    if k < 1:
        raise RunError(f"--top {k}: expected at least 1.")
    where = resolve_device(device)
    opened = open_run(Path(run), where)
    if user is not None:
        numbers = opened.history_of(str(user))
    else:
        numbers = [opened.index_of(str(item)) for item in history or ()]
    best, scores = top_items(opened.recommender, numbers, k, where, allow_repeats)
    described = [ScoredItem(*item, score) for item, score in zip(_described(opened, best), scores, strict=True)]
    return Recommendation([Item(*item) for item in _described(opened, numbers)], described)


def _described(run: Run, numbers: list[int]) -> list[tuple[str, str]]:
    """Id and title of each item index."""
    rows = run.items.select(ITEM, TITLE)[pl.Series(numbers, dtype=pl.UInt32) - 1]
    described: list[tuple[str, str]] = rows.rows()
    return described
