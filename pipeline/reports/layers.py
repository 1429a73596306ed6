"""What a trained side network takes from each layer, from its parameters alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssna.stage2_adapt import AdaptOptions

_READS = {"standardize": "standardised", "whiten": "whitened"}


@dataclass(frozen=True)
class LayerShares:
    """Of one LLM."""

    llm: str
    shares: list[tuple[int, float]]
    """Number of the layer and its share, top layer first; the shares sum to one"""


def layer_shares(
    options: AdaptOptions, caches: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]
) -> tuple[list[LayerShares], str]:
    """Each layer's share, by LLM, and what it means in a sentence; no shares if there is nothing to weigh.

    With `gate` the sum is s_A = w_1 z_1 + … + w_A z_A, where w_l = (1 - g_l) g_{l+1} … g_A and g_1 = 0: exact. With the
    others a share is that of the Frobenius norm of the layer's down-projection, for `concat` times its block of the
    mixing matrix. Since the states that it reads have deviation 1 in every dimension, the norm is the root mean square
    length of what it makes of them, as far as the dimensions are uncorrelated (under `whiten` they are).

    Args:
        options: of the run.
        caches: as config.json has them, in the order of the side networks.
        tensors: of the item encoder (`ssna.runs.item_parameters`).
    """
    if not options.needs_states:
        return [], "This model has no side network."
    if options.side == "frozen":
        return [], "A frozen side network adapts no layer: it reads the top layer as it is."
    if options.side != "gate" and options.preparation == "none":
        return (
            [],
            "With --preparation none the states of layers are on scales of their own, so that weights do not compare.",
        )
    found = list[LayerShares]()
    for number, cache in enumerate(caches):
        mine = {
            name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix := f"sides.{number}.")
        }
        weights = _gate_weights(mine["integration.gate"]) if options.side == "gate" else _norms(options, mine)
        shares = (weights / weights.sum()).flip(0).tolist()
        found.append(LayerShares(llm_of(cache), list(zip(cache["layers"], shares, strict=False))))
    return found, _meaning(options)


def llm_of(cache: Mapping[str, Any]) -> str:
    """The LLM of a cache in config.json, with its template where that is not the items' own text."""
    text = cache.get("text")
    return f"{cache['name']}, text '{text}'" if text is not None else str(cache["name"])


def _gate_weights(gate: Tensor) -> Tensor:
    """w_l ``(A,)``, lowest layer first, of the logits ``(A - 1,)`` of the gates before layers 2 to A."""
    keep = torch.cat([gate.new_zeros(1), torch.sigmoid(gate.float()), gate.new_ones(1)])
    kept_after = keep.flip(0).cumprod(0).flip(0)[1:]
    return (1 - keep[:-1]) * kept_after


def _norms(options: AdaptOptions, tensors: Mapping[str, Tensor]) -> Tensor:
    down = tensors["down"].float()  # (A, D, m)
    if options.side == "concat":
        mix = tensors["integration.mix.weight"].float()  # (m, A m), a block (m, m) for each layer
        down = down @ torch.stack(mix.chunk(len(down), dim=1)).transpose(1, 2)
    norms: Tensor = torch.linalg.matrix_norm(down)
    return norms


def _meaning(options: AdaptOptions) -> str:
    if options.side == "gate":
        return (
            "A bar is the exact weight of a layer's adapter in their sum, which the learned gates make; it is the same "
            "for all items. All layers begin equal."
        )
    mixed = " and its part of the mixing matrix" if options.side == "concat" else ""
    return (
        f"A bar is a layer's share of the norms (Frobenius) of the down-projections{mixed}, which read "
        f"{_READS[options.preparation]} states: how strongly the layer enters the side network, whatever later maps "
        "and gates make of it. All layers begin about equal."
    )
