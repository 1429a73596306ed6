"""A learned bias of items that a history has already, by how long ago they came."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Biases are as large as scores, some ten times the size of a weight, and shall not take ten times as long to learn.
_PACE = 10


class RepeatBias(nn.Module):
    """How much likelier or unlikelier than its vector says an item is that came n interactions ago, for each n.

    Whether items repeat is a matter of the data: films are rated once, screws are bought again, and the last one most.
    A recommender without such a bias puts the history's items first, which are next to its state. That histories want a
    way of their own into the scores is RepeatNet's idea (Ren et al., arXiv 1812.02646); this one has L parameters.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.by_age = nn.Parameter(torch.zeros(length))

    def forward(self) -> Tensor:
        """The biases ``(L,)``, that of the most recent item first; the last one holds for all that are older too."""
        return _PACE * self.by_age


def repeats_of(columns: Tensor, ends: Tensor, num_ages: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which columns of scores the items of histories add to, and by how much.

    Args:
        columns: ``(P, H)``, of each history's items among the candidates, oldest first; negative is padding.
        ends: ``(P,)``, the place of each one's most recent item; what is after it does not count.
        num_ages: L.

    Returns:
        ``(P, H)`` each: a column, one that stands twice being added to twice; the place in `RepeatBias`; and whether it
        counts, 1 or 0.
    """
    age = ends[:, None] - torch.arange(columns.shape[1], device=columns.device)
    return columns.clamp_min(0), age.clamp(0, num_ages - 1), (age >= 0).float()
