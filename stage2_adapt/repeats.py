"""A learned bias of items that a history has already, by how long ago they came."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

# Biases are as large as scores, some ten times the size of a weight, and shall not take ten times as long to learn.
_PACE = 10


class AddedScores(NamedTuple):
    """What is added to some of P rows of scores over candidates."""

    columns: Tensor
    """``(P, H)`` int64; one that stands twice in a row is added to twice"""
    values: Tensor
    """``(P, H)`` float32"""


class RepeatBias(nn.Module):
    """How much likelier or unlikelier than its vector says an item is that came n interactions ago, for each n.

    Whether items repeat is a matter of the data: films are rated once, screws are bought again, and the last one most.
    A recommender without such a bias puts the history's items first, which are next to its state. That histories want a
    way of their own into the scores is RepeatNet's idea (Ren et al., arXiv 1812.02646); this one has L parameters.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.by_age = nn.Parameter(torch.zeros(length))

    def forward(self, histories: Tensor, ends: Tensor) -> AddedScores:
        """What the items of each history add to their own scores.

        Args:
            histories: item numbers ``(P, L)`` from 1, left-aligned, oldest first.
            ends: ``(P,)``, the place of each one's most recent item; what is after it does not count.
        """
        age = ends[:, None] - torch.arange(histories.shape[1], device=histories.device)
        values = torch.where(age >= 0, _PACE * self.by_age[age.clamp_min(0)], 0)
        return AddedScores((histories - 1).clamp_min(0), values)
