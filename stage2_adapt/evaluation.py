"""Ranking all items for held-out targets (docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ssna.cache import SsnaError
from ssna.stage2_adapt.metrics import CUTOFFS, Ranks, metrics_by_group, metrics_of
from ssna.stage2_adapt.recommenders import Recommender
from ssna.stage2_adapt.sequences import (
    Cases,
    Int64s,
    Sequences,
    Split,
    cases_of,
    gather_spans,
    targets_of,
    training_counts,
)

POPULARITY_GROUPS = ("head", "tail", "unseen")
_HEAD_ONE_IN = 5
# Scores held at once: on a CPU they, and the hidden states of so many cases, stay in its cache between the passes over
# them. But scoring fewer cases at once than this takes longer than that saves.
_CHUNK_SCORES = {"cpu": 2**21}
_CHUNK_SCORES_ELSEWHERE = 2**26
_FEWEST_CASES, _MOST_CASES, _MOST_CASES_ELSEWHERE = 16, {"cpu": 128}, 1024


class NaNScoreError(SsnaError):
    """The model scores an item NaN, so no ranking exists."""


@torch.no_grad()
def rank_targets(
    model: Recommender,
    sequences: Sequences,
    cases: Cases,
    device: torch.device,
    filter_history: bool = False,
    recommended: Tensor | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Ranks:
    """Rank every target among all items, none sampled.

    The rank is 1 + the number of other items whose score is at least the target's, so ties never favour the target.

    Args:
        model: in evaluation mode.
        sequences: all users'.
        cases: whose targets to rank.
        device: of the model.
        filter_history: whether items of the history are ranked last, a target that is among them too.
        recommended: int ``(N,)`` on the device, set to the best place at which each item is recommended to anybody, as
            far as the last cut-off; None saves the time that takes.
        on_progress: called with the cases that are ranked and their number.

    Raises:
        NaNScoreError: if any score is NaN.
    """
    # By length of history, so that those read together are about as long and little of what is read is padding.
    order = np.argsort(np.minimum(cases.history_end - cases.start, model.length), kind="stable")
    ordered = cases.take(order)
    case, target = targets_of(sequences, ordered)
    items, candidates = torch.from_numpy(sequences.items).to(device), model.candidates()
    one_each = len(case) == len(cases)
    ranks = np.empty(len(case), np.int64)
    chunk_scores = _CHUNK_SCORES.get(device.type, _CHUNK_SCORES_ELSEWHERE)
    most_cases = _MOST_CASES.get(device.type, _MOST_CASES_ELSEWHERE)
    at_once = min(most_cases, max(_FEWEST_CASES, chunk_scores // max(1, model.num_items)))
    for start in range(0, len(cases), at_once):
        stop = min(start + at_once, len(cases))
        scores = _scores(model, candidates, items, ordered.between(start, stop), filter_history)
        if recommended is not None:
            _note_recommended(scores, recommended)
        pairs = slice(*np.searchsorted(case, [start, stop]).tolist())
        # Of cases with many targets a few rows at a time, since each target takes a row of scores.
        for first in range(pairs.start, pairs.stop, at_once):
            some = slice(first, min(first + at_once, pairs.stop))
            mine = scores if one_each else scores[torch.from_numpy(case[some] - start).to(device)]
            wanted = mine.gather(1, torch.from_numpy(target[some, None] - 1).to(device))
            # The target itself counts as the 1.
            ranks[some] = (mine >= wanted).sum(dim=1, dtype=torch.int32).cpu().numpy()
        if on_progress is not None:
            on_progress(stop, len(cases))
    case = order[case]
    back = np.argsort(case, kind="stable")
    return Ranks(case[back], ranks[back], len(cases))


def _note_recommended(scores: Tensor, recommended: Tensor) -> None:
    values, best = scores.topk(min(CUTOFFS[-1], scores.shape[1]), dim=1)  # (B, k)
    places = torch.arange(1, best.shape[1] + 1, device=best.device, dtype=recommended.dtype).expand_as(best)
    places = places.masked_fill(values == -torch.inf, torch.iinfo(places.dtype).max)  # Filtered ones are not shown.
    recommended.scatter_reduce_(0, best.flatten(), places.flatten(), "amin")


def coverage_of(recommended: Tensor) -> dict[str, float]:
    """Coverage@k: the share of candidates that stand among the first k for anybody; see `rank_targets`."""
    return {f"coverage@{k}": float((recommended <= k).float().mean()) for k in CUTOFFS}


def _scores(
    model: Recommender, candidates: tuple[Tensor, ...], items: Tensor, cases: Cases, filter_history: bool
) -> Tensor:
    start, end = torch.from_numpy(cases.start), torch.from_numpy(cases.history_end)
    histories, counts = gather_spans(items, start, end, model.length)
    scores = model.scores(histories, counts.to(items.device), candidates)
    if scores.amax().isnan():  # The maximum is NaN as soon as one score is.
        raise NaNScoreError(
            "the model gives NaN as a score, so items cannot be ranked. Train again with a lower --learning-rate "
            "(and --overwrite)."
        )
    if not filter_history:
        return scores
    seen, _ = gather_spans(items, start, end, int((end - start).max()))
    return mask_items(scores, seen)


def mask_items(scores: Tensor, items: Tensor) -> Tensor:
    """The scores ``(B, N)`` with minus infinity for the items ``(B, S)`` of each row; index 0 is padding."""
    padded = torch.nn.functional.pad(scores, (1, 0))
    return padded.scatter(1, items, -torch.inf)[:, 1:]


@dataclass(frozen=True)
class Evaluation:
    """Everything that ranking a part's targets says about a model."""

    ranks: Ranks
    metrics: dict[str, float]
    """Recall@k, NDCG@k and MRR@k, means over cases, and coverage@k"""
    by_popularity: dict[str, dict[str, float]]
    """For targets of each of `POPULARITY_GROUPS`, their number and metrics; empty if nothing was ranked"""
    group: Int64s
    """Of each target, its position in `POPULARITY_GROUPS`"""


def evaluate_fully(
    model: Recommender,
    sequences: Sequences,
    split: Split,
    part: Literal["valid", "test"],
    device: torch.device,
    filter_history: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """All metrics of the model on a part; see `rank_targets` for the arguments."""
    cases = cases_of(sequences, split, part)
    places = torch.full((model.num_items,), np.iinfo(np.int32).max, dtype=torch.int32, device=device)
    ranks = rank_targets(model, sequences, cases, device, filter_history, places, on_progress)
    if not len(cases):
        return Evaluation(ranks, {}, {}, np.zeros(0, np.int64))
    _, targets = targets_of(sequences, cases)
    group = popularity_groups(training_counts(sequences, split, model.num_items))[targets]
    return Evaluation(
        ranks, {**metrics_of(ranks), **coverage_of(places)}, metrics_by_group(ranks, group, POPULARITY_GROUPS), group
    )


def popularity_groups(counts: Int64s) -> Int64s:
    """Of each item, by its training interactions, its position in `POPULARITY_GROUPS`.

    The head is the fifth of the training items that occur most often, where that ends amid equals those that come
    first; the rest of the training items are the tail.
    """
    groups = np.where(counts > 0, 1, 2)
    num_trained = int((counts > 0).sum())
    by_count = np.argsort(-counts, kind="stable")
    groups[by_count[: -(-num_trained // _HEAD_ONE_IN)]] = 0
    return groups
