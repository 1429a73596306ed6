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
_NUMBERS_AT_ONCE = 2**24
_NEAREST = 3
"""Items of a history that are named beside a recommended one, at most"""


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


def nearest_items(unit: Tensor, item: int, k: int) -> tuple[list[int], list[float]]:
    """The k items nearest to another by the cosine of their vectors, nearest first, and the cosines.

    Args:
        unit: the vectors ``(N + 1, d)``, of items 1 to N, scaled to length one; zero of an item without one.
        item: the index of an item with a vector.
        k: how many; fewer if there are not k others with a vector.
    """
    cosines = unit[1:] @ unit[item]  # (N,)
    cosines[~unit[1:].any(dim=1)] = -torch.inf  # Else they would be nearer than whatever has a negative cosine.
    cosines[item - 1] = -torch.inf
    best = cosines.topk(min(k, len(cosines)))
    found = best.values > -torch.inf
    return (best.indices[found] + 1).tolist(), best.values[found].tolist()


@torch.no_grad()
def nearest_in_histories(vectors: Tensor, items: Tensor, histories: Sequences) -> tuple[Tensor, Tensor]:
    """Of each recommended item, the three of the user's history that are nearest by the cosine of their vectors.

    An item counts once, however often the history has it. Where a recommended item has no vector, or the history has
    fewer other items with one, cosines are minus infinity.

    Args:
        vectors: ``(N + 1, d)``, of items 1 to N; zero of an item without one.
        items: recommended item indices ``(B, k)``.
        histories: of the B users, none empty.

    Returns:
        Item indices and cosines ``(B, k, 3)``, nearest first, on the CPU.
    """
    packed, starts = torch.from_numpy(histories.items).to(vectors.device), torch.from_numpy(histories.starts)
    longest = int(histories.lengths.max(initial=_NEAREST))
    at_once = max(1, _NUMBERS_AT_ONCE // (longest * max(vectors.shape[1], items.shape[1])))
    blocks = []
    for first in range(0, max(1, len(items)), at_once):
        mine = items[first : first + at_once].to(vectors.device)
        start, end = starts[:-1][first : first + at_once], starts[1:][first : first + at_once]
        seen, _ = gather_spans(packed, start, end, longest)
        # There are always three to choose from, and sorted, an item stands beside its repetitions.
        seen = functional.pad(seen, (0, max(0, _NEAREST - seen.shape[1]))).sort(dim=1).values  # (B, S)
        again = functional.pad(seen[:, 1:] == seen[:, :-1], (1, 0))  # (B, S)
        given, past = (functional.normalize(vectors[which], dim=2) for which in (mine, seen))
        cosines = given @ past.transpose(1, 2)  # (B, k, S)
        without = ~past.any(dim=2) | (seen == 0) | again  # (B, S)
        impossible = without[:, None] | (seen[:, None] == mine[:, :, None]) | ~given.any(dim=2, keepdim=True)
        best = cosines.masked_fill(impossible, -torch.inf).topk(_NEAREST, dim=2)
        places = best.indices
        blocks.append((seen.gather(1, places.flatten(1)).view_as(places).cpu(), best.values.cpu()))
    near, nearness = zip(*blocks, strict=True)
    return torch.cat(near), torch.cat(nearness)
