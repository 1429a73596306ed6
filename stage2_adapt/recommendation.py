"""Top-k items for histories, and what they are near to."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from ssna.stage2_adapt.evaluation import mask_items
from ssna.stage2_adapt.recommenders import Recommender
from ssna.stage2_adapt.sequences import Sequences, gather_spans

_USERS_AT_ONCE = 128
_SCORES_AT_ONCE = 2**24


@torch.no_grad()
def top_items(
    model: Recommender,
    history: list[int],
    k: int,
    device: torch.device,
    allow_repeats: bool = False,
    candidates: tuple[Tensor, ...] | None = None,
) -> tuple[list[int], list[float]]:
    """The k best item indices for a history, best first, and their scores; fewer if there are not k to choose from.

    Args:
        model: in evaluation mode.
        history: item indices, oldest first, at least one.
        k: how many.
        device: of the model.
        allow_repeats: whether items of the history may be recommended again.
        candidates: of the model, for who asks for many histories; None makes them.
    """
    recent = history[-model.length :]
    counts = torch.tensor([len(recent)], device=device)
    if candidates is None:
        candidates = model.candidates()
    scores: Tensor = model.scores(torch.tensor([recent], device=device), counts, candidates)
    if not allow_repeats:
        scores = mask_items(scores, torch.tensor([history], device=device))
    best = scores[0].topk(min(k, model.num_items))
    found = best.values > -torch.inf
    return (best.indices[found] + 1).tolist(), best.values[found].tolist()


@torch.no_grad()
def top_items_of_all(
    model: Recommender, sequences: Sequences, k: int, device: torch.device, allow_repeats: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """As `top_items`, of every user in turn, many at a time: item indices and scores ``(users, k)``, on the CPU.

    Where there are not k to choose from, scores are minus infinity.
    """
    items, candidates = torch.from_numpy(sequences.items).to(device), model.candidates()
    starts = torch.from_numpy(sequences.starts)
    at_once = max(1, min(_USERS_AT_ONCE, _SCORES_AT_ONCE // max(1, model.num_items)))
    for first in range(0, sequences.num_users, at_once):
        start, end = starts[:-1][first : first + at_once], starts[1:][first : first + at_once]
        histories, counts = gather_spans(items, start, end, model.length)
        scores = model.scores(histories, counts.to(device), candidates)
        if not allow_repeats:
            seen, _ = gather_spans(items, start, end, int((end - start).max()))
            scores = mask_items(scores, seen)
        best = scores.topk(min(k, model.num_items), dim=1)
        yield best.indices.cpu() + 1, best.values.cpu()


def nearest_items(vectors: Tensor, to: list[int], among: list[int] | None, k: int) -> tuple[Tensor, Tensor]:
    """Of each item, the k nearest others by the cosine of their vectors: indices and cosines ``(len(to), k)``.

    Where an item itself is all there is to choose from, its cosine is minus infinity.

    Args:
        vectors: ``(N + 1, d)``, of items 1 to N.
        to: item indices.
        among: item indices to choose from; None for all.
        k: how many, at most as many as there are others.
    """
    chosen = torch.arange(1, len(vectors)) if among is None else torch.tensor(among)
    unit = functional.normalize(vectors[chosen.to(vectors.device)], dim=1)
    given = torch.tensor(to)
    cosines = functional.normalize(vectors[given.to(vectors.device)], dim=1) @ unit.T
    cosines = cosines.masked_fill((given[:, None] == chosen).to(cosines.device), -torch.inf)
    best = cosines.topk(min(k, len(chosen)), dim=1)
    return chosen[best.indices.cpu()], best.values.cpu()
