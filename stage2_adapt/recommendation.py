"""Top-k items for histories."""

from __future__ import annotations

import torch
from torch import Tensor

from ssna.stage2_adapt.evaluation import mask_items
from ssna.stage2_adapt.recommenders import Recommender


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
