"""Paired comparisons over users, and their correction for how many are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_AT_ONCE = 250


@dataclass(frozen=True)
class Comparison:
    """By how much a method is above another, relative to the other: .1 is ten per cent more."""

    difference: float
    low: float
    """Of the 95 % interval"""
    high: float
    p_value: float
    """Two-sided, of the bootstrap; not corrected"""


def per_user(ranks: np.ndarray, metric: str) -> np.ndarray:
    """A metric of each of U targets ``(U,)``, from their ranks; 0 is beyond all k."""
    name, k = metric.split("@")
    found = (ranks > 0) & (ranks <= int(k))
    gain = {"recall": np.ones(len(ranks)), "ndcg": 1 / np.log2(np.maximum(ranks, 1) + 1.0)}[name]
    return np.where(found, gain, 0.0)


def compare(ours: np.ndarray, theirs: np.ndarray) -> Comparison:
    """Resample users, the same for both ``(U,)`` (Efron and Tibshirani 1993, chapter 13, percentiles).

    A p-value is twice the share of resamples on the other side of zero; never less than two of their number.
    """
    resampled = _means(ours, theirs)
    differences = resampled[0] / np.maximum(resampled[1], 1e-12) - 1
    low, high = np.quantile(differences, [0.025, 0.975])
    other_side = min((differences <= 0).sum(), (differences >= 0).sum())
    p_value = min(1.0, 2 * max(1, int(other_side)) / RESAMPLES)
    return Comparison(float(ours.mean() / max(theirs.mean(), 1e-12) - 1), float(low), float(high), p_value)


def excess(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """By how much our mean is above theirs, in the metric's own unit, and its 95 % interval, resampled likewise."""
    resampled = _means(ours, theirs)
    low, high = np.quantile(resampled[0] - resampled[1], [0.025, 0.975])
    return float(ours.mean() - theirs.mean()), float(low), float(high)


def _means(*each: np.ndarray) -> np.ndarray:
    """Means of the same resamples of U users ``(U,)`` of each: ``(…, RESAMPLES)``."""
    rng, values = np.random.default_rng(0), np.stack(each)
    found = [
        values[:, rng.integers(0, values.shape[1], (_AT_ONCE, values.shape[1]))].mean(axis=2)
        for _ in range(RESAMPLES // _AT_ONCE)
    ]
    return np.concatenate(found, axis=1)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979)."""
    order = np.argsort(p_values)
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = largest
    return corrected
