"""Preparing the cached states of a run's items."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssna.stage2_adapt.options import PreparationName

_SMALLEST_DEVIATION = 1e-6
# Directions in which standardised training states vary less than this share of the mean variance are dropped when
# they are whitened: what is in them is rounding, and there are some whenever there are fewer items than dimensions.
_SMALLEST_VARIANCE = 1e-4


@dataclass(frozen=True)
class Preparation:
    """What is done to the states ``(A, n, D)`` before the side network reads them; the constants belong to the run.

    A map is not applied to the states but multiplied into the weights that read them (`SideNetwork.forward`).
    """

    mean: Tensor
    """``(A, D)``"""
    deviation: Tensor
    """``(A, D)``"""
    whitening: Tensor | None = None
    """``(A, D, D)``, a map of standardised states that gives them the identity as covariance"""

    def apply(self, states: Tensor) -> Tensor:
        """The states ``(A, n, D)`` centred and scaled, in their own memory."""
        return states.sub_(self.mean[:, None]).div_(self.deviation[:, None])


def lowest_first(states: Tensor) -> Tensor:
    """Cached states ``(n, A, D)``, top layer first, as stage two reads them: ``(A, n, D)``, lowest layer first.

    This is the one place where the order is turned. Each layer of the result is contiguous.
    """
    return states.transpose(0, 1).flip(0).contiguous()


def fit_preparation(states: Tensor, name: PreparationName) -> Preparation:
    """The constants for these states ``(A, n, D)``, the distinct ones of the training items.

    `standardize` gives every dimension of every layer mean 0 and deviation 1: raw LLM states are anisotropic, so that
    without it texts differ by a few per cent of a vector that all share. A dimension that is the same for all items
    stays 0. `whiten` also removes the correlations between dimensions by PCA. `none` changes nothing.
    """
    if name == "none":
        layers, _, width = states.shape
        return Preparation(torch.zeros(layers, width), torch.ones(layers, width))
    deviation, mean = torch.std_mean(states, dim=1, correction=0)
    preparation = Preparation(mean, deviation.clamp_min(_SMALLEST_DEVIATION))
    if name == "standardize":
        return preparation
    maps = [
        _whitening((layer - mean) / deviation)
        for layer, mean, deviation in zip(states, preparation.mean, preparation.deviation, strict=True)
    ]
    return Preparation(preparation.mean, preparation.deviation, torch.stack(maps))


def _whitening(states: Tensor) -> Tensor:
    """The map ``(D, D)`` from standardised states ``(n, D)`` to their principal components at variance 1."""
    covariance = states.T.double() @ states.double() / len(states)
    variances, directions = torch.linalg.eigh(covariance)
    kept = variances > _SMALLEST_VARIANCE * variances.mean()
    scales = torch.where(kept, variances.clamp_min(1e-30).rsqrt(), 0)
    whitening: Tensor = (directions * scales).float()
    return whitening
