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

    def apply(self, states: Tensor) -> Tensor:
        """The states ``(A, n, D)`` centred and scaled, in their own memory."""
        return states.sub_(self.mean[:, None]).div_(self.deviation[:, None])


def lowest_first(states: Tensor) -> Tensor:
    """Cached states ``(n, A, D)``, top layer first, as stage two reads them: ``(A, n, D)``, lowest layer first.

    This is the one place where the order is turned. Each layer of the result is contiguous.
    """
    return states.transpose(0, 1).flip(0).contiguous()


def fit_standardization(states: Tensor) -> Standardization:
    """The constants that give these states ``(A, n, D)`` mean 0 and deviation 1 in every dimension of every layer.

    Raw LLM states are anisotropic: without this, texts differ by a few per cent of a vector that all share.
    A dimension that is the same for all items stays 0.
    """
    deviation, mean = torch.std_mean(states, dim=1, correction=0)
    return Standardization(mean, deviation.clamp_min(_SMALLEST_DEVIATION))
