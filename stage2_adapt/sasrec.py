"""SASRec (Kang and McAuley, arXiv 1808.09781): causal self-attention over the items of a history.

Differs from the paper in its pre-norm blocks and GELU. As there, positions are counted from the end of a history, so
that the place from which the next item is predicted is the same, and trained, for histories of every length.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ssna.stage2_adapt.dropout import Dropout
from ssna.stage2_adapt.positions import Positions


class SASRec(nn.Module):
    """Item vectors of histories in, one state a position out, from which the next item is scored."""

    def __init__(self, width: int, length: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.positions = Positions(length, width)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, items: Tensor, counts: Tensor) -> Tensor:
        """States ``(B, L, d)`` of left-aligned histories ``(B, L, d)``, each of which sees no later item.

        Padding after a history's end therefore changes nothing before it.

        Args:
            items: item vectors, no more than `length` of a history.
            counts: ``(B,)``, items in each history.
        """
        hidden = self.dropout(self.positions(items, counts))
        for block in self.blocks:
            hidden = block(hidden)
        states: Tensor = self.norm(hidden)
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
        hidden = hidden + self.dropout(self._attend(self.attention_norm(hidden)))
        inner = functional.gelu(self.feed_forward_in(self.feed_forward_norm(hidden)))
        out: Tensor = hidden + self.dropout(self.feed_forward_out(inner))
        return out

    def _attend(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        split = self.queries_keys_values(hidden).view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)  # each (B, heads, L, d / heads)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        out: Tensor = self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out
