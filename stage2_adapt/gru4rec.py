"""GRU4Rec (Hidasi et al., arXiv 1511.06939): a gated recurrent network over the items of a history.

Trained at every position of a sequence with the same losses as the other models, not with the paper's session-parallel
batches and ranking losses, whose weakness was their few negatives (Petrov and Macdonald, arXiv 2207.02643).
"""

from __future__ import annotations

from torch import Tensor, nn

from ssna.stage2_adapt.dropout import Dropout
from ssna.stage2_adapt.positions import at_ends


class GRU4Rec(nn.Module):
    """Item vectors of histories in, one state a position out, from which the next item is scored."""

    def __init__(self, width: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(blocks))
        self.out = nn.Linear(width, width)

    def forward(self, items: Tensor, counts: Tensor) -> Tensor:
        """See `BlockStack.forward`; padding stands after a history's end, so `counts` is not needed."""
        hidden = self.dropout(items)
        for layer in self.layers:
            hidden = self.dropout(layer(hidden)[0])
        states: Tensor = self.out(hidden)
        return states

    def last_states(self, items: Tensor, counts: Tensor) -> Tensor:
        """See `BlockStack.last_states`."""
        return at_ends(self.forward(items, counts), counts)
