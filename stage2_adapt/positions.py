"""Places in a history, counted from its end."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Positions(nn.Module):
    """A vector for each place, added to the item there.

    Counted from the end, the place from which the next item is predicted is the same, and trained, for histories of
    every length.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(length, width).normal_(std=0.02))

    def forward(self, items: Tensor, counts: Tensor) -> Tensor:
        """The items ``(B, L, d)``, left-aligned, `counts` ``(B,)`` of them in each history, with their places added."""
        length = len(self.vectors)
        place = torch.arange(items.shape[1], device=items.device) + length - counts[:, None]  # (B, L)
        # Not indexing: its gradient is summed in no fixed order by several threads, so resuming would not be exact.
        return items + nn.functional.embedding(place.clamp_max(length - 1), self.vectors)


def at_ends(values: Tensor, counts: Tensor) -> Tensor:
    """Of left-aligned histories ``(B, L, …)``, `counts` ``(B,)`` long, the values at their last places ``(B, …)``."""
    return values[torch.arange(values.shape[0], device=values.device), counts - 1]
