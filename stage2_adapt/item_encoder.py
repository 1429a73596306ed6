"""Item vectors: from the LLMs' layer states by side networks, from a learned ID table, or both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.side_network import SideNetwork

# The side network's intermediate values of so many items stay in a CPU's cache (benchmarks/side_blocks.py).
_CPU_BLOCK_ITEMS = 2048


class ItemEncoder(nn.Module):
    """Vectors of items 1 to N, of which the first T occur in training.

    An item without training interactions has an ID vector of exactly zero.
    """

    def __init__(
        self,
        state_sizes: Sequence[tuple[int, int]],
        num_trained: int,
        options: AdaptOptions,
        whitenings: Sequence[Tensor | None] = (),
    ) -> None:
        """Make the parts that the options ask for.

        Args:
            state_sizes: of each LLM, layers A and width D of its states; none for a model without a side network.
            num_trained: T.
            options: of the side networks, the ID embedding and their fusion.
            whitenings: of each LLM, a fixed map ``(A, D, D)`` of its states, which belongs to the model.
        """
        super().__init__()
        self.sides = nn.ModuleList(
            SideNetwork(
                layers,
                width,
                options.width,
                integration=options.side,
                side_width=options.side_width,
                activation=options.activation,
                dropout=options.side_dropout,
                whitening=whitening,
            )
            for (layers, width), whitening in zip(state_sizes, whitenings or [None] * len(state_sizes), strict=True)
        )
        self.id_table: nn.Parameter | None = None
        if options.learns_ids:
            self.id_table = nn.Parameter(torch.empty(num_trained, options.width).normal_(std=0.02))
        texts, parts = len(self.sides), len(self.sides) + options.learns_ids
        self.gates: nn.Linear | None = None
        if options.fusion == "gate" and parts > 1:
            self.gates = nn.Linear(texts * options.width, (parts - 1) * options.width)

    def forward(self, states: Sequence[Tensor], items: Tensor) -> Tensor:
        """Vectors ``(n, d)`` of items.

        Args:
            states: of each LLM, prepared, of exactly these items ``(A, n, D)``.
            items: their numbers ``(n,)``, from 1.
        """
        if not self.sides:
            return self._id_vectors(items)
        if items.device.type != "cpu" or len(items) <= _CPU_BLOCK_ITEMS:
            return self._fused(states, items)
        blocks = zip(*(torch.split(part, _CPU_BLOCK_ITEMS, dim=1) for part in states), strict=True)
        parts = zip(blocks, torch.split(items, _CPU_BLOCK_ITEMS), strict=True)
        return torch.cat([self._fused(block, numbers) for block, numbers in parts])

    def _fused(self, states: Sequence[Tensor], items: Tensor) -> Tensor:
        """The sum of all parts; with gates, all but the first are weighted by what the texts say."""
        texts: list[Tensor] = [side(part) for side, part in zip(self.sides, states, strict=True)]
        parts = texts if self.id_table is None else [*texts, self._id_vectors(items)]
        if self.gates is None:
            return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]
        item, *others = parts
        weights: Tensor = torch.sigmoid(self.gates(torch.cat(texts, dim=1)))
        for weight, part in zip(weights.chunk(len(others), dim=1), others, strict=True):
            item = item + weight * part
        return item

    def _id_vectors(self, items: Tensor) -> Tensor:
        assert self.id_table is not None
        if self.training:  # On training items only.
            return functional.embedding(items - 1, self.id_table)
        trained = items <= len(self.id_table)
        return functional.embedding(torch.where(trained, items - 1, 0), self.id_table) * trained[:, None]
