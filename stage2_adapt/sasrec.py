"""SASRec (Kang and McAuley, arXiv 1808.09781): causal self-attention over the items of a history.

Differs from the paper in its pre-norm blocks and GELU. As there, positions are counted from the end of a history, so
that the place from which the next item is predicted is the same, and trained, for histories of every length.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssna.stage2_adapt.blocks import BlockStack
from ssna.stage2_adapt.dropout import Dropout
from ssna.stage2_adapt.positions import Positions, at_ends


class SASRec(BlockStack):
    """Causal self-attention over a history."""

    def __init__(self, width: int, length: int, blocks: int, heads: int, dropout: float) -> None:
        positions = Positions(length, width)
        super().__init__(width, (_Block(width, heads, dropout) for _ in range(blocks)), dropout, positions)

    def last_states(self, items: Tensor, counts: Tensor) -> Tensor:
        """See `BlockStack.last_states`; the last block makes no other states."""
        hidden = self.first_states(items, counts)
        for block in self.blocks[:-1]:
            hidden = block(hidden)
        last = cast(_Block, self.blocks[-1])
        states: Tensor = self.norm(last.at_end(hidden, counts))
        return states


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward_in = nn.Linear(width, 4 * width)
        self.feed_forward_out = nn.Linear(4 * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        queries, keys, values = self._maps(hidden)
        return self._feed(hidden, functional.scaled_dot_product_attention(queries, keys, values, is_causal=True))

    def at_end(self, hidden: Tensor, counts: Tensor) -> Tensor:
        """What `forward` gives at the last place of each history ``(B, d)``."""
        queries, keys, values = self._maps(hidden)
        there = (torch.arange(hidden.shape[1], device=hidden.device) < counts[:, None])[:, None, None]  # (B, 1, 1, L)
        last = at_ends(queries.transpose(1, 2), counts)[:, :, None]  # (B, heads, 1, d / heads)
        mixed = functional.scaled_dot_product_attention(last, keys, values, attn_mask=there)
        return self._feed(at_ends(hidden, counts)[:, None], mixed)[:, 0]

    def _maps(self, hidden: Tensor) -> Tensor:
        """Queries, keys and values, each ``(B, heads, L, d / heads)``."""
        batch, length, width = hidden.shape
        maps: Tensor = self.queries_keys_values(self.attention_norm(hidden))
        return maps.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)

    def _feed(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        """The block's output ``(B, L, d)``, given what its heads have gathered ``(B, heads, L, d / heads)``."""
        hidden = hidden + self.dropout(self.attention_out(mixed.transpose(1, 2).reshape(hidden.shape)))
        inner = functional.gelu(self.feed_forward_in(self.feed_forward_norm(hidden)))
        out: Tensor = hidden + self.dropout(self.feed_forward_out(inner))
        return out
