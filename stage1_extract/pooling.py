"""Pooling as a weighted sum over tokens: from hidden states (n, T, D) to one state a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Pooling = Literal["mean", "last", "cls"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def pooling_weights(lengths: Sequence[int], skip_first: Sequence[bool], rule: Pooling) -> npt.NDArray[np.float32]:
    """The weight of each token in its text's state, float32 ``(n, T)``; each row sums to one, padding weighs nothing.

    Args:
        lengths: tokens of each text, padded on the right to the longest, T.
        skip_first: which texts begin with a token that `mean` leaves out; never done to the only token.
        rule: `mean` over tokens, or all weight on the `last` or the first (`cls`).
    """
    counts = np.asarray(lengths, np.int64)[:, None]
    place = np.arange(counts.max())
    first = np.zeros_like(counts)
    last = counts - 1
    if rule == "mean":
        first += np.asarray(skip_first, np.bool_)[:, None] & (counts > 1)
    elif rule == "last":
        first = last
    else:
        last = first
    counted: npt.NDArray[np.bool_] = (place >= first) & (place <= last)
    weights: npt.NDArray[np.float32] = np.divide(counted, last - first + 1, dtype=np.float32)
    return weights


def pool(hidden: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum over tokens: ``(n, T, D)`` and ``(n, T)`` to float32 ``(n, D)``."""
    return torch.bmm(weights[:, None].to(hidden.device), hidden.to(torch.float32)).squeeze(1)
