"""Item vectors: from the LLM's layer states by the side network, from a learned ID table, or both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.side_network import SideNetwork

_ITEMS_AT_ONCE = 8192
# The side network's intermediate values of so many items stay in a CPU's cache (benchmarks/side_blocks.py).
_CPU_BLOCK_ITEMS = 2048


class ItemEncoder(nn.Module):
    """Vectors of items 1 to N, of which the first T occur in training.

    An item without training interactions has an ID vector of exactly zero.
    """

    def __init__(self, states_size: tuple[int, int] | None, num_trained: int, options: AdaptOptions) -> None:
        """Make the parts that the options ask for.

        Args:
            states_size: layers A and width D of the states; None for a model without a side network.
            num_trained: T.
            options: width, and whether items have an ID embedding.
        """
        super().__init__()
        self.side: SideNetwork | None = None
        self.id_table: nn.Parameter | None = None
        if states_size is not None:
            self.side = SideNetwork(*states_size, options.width)
        if options.learns_ids:
            self.id_table = nn.Parameter(torch.empty(num_trained, options.width).normal_(std=0.02))

    def forward(self, states: Tensor | None, first: int, last: int) -> Tensor:
        """Vectors ``(last - first, d)`` of the items first + 1 to last.

        Args:
            states: standardised, of exactly these items ``(A, last - first, D)``; None without a side network.
            first: items before the first.
            last: number of the last item.
        """
        ids = self._id_vectors(first, last)
        if self.side is None or states is None:
            assert ids is not None
            return ids
        text = self._text_vectors(self.side, states)
        return text if ids is None else text + ids

    def _text_vectors(self, side: SideNetwork, states: Tensor) -> Tensor:
        if states.device.type != "cpu":
            vectors: Tensor = side(states)
            return vectors
        return torch.cat([side(block) for block in torch.split(states, _CPU_BLOCK_ITEMS, dim=1)])

    def _id_vectors(self, first: int, last: int) -> Tensor | None:
        if self.id_table is None:
            return None
        trained = self.id_table[first:last]
        missing = last - first - len(trained)
        return nn.functional.pad(trained, (0, 0, 0, missing)) if missing else trained

    @torch.no_grad()
    def encode_all(self, states: Tensor | None, num_items: int, device: torch.device) -> Tensor:
        """Vectors of all items ``(N + 1, d)``, row 0 (padding) zero, from states ``(A, N, D)``; computed in blocks."""
        blocks = []
        for first in range(0, num_items, _ITEMS_AT_ONCE):
            last = min(first + _ITEMS_AT_ONCE, num_items)
            blocks.append(self(None if states is None else states[:, first:last].to(device), first, last))
        vectors = torch.cat(blocks)
        return nn.functional.pad(vectors, (0, 0, 1, 0))
