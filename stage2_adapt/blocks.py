"""What the sequence models that are stacks of blocks have in common."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ssna.stage2_adapt.dropout import Dropout
from ssna.stage2_adapt.positions import Positions, at_ends


class BlockStack(nn.Module):
    """Item vectors of histories in, one state a position out, from which the next item is scored."""

    def __init__(self, width: int, blocks: Iterable[nn.Module], dropout: float, positions: Positions | None) -> None:
        """Make a stack.

        Args:
            width: d.
            blocks: maps of ``(B, L, d)``, in which no place sees a later one.
            dropout: share of the values of items that is dropped in training.
            positions: added to the items; None for blocks that tell places apart themselves.
        """
        super().__init__()
        self.positions = positions
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)

    def forward(self, items: Tensor, counts: Tensor) -> Tensor:
        """States ``(B, L, d)`` of left-aligned histories ``(B, L, d)``, each of which sees no later item.

        Padding after a history's end therefore changes nothing before it.

        Args:
            items: item vectors, no more than `length` of a history.
            counts: ``(B,)``, items in each history.
        """
        hidden = self.first_states(items, counts)
        for block in self.blocks:
            hidden = block(hidden)
        states: Tensor = self.norm(hidden)
        return states

    def last_states(self, items: Tensor, counts: Tensor) -> Tensor:
        """Of each history, the state at its end ``(B, d)``; all that scoring needs.

        Args:
            items: see `forward`.
            counts: likewise, at least 1.
        """
        return at_ends(self.forward(items, counts), counts)

    def first_states(self, items: Tensor, counts: Tensor) -> Tensor:
        """What the first block reads."""
        states: Tensor = self.dropout(items if self.positions is None else self.positions(items, counts))
        return states
