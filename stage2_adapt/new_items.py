"""Items that came after training: their vectors from a trained side network, which no training changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

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
    of_encoder, preparations = dict(parameters), list[Preparation]()
    for number in range(len(states)):
        names = {field.name: f"sides.{number}.{field.name}" for field in fields(Preparation)}
        preparations.append(Preparation(**{name: of_encoder.pop(key, None) for name, key in names.items()}))  # type: ignore[arg-type]
    sizes = [(len(part), preparation.width) for part, preparation in zip(states, preparations, strict=True)]
    encoder = ItemEncoder(sizes, len(parameters.get("id_table", ())), options)
    encoder.load_state_dict(of_encoder)
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
