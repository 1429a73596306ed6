"""Preparing the cached states of a run's items."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Standardization:
    """Each layer's mean and standard deviation, ``(A, D)`` each, over the distinct training items."""

    mean: Tensor
    deviation: Tensor

    def apply_(self, states: Tensor) -> Tensor:
        """The states ``(n, A, D)`` centred and scaled, in place."""
        return states.sub_(self.mean).div_(self.deviation)


def fit_standardization(states: Tensor) -> Standardization:
    """The constants that give these states ``(n, A, D)`` mean 0 and deviation 1 in every dimension of every layer.

    Raw LLM states are anisotropic: without this, texts differ by a few per cent of a vector that all share.
    A dimension that is the same for all items stays 0.
    """
    deviation, mean = torch.std_mean(states, dim=0, correction=0)
    return Standardization(mean, deviation.clamp_min(_SMALLEST_DEVIATION))
