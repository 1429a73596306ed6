"""Item vectors: from the LLMs' layer states by side networks, from a learned ID table, or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.side_network import SideNetwork

# The side network's intermediate values of so many items stay in a CPU's cache (benchmarks/side_blocks.py).
CPU_BLOCK_ITEMS = 2048
GPU_BLOCK_ITEMS = 32768
# Of more items than this the intermediate values are not kept for the backward pass but computed again, block by block.
RECOMPUTE_FROM_ITEMS = 32768


class ItemEncoder(nn.Module):
    """Vectors of items 1 to N, of which the first T occur in training.

    An item without training interactions has an ID vector of exactly zero. Beside texts, so has in training a share of
    all items: IDs fit faster than texts, of which little would be learned otherwise (docs/method.md).
    """

    def __init__(
        self,
        state_sizes: Sequence[tuple[int, int]],
        num_trained: int,
        options: AdaptOptions,
    ) -> None:
        """Make the parts that the options ask for.

        Args:
            state_sizes: of each LLM, layers A and width K of its prepared states; none without a side network.
            num_trained: T.
            options: of the side networks, the ID embedding and their fusion.
        """
        super().__init__()
        side_widths = options.for_each_llm("side_width", len(state_sizes))
        self.sides = nn.ModuleList(
            SideNetwork(
                layers,
                width,
                options.width,
                integration=options.side,
                side_width=side_width,
                activation=options.activation,
                dropout=options.side_dropout,
            )
            for (layers, width), side_width in zip(state_sizes, side_widths, strict=True)
        )
        self.id_table: nn.Parameter | None = None
        self.id_dropout = options.id_dropout if state_sizes else 0.0
        if options.learns_ids:
            self.id_table = nn.Parameter(torch.empty(num_trained, options.width).normal_(std=0.02))
        texts, parts = len(self.sides), len(self.sides) + options.learns_ids
        self.gates: nn.Linear | None = None
        if options.fusion == "gate":
            self.gates = nn.Linear(texts * options.width, (parts - 1) * options.width)

    def forward(self, states: Sequence[Tensor], items: Tensor) -> Tensor:
        """Vectors ``(n, d)`` of items: the sum of all parts, or, with gates, weighted by what the texts say.

        Args:
            states: of each LLM, prepared, of exactly these items ``(A, n, K)``.
            items: their numbers ``(n,)``, from 1.
        """
        if not self.sides:
            return self._id_vectors(items)
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
            vectors = functional.embedding(items - 1, self.id_table)
            if not self.id_dropout:
                return vectors
            # Left out whole and not scaled up: an item then is what its text says, as items without an ID are.
            return vectors * (torch.rand(len(items), 1, device=items.device) >= self.id_dropout)
        trained = items <= len(self.id_table)
        return functional.embedding(torch.where(trained, items - 1, 0), self.id_table) * trained[:, None]


def encode(
    encoder: ItemEncoder,
    states: Callable[[int, int], Sequence[Tensor]],
    items: Tensor,
    recompute: bool,
    at_most: int | None = None,
) -> Tensor:
    """Vectors ``(n, d)`` of many items, block by block.

    Args:
        encoder: of the items.
        states: gives, of each LLM, the prepared states of the items at these places: ``(A, last - first, K)``.
        items: their numbers ``(n,)``, from 1.
        recompute: whether the backward pass asks for the states again and computes again what lies between them and the
            vectors, so that neither is held for all items; the gradients are the same.
        at_most: items of a block, where less than what is fastest; None for no such limit.
    """
    size = CPU_BLOCK_ITEMS if items.device.type == "cpu" else GPU_BLOCK_ITEMS
    size = min(size, at_most or size)
    if not encoder.sides:
        size = max(1, len(items))

    def block(first: int) -> Tensor:
        last = min(first + size, len(items))
        vectors: Tensor = encoder(states(first, last), items[first:last])
        return vectors

    starts = range(0, max(1, len(items)), size)  # Of no items too, which a process may have to encode, a tensor.
    if recompute and encoder.sides and torch.is_grad_enabled():
        vectors: Tensor = _Recomputed.apply(block, starts, items, *encoder.parameters())  # type: ignore[no-untyped-call]
        return vectors
    parts = [block(first) for first in starts]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Recomputed(torch.autograd.Function):
    """Blocks of vectors, of which nothing but themselves is kept for the backward pass (Chen et al., arXiv 1604.06174).

    `torch.utils.checkpoint` block by block would do, but for memory: each block's vectors, which stay, would stand
    between intermediate values, which go, and what goes would never be large enough to be given back to the system. So
    all vectors are written into one tensor that is there before.
    """

    @staticmethod
    def forward(ctx: Any, block: Callable[[int], Tensor], starts: range, items: Tensor, *parameters: Tensor) -> Tensor:
        device = items.device.type
        ctx.block, ctx.starts, ctx.parameters, ctx.device = block, starts, parameters, device
        ctx.autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        ctx.random_states, vectors = [], None
        for first in starts:
            ctx.random_states.append(_random_states(device))
            part = block(first)
            if vectors is None:
                vectors = part.new_empty(len(items), part.shape[1])
            vectors[first : first + len(part)] = part
        assert vectors is not None
        return vectors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [parameter for parameter in ctx.parameters if parameter.requires_grad]
        enabled, dtype = ctx.autocast
        after, total = _random_states(ctx.device), None
        # From the last to the first, as autograd sums what it has kept: to the last bit the same.
        for first, states in zip(reversed(ctx.starts), reversed(ctx.random_states), strict=True):
            _set_random_states(states)
            with torch.enable_grad(), torch.autocast(ctx.device, dtype, enabled=enabled, cache_enabled=False):
                part = ctx.block(first)
            grads = torch.autograd.grad(part, wanted, grad[first : first + len(part)], materialize_grads=True)
            total = grads if total is None else tuple(torch._foreach_add(total, grads))
        _set_random_states(after)
        found = iter(total or ())
        return None, None, None, *(next(found) if each.requires_grad else None for each in ctx.parameters)


def _random_states(device: str) -> tuple[Tensor, Tensor | None]:
    """Of the CPU's generator, which makes the dropout's masks there, and of the GPU's."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if device == "cuda" else None


def _set_random_states(states: tuple[Tensor, Tensor | None]) -> None:
    of_cpu, of_gpu = states
    torch.set_rng_state(of_cpu)
    if of_gpu is not None:
        torch.cuda.set_rng_state(of_gpu)
