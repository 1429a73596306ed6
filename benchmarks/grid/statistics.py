"""Paired comparisons over users, and their correction for how many are made."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000
_AT_ONCE = 250


@dataclass(frozen=True)
class Comparison:
    """By how much a method is above another, relative to the other: .1 is ten per cent more."""

    difference: float
    interval: tuple[float, float]
    """95 %, by the chance of the users alone: metrics are averaged over seeds first"""
    with_seeds: tuple[float, float]
    """95 %, by the chance of users and of seeds; the same where there is one seed of each"""
    p_value: float
    """Two-sided, of the users' bootstrap; not corrected"""


def per_user(ranks: np.ndarray, metric: str) -> np.ndarray:
    """A metric of each of U targets ``(U,)``, from their ranks; 0 is beyond all k."""
    name, k = metric.split("@")
    found = (ranks > 0) & (ranks <= int(k))
    gain = {"recall": np.ones(len(ranks)), "ndcg": 1 / np.log2(np.maximum(ranks, 1) + 1.0)}[name]
    return np.where(found, gain, 0.0)


def compare(ours: np.ndarray, theirs: np.ndarray) -> Comparison:
    """Resample users, the same for both (Efron and Tibshirani 1993, chapter 13, percentiles), and seeds, each its own.

    A p-value is twice the share of resamples on the other side of zero, where the value itself counts as one more.

    Args:
        ours: a metric of each seed and user ``(S, U)``.
        theirs: of the same users, of as many or other seeds.
    """
    mine, others = _means([ours, theirs])
    differences = _relative(mine.mean(axis=0), others.mean(axis=0))
    other_side = min((differences <= 0).sum(), (differences >= 0).sum())
    return Comparison(
        float(_relative(ours.mean(), theirs.mean())),
        _interval(differences),
        _interval(_relative(*map(_resample_seeds, (mine, others), (1, 2)))),
        min(1.0, 2 * (1 + int(other_side)) / (1 + RESAMPLES)),
    )


def excess(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, tuple[float, float]]:
    """By how much our mean is above theirs, in the metric's own unit, and its 95 % interval by the chance of users."""
    mine, others = _means([ours, theirs])
    return float(ours.mean() - theirs.mean()), _interval(mine.mean(axis=0) - others.mean(axis=0))


def _relative(ours: Any, theirs: Any) -> Any:
    return ours / np.maximum(theirs, 1e-12) - 1


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _resample_seeds(means: np.ndarray, generator: int) -> np.ndarray:
    """Of means ``(S, R)``, in each of R resamples the mean over S - 1 seeds that are drawn with replacement: ``(R,)``.

    One fewer than there are, since S draws of so few would vary by (S - 1) / S of what S seeds do (Rao and Wu 1988,
    Resampling inference with complex survey data).
    """
    seeds, resamples = means.shape
    drawn = max(1, seeds - 1)
    counts = np.random.default_rng(generator).multinomial(drawn, np.full(seeds, 1 / seeds), resamples)
    mean: np.ndarray = (counts.T * means).sum(axis=0) / drawn
    return mean


def _means(each: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Means over the same resamples of U users, of each seed ``(S, U)``: ``(S, RESAMPLES)``."""
    counts = _counts(each[0].shape[1])
    found: list[list[np.ndarray]] = [[] for _ in each]
    for first in range(0, RESAMPLES, _AT_ONCE):
        block = counts[first : first + _AT_ONCE].T.astype(np.float64)
        for values, means in zip(each, found, strict=True):
            means.append(values @ block / values.shape[1])
    return [np.concatenate(means, axis=1) for means in found]


@functools.lru_cache(maxsize=8)
def _counts(num_users: int) -> np.ndarray:
    """How often each user is drawn in each resample: uint8 ``(RESAMPLES, U)``, the same whenever it is asked for."""
    rng, counts = np.random.default_rng(0), np.empty((RESAMPLES, num_users), np.uint8)
    for row in counts:
        row[:] = np.bincount(rng.integers(0, num_users, num_users), minlength=num_users)
    return counts


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979)."""
    order = np.argsort(p_values)
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = largest
    return corrected
