"""Items that came after training: their vectors from a trained side network, which no training changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssna.stage2_adapt.item_encoder import ItemEncoder
from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.states import Preparation

_ITEMS_AT_ONCE = 2048


def encode_new_items(parameters: Mapping[str, Tensor], options: AdaptOptions, states: Sequence[Tensor]) -> Tensor:
    """Vectors ``(n, d)`` of items without training interactions, as training would end with; their ID vectors are zero.

    Args:
        parameters: of the item encoder by name, with what prepared each LLM's states (`sides.0.mean` and so on).
        options: of the run.
        states: of each LLM, as the cache has them but for the order of layers: ``(A, n, D)``, lowest layer first.
    """
    preparations = [
        Preparation(parameters[f"sides.{number}.mean"], parameters[f"sides.{number}.deviation"])
        for number in range(len(states))
    ]
    constants = {f"sides.{number}.{name}" for number in range(len(states)) for name in ("mean", "deviation")}
    encoder = ItemEncoder(
        [(len(part), part.shape[2]) for part in states],
        len(parameters.get("id_table", ())),
        options,
        [parameters.get(f"sides.{number}.whitening") for number in range(len(states))],
    )
    encoder.load_state_dict({name: value for name, value in parameters.items() if name not in constants})
    encoder.eval()
    unknown = len(parameters.get("id_table", ())) + 1  # The number of any item that was not trained on.
    vectors = []
    with torch.no_grad():
        for first in range(0, states[0].shape[1], _ITEMS_AT_ONCE):
            block = [
                preparation.apply(part[:, first : first + _ITEMS_AT_ONCE].clone())
                for preparation, part in zip(preparations, states, strict=True)
            ]
            vectors.append(encoder(block, torch.full((block[0].shape[1],), unknown)))
    return torch.cat(vectors)
