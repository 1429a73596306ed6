"""Ranking all items for held-out targets, and the metrics of the ranks (docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssna.cache import SsnaError
from ssna.stage2_adapt.recommenders import Recommender
from ssna.stage2_adapt.sequences import Cases, Sequences, gather_spans, targets_of

CUTOFFS = (5, 10, 20)
# What is held at once: scores, and cases, whose hidden states are what grows for a small catalogue.
_CHUNK_SCORES = 2**23
_CHUNK_CASES = 1024


class NaNScoreError(SsnaError):
    """The model scores an item NaN, so no ranking exists."""


@dataclass(frozen=True)
class Ranks:
    """Where each target of each case came, 1 is best."""

    case: npt.NDArray[np.int64]
    """(P,): position of the pair's case"""
    rank: npt.NDArray[np.int64]
    """(P,)"""
    num_cases: int


@torch.no_grad()
def rank_targets(
    model: Recommender, sequences: Sequences, cases: Cases, device: torch.device, filter_history: bool = False
) -> Ranks:
    """Rank every target among all items, none sampled.

    The rank is 1 + the number of other items whose score is at least the target's, so ties never favour the target.

    Args:
        model: in evaluation mode.
        sequences: all users'.
        cases: whose targets to rank.
        device: of the model.
        filter_history: whether items of the history are ranked last, a target that is among them too.

    Raises:
        NaNScoreError: if any score is NaN.
    """
    case, target = targets_of(sequences, cases)
    items = torch.from_numpy(sequences.items).to(device)
    one_each = len(case) == len(cases)
    ranks = np.empty(len(case), np.int64)
    at_once = min(_CHUNK_CASES, max(1, _CHUNK_SCORES // max(1, model.num_items)))
    for start in range(0, len(cases), at_once):
        stop = min(start + at_once, len(cases))
        scores = _scores(model, items, cases, slice(start, stop), filter_history)
        pairs = slice(*np.searchsorted(case, [start, stop]))
        mine = scores if one_each else scores[torch.from_numpy(case[pairs] - start).to(device)]
        wanted = mine.gather(1, torch.from_numpy(target[pairs, None] - 1).to(device))
        ranks[pairs] = (mine >= wanted).sum(dim=1).cpu().numpy()  # The target itself counts as the 1.
    return Ranks(case, ranks, len(cases))


def _scores(model: Recommender, items: Tensor, cases: Cases, part: slice, filter_history: bool) -> Tensor:
    start, end = torch.from_numpy(cases.start[part]), torch.from_numpy(cases.history_end[part])
    histories, counts = gather_spans(items, start, end, model.length)
    scores = model.scores(histories, counts.to(items.device))
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


def metrics_of(ranks: Ranks) -> dict[str, float]:
    """Recall@k and NDCG@k for each cut-off, means over cases; empty if there are none.

    Recall@k is hits / min(k, targets); NDCG@k divides by the gain of the best possible ranking.
    """
    if not ranks.num_cases:
        return {}
    targets = np.bincount(ranks.case, minlength=ranks.num_cases)
    metrics: dict[str, float] = {}
    for k in CUTOFFS:
        hit = ranks.rank <= k
        reachable = np.minimum(targets, k)
        hits = np.bincount(ranks.case[hit], minlength=ranks.num_cases)
        metrics[f"recall@{k}"] = float(np.mean(hits / reachable))
        gains = np.bincount(ranks.case[hit], weights=_gain(ranks.rank[hit]), minlength=ranks.num_cases)
        ideal = np.cumsum(_gain(np.arange(1, k + 1)))
        metrics[f"ndcg@{k}"] = float(np.mean(gains / ideal[reachable - 1]))
    return metrics


def _gain(rank: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    gain: npt.NDArray[np.float64] = 1 / np.log2(rank + 1)
    return gain


def evaluate(
    model: Recommender, sequences: Sequences, cases: Cases, device: torch.device, filter_history: bool = False
) -> Mapping[str, float]:
    """Metrics of the model on these cases; see `rank_targets` and `metrics_of`."""
    return metrics_of(rank_targets(model, sequences, cases, device, filter_history))
