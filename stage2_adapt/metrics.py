"""Metrics of ranks, their intervals, and paired comparisons (docs/evaluation.md). Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CUTOFFS = (5, 10, 20)
INTERVAL = (0.025, 0.975)
"""Quantiles of a 95 % interval"""
# Users resampled or signs flipped at once: an (M, C) block of some ten megabytes.
_DRAWN_AT_ONCE = 2**22

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """Where each target of each case came, 1 is best."""

    case: npt.NDArray[np.int64]
    """(P,): position of the pair's case, ascending"""
    rank: npt.NDArray[np.int64]
    """(P,)"""
    num_cases: int
    """C"""


def join_ranks(parts: Sequence[Ranks]) -> Ranks:
    """Those of consecutive parts of the cases as one."""
    before = np.cumsum([0, *(part.num_cases for part in parts)])
    case = np.concatenate([part.case + start for part, start in zip(parts, before[:-1], strict=True)])
    return Ranks(case, np.concatenate([part.rank for part in parts]), int(before[-1]))


def metrics_of(ranks: Ranks) -> dict[str, float]:
    """Recall@k, NDCG@k and MRR@k for each cut-off, means over cases; empty if there are none."""
    if not ranks.num_cases:
        return {}
    return {name: float(values.mean()) for name, values in metrics_by_case(ranks).items()}


def metrics_by_case(ranks: Ranks) -> dict[str, Floats]:
    """Recall@k, NDCG@k and MRR@k for each cut-off and case, ``(C,)`` each.

    Recall@k is hits / min(k, targets); NDCG@k divides by the gain of the best possible ranking; MRR@k is one over the
    rank of the best target, 0 if that is beyond k.
    """
    targets = np.bincount(ranks.case, minlength=ranks.num_cases)
    best = np.full(ranks.num_cases, np.iinfo(np.int64).max)
    np.minimum.at(best, ranks.case, ranks.rank)
    metrics = dict[str, Floats]()
    for k in CUTOFFS:
        hit = ranks.rank <= k
        reachable = np.minimum(targets, k)
        metrics[f"recall@{k}"] = np.bincount(ranks.case[hit], minlength=ranks.num_cases) / reachable
        gains = np.bincount(ranks.case[hit], weights=_gain(ranks.rank[hit]), minlength=ranks.num_cases)
        metrics[f"ndcg@{k}"] = gains / np.cumsum(_gain(np.arange(1, k + 1)))[reachable - 1]
        metrics[f"mrr@{k}"] = np.where(best <= k, 1 / best, 0.0)
    return metrics


def metrics_by_group(ranks: Ranks, group: npt.NDArray[np.int64], names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """For the targets of each group, their number, and the Recall@k and NDCG@k of each as if it were the only target.

    Args:
        ranks: of all targets.
        group: of each target ``(P,)``, a position in `names`.
        names: of the groups.
    """
    found = dict[str, dict[str, float]]()
    for number, name in enumerate(names):
        mine = ranks.rank[group == number]
        found[name] = {"targets": len(mine)}
        if len(mine):
            alone = Ranks(np.arange(len(mine)), mine, len(mine))
            found[name] |= {key: value for key, value in metrics_of(alone).items() if not key.startswith("mrr")}
    return found


def intervals_by_group(
    ranks: Ranks, group: npt.NDArray[np.int64], names: tuple[str, ...], metrics: tuple[str, ...], resamples: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """95 % intervals of these metrics of `metrics_by_group`, of each group that has targets.

    Cases are resampled with all their targets of the group, since the targets of one case are not independent.

    Args:
        ranks: of all targets.
        group: of each target ``(P,)``, a position in `names`.
        names: of the groups.
        metrics: their keys, such as `recall@10`.
        resamples: how many.
    """
    found = dict[str, dict[str, tuple[float, float]]]()
    for number, name in enumerate(names):
        mine = group == number
        if mine.any():
            _, case, counts = np.unique(ranks.case[mine], return_inverse=True, return_counts=True)
            values = metrics_by_case(Ranks(np.arange(len(case)), ranks.rank[mine], len(case)))
            found[name] = {
                key: bootstrap_interval(
                    np.bincount(case, weights=values[key]).astype(np.float64), resamples, counts=counts
                )
                for key in metrics
            }
    return found


def intervals_of(ranks: Ranks, resamples: int) -> dict[str, tuple[float, float]]:
    """95 % intervals of `metrics_of`, by resampling cases; empty if there are none."""
    if not ranks.num_cases:
        return {}
    return {name: bootstrap_interval(values, resamples) for name, values in metrics_by_case(ranks).items()}


def bootstrap_interval(
    values: Floats, resamples: int, seed: int = 0, counts: npt.NDArray[np.int64] | None = None
) -> tuple[float, float]:
    """95 % interval of the mean over cases, by resampling cases (percentile bootstrap; Efron 1979).

    Args:
        values: of each case ``(C,)``, or the sum of its values if it has several.
        resamples: how many.
        seed: of the draws.
        counts: how many values each case has ``(C,)``; None if one.
    """
    generator, means = np.random.default_rng(seed), list[Floats]()
    for count in _blocks(resamples, len(values)):
        drawn = generator.integers(0, len(values), (count, len(values)))
        means.append(values[drawn].mean(axis=1) if counts is None else values[drawn].sum(1) / counts[drawn].sum(1))
    low, high = np.quantile(np.concatenate(means), INTERVAL)
    return float(low), float(high)


def paired_p_value(differences: Floats, flips: int, seed: int = 0) -> float:
    """Two-sided p-value of the mean of paired differences ``(C,)`` being 0, by flipping signs at random.

    The observed signs count as one of the draws, so the value is never 0 (Phipson and Smyth 2010).
    """
    generator, extreme = np.random.default_rng(seed), 1
    observed = abs(differences.sum())
    for count in _blocks(flips, len(differences)):
        signs = generator.integers(0, 2, (count, len(differences)), dtype=np.int8) * 2 - 1
        # Sums of the same numbers in another order differ in their last bits.
        extreme += int((np.abs(signs @ differences) >= observed * (1 - 1e-12)).sum())
    return extreme / (flips + 1)


def _blocks(draws: int, size: int) -> list[int]:
    at_once = max(1, _DRAWN_AT_ONCE // max(1, size))
    return [min(at_once, draws - start) for start in range(0, draws, at_once)]


def _gain(rank: npt.NDArray[np.int64]) -> Floats:
    gain: Floats = 1 / np.log2(rank + 1)
    return gain
