"""HSTU (Zhai et al., arXiv 2402.17152, section 3): pointwise aggregated attention over the items of a history.

As in the paper a block has no feed-forward part: one map gives queries, keys, values and gates, attention weights are a
SiLU of the scores instead of a softmax, and the gates multiply what was gathered. Of the relative attention bias the
part of positions is here; the part of times is not, since datasets without timestamps are served too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssna.stage2_adapt.blocks import BlockStack
from ssna.stage2_adapt.dropout import Dropout
from ssna.stage2_adapt.positions import Positions


class HSTU(BlockStack):
    """Pointwise aggregated attention over a history."""

    def __init__(self, width: int, length: int, blocks: int, heads: int, dropout: float) -> None:
        positions = Positions(length, width)
        super().__init__(width, (_Block(width, length, heads, dropout) for _ in range(blocks)), dropout, positions)


class _Block(nn.Module):
    def __init__(self, width: int, length: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.length = heads, length
        self.norm_in = nn.LayerNorm(width)
        self.maps = nn.Linear(width, 4 * width)
        self.distance_bias = nn.Parameter(torch.zeros(heads, length))
        self.norm_mixed = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        maps = functional.silu(self.maps(self.norm_in(hidden)))
        gates, queries, keys, values = maps.chunk(4, dim=2)
        queries, keys, values = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in (queries, keys, values)
        )
        place = torch.arange(length, device=hidden.device)
        distance = place[:, None] - place  # (L, L); negative for later items
        # Looked up, not indexed, as in `Positions`.
        bias = functional.embedding(distance.clamp_min(0), self.distance_bias.T).permute(2, 0, 1)
        scores = queries @ keys.transpose(2, 3) + bias  # (B, heads, L, L)
        weights = functional.silu(scores).masked_fill(distance < 0, 0) / self.length
        mixed = (weights @ values).transpose(1, 2).reshape(batch, length, width)
        out: Tensor = hidden + self.out(self.dropout(self.norm_mixed(mixed) * gates))
        return out
