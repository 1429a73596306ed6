"""The order in which training windows are seen: shuffled, with windows of similar length together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Windows are sorted by length within groups of this many batches: little padding, and still another mixture each epoch.
_BATCHES_A_GROUP = 16


def shuffled_batches(lengths: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Positions of each batch's windows, in a new random order; every window is in exactly one batch.

    Args:
        lengths: ``(W,)``, items of each window.
        batch_size: windows of a batch; the last of a group may hold fewer.
        generator: advanced by each call.
    """
    order = torch.randperm(len(lengths), generator=generator)
    batches: list[Tensor] = []
    for group in torch.split(order, batch_size * _BATCHES_A_GROUP):
        by_length = group[lengths[group].argsort(stable=True)]
        batches += torch.split(by_length, batch_size)
    for i in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[i]
