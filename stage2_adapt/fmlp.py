"""FMLP (Zhou et al., arXiv 2202.13556, section 3): learned filters over the items of a history, and no attention.

The paper's filters multiply a history's Fourier transform, which makes each position see all others, later ones too,
and is trained on the last position alone. Here every position is trained on, so the filters see none that come later:
each dimension of a position's state is a weighted sum of itself and of those before, by a learned weight for each
distance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssna.stage2_adapt.blocks import BlockStack
from ssna.stage2_adapt.dropout import Dropout


class FMLP(BlockStack):
    """Learned filters over a history; they tell places apart, so there are no positions."""

    def __init__(self, width: int, length: int, blocks: int, dropout: float) -> None:
        super().__init__(width, (_Block(width, length, dropout) for _ in range(blocks)), dropout, None)


class _Block(nn.Module):
    def __init__(self, width: int, length: int, dropout: float) -> None:
        super().__init__()
        self.filter_norm = nn.LayerNorm(width)
        self.filter_weights = nn.Parameter(torch.empty(length, width).normal_(std=0.02))  # Of the position itself first
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward_in = nn.Linear(width, 4 * width)
        self.feed_forward_out = nn.Linear(4 * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        place = torch.arange(hidden.shape[1], device=hidden.device)
        distance = place[:, None] - place  # (L, L); negative for later items
        # Looked up, not indexed, as in `Positions`. As matrices, one a dimension, which for such lengths takes less
        # time than Fourier transforms.
        weights = functional.embedding(distance.clamp_min(0), self.filter_weights) * (distance >= 0)[..., None]
        filtered = torch.einsum("tjd,bjd->btd", weights, self.filter_norm(hidden))
        hidden = hidden + self.dropout(filtered)
        inner = functional.gelu(self.feed_forward_in(self.feed_forward_norm(hidden)))
        out: Tensor = hidden + self.dropout(self.feed_forward_out(inner))
        return out
