"""Items that came after training: their vectors from a trained side network, which no training changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from ssna.cache import Selection
from ssna.stage2_adapt.item_encoder import ItemEncoder, encode
from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.states import Preparation, StreamedStates, bytes_of_item

_BYTES_AT_ONCE = 2**25
"""Of the states, of which never more are held, however many items there are"""


@torch.no_grad()
def encode_new_items(
    parameters: Mapping[str, Tensor], options: AdaptOptions, selections: Sequence[Selection]
) -> Tensor:
    """Vectors ``(n, d)`` of items without training interactions, as training would end with; their ID vectors are zero.

    Args:
        parameters: of the item encoder by name, with what prepared each LLM's states (`sides.0.mean` and so on).
        options: of the run.
        selections: of each LLM, the n items' rows in its cache, at least one.
    """
    of_encoder, preparations = dict(parameters), list[Preparation]()
    for number in range(len(selections)):
        found = {field.name: of_encoder.pop(f"sides.{number}.{field.name}", None) for field in fields(Preparation)}
        preparations.append(Preparation(**found))  # type: ignore[arg-type]
    sizes = [(len(rows.layers), each.width) for rows, each in zip(selections, preparations, strict=True)]
    encoder = ItemEncoder(sizes, len(parameters.get("id_table", ())), options)
    encoder.load_state_dict(of_encoder)
    encoder.eval()
    count = len(selections[0])
    at_once = max(1, _BYTES_AT_ONCE // bytes_of_item(selections))
    states = StreamedStates(selections, preparations, torch.device("cpu"), at_once)
    unknown = len(parameters.get("id_table", ())) + 1  # The number of any item that was not trained on.
    return encode(encoder, states.between, torch.full((count,), unknown), recompute=False, at_most=at_once)
