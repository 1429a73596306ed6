"""Trained recommenders: histories in, a score for every item out. All that evaluation and recommendation need."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.sasrec import SASRec

# Scale of cosine scores at the start: a softmax temperature of 0.07, as in CLIP (Radford et al., arXiv 2103.00020).
_INITIAL_SCALE = 1 / 0.07


class Recommender(Protocol):
    """Whatever scores all items for histories."""

    num_items: int
    """N"""
    length: int
    """L, the most recent items of a history that count"""

    def scores(self, histories: Tensor, counts: Tensor) -> Tensor:
        """Scores ``(B, N)``, item index 1 first.

        Args:
            histories: item indices ``(B, L)``, oldest first, left-aligned, padded with 0.
            counts: ``(B,)``, items in each history, at least 1.
        """
        ...


class Popularity(nn.Module):
    """Scores every item by its number of training interactions, whatever the history."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.num_items, self.length = num_items, 1
        self.training_counts: Tensor
        self.register_buffer("training_counts", torch.zeros(num_items))

    def scores(self, histories: Tensor, counts: Tensor) -> Tensor:
        """See `Recommender`."""
        return self.training_counts.expand(len(histories), -1)


class SequenceRecommender(nn.Module):
    """SASRec over fixed item vectors, scored by cosine with a learned temperature."""

    def __init__(self, num_items: int, options: AdaptOptions) -> None:
        super().__init__()
        self.num_items, self.length = num_items, options.length
        self.network = SASRec(options.width, options.length, options.blocks, options.heads, options.dropout)
        self.log_scale = nn.Parameter(torch.tensor(_INITIAL_SCALE).log())
        self.item_embeddings: Tensor
        self.register_buffer("item_embeddings", torch.zeros(num_items + 1, options.width))  # Index 0 is padding.

    def scores(self, histories: Tensor, counts: Tensor) -> Tensor:
        """See `Recommender`."""
        states = self.network(functional.embedding(histories, self.item_embeddings), counts)  # (B, L, d)
        last = states[torch.arange(len(states), device=states.device), counts - 1]
        return self.scale() * normalized(last) @ normalized(self.item_embeddings[1:]).T

    def scale(self) -> Tensor:
        """The factor of the cosines, one over the softmax temperature."""
        return self.log_scale.exp()


def normalized(vectors: Tensor) -> Tensor:
    """The vectors at length one; a zero vector stays zero, so its cosine with anything is 0."""
    return functional.normalize(vectors, dim=-1)
