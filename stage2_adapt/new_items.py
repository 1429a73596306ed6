"""Items that came after training: their vectors from a trained side network, which no training changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssna.cache import Selection
from ssna.stage2_adapt.item_encoder import ItemEncoder, encode
from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.states import Preparation, StreamedStates, bytes_of_states

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
    preparations = [
        Preparation(parameters[f"sides.{number}.mean"], parameters[f"sides.{number}.deviation"])
        for number in range(len(selections))
    ]
    constants = {f"sides.{number}.{name}" for number in range(len(selections)) for name in ("mean", "deviation")}
    encoder = ItemEncoder(
        [(len(rows.layers), rows.width) for rows in selections],
        len(parameters.get("id_table", ())),
        options,
        [parameters.get(f"sides.{number}.whitening") for number in range(len(selections))],
    )
    encoder.load_state_dict({name: value for name, value in parameters.items() if name not in constants})
    encoder.eval()
    count = len(selections[0])
    at_once = max(1, _BYTES_AT_ONCE * count // bytes_of_states(selections))
    states = StreamedStates(selections, preparations, torch.device("cpu"), at_once)
    unknown = len(parameters.get("id_table", ())) + 1  # The number of any item that was not trained on.
    return encode(encoder, states.between, torch.full((count,), unknown), recompute=False, at_most=at_once)
