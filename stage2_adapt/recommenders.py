"""Trained recommenders: histories in, a score for every item out. All that evaluation and recommendation need."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssna.stage2_adapt.fmlp import FMLP
from ssna.stage2_adapt.gru4rec import GRU4Rec
from ssna.stage2_adapt.hstu import HSTU
from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.repeats import RepeatBias, repeats_of
from ssna.stage2_adapt.sasrec import SASRec

# Scale of cosine scores at the start: a softmax temperature of 0.07, as in CLIP (Radford et al., arXiv 2103.00020).
_INITIAL_SCALE = 1 / 0.07
# Interactions of a history that count as repeats at most, so that one user with millions costs no more than others.
_REMEMBERED = 1000


class Recommender(Protocol):
    """Whatever scores all items for histories."""

    num_items: int
    """N"""
    length: int
    """L, the most recent items of a history that count"""

    def candidates(self) -> tuple[Tensor, ...]:
        """What scoring needs of the N items, made once for any number of histories."""
        ...

    def scores(self, histories: Tensor, counts: Tensor, candidates: tuple[Tensor, ...]) -> Tensor:
        """Scores ``(B, N)``, item index 1 first.

        Args:
            histories: item indices ``(B, L)``, oldest first, left-aligned, padded with 0.
            counts: ``(B,)``, items in each history, at least 1.
            candidates: see there.
        """
        ...


class Popularity(nn.Module):
    """Scores every item by its number of training interactions, whatever the history."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.num_items, self.length = num_items, 1
        self.training_counts: Tensor
        self.register_buffer("training_counts", torch.zeros(num_items))

    def candidates(self) -> tuple[Tensor, ...]:
        """Their training counts ``(N,)``."""
        return (self.training_counts,)

    def scores(self, histories: Tensor, counts: Tensor, candidates: tuple[Tensor, ...]) -> Tensor:
        """See `Recommender`."""
        return candidates[0].expand(len(histories), -1)


class SequenceRecommender(nn.Module):
    """A sequence model over fixed item vectors, scored by cosine with a learned temperature, or by dot product."""

    def __init__(self, num_items: int, options: AdaptOptions) -> None:
        super().__init__()
        self.num_items = num_items
        # Of all that a history holds, the network reads the last interactions; repeats are those of any age.
        self.read_length = options.length
        self.length = max(_REMEMBERED, options.length) if options.repeat_bias else options.length
        self.network = _network(options)
        self.log_scale: nn.Parameter | None = None
        if options.scorer == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(_INITIAL_SCALE).log())
        self.popularity_weight = nn.Parameter(torch.zeros(())) if options.popularity_bias else None
        self.log_counts: Tensor  # Of training interactions, of which an item without any counts as having one.
        self.register_buffer("log_counts", torch.zeros(num_items))
        self.repeat_bias = RepeatBias(options.length) if options.repeat_bias else None
        self.item_embeddings: Tensor
        self.register_buffer("item_embeddings", torch.zeros(num_items + 1, options.width))  # Index 0 is padding.

    def add_items(self, vectors: Tensor) -> None:
        """Let items of these vectors ``(n, d)``, which were not trained on, be candidates after all others."""
        self.num_items += len(vectors)
        self.item_embeddings = torch.cat([self.item_embeddings, vectors.to(self.item_embeddings)])
        self.log_counts = torch.cat([self.log_counts, self.log_counts.new_zeros(len(vectors))])

    def candidates(self) -> tuple[Tensor, ...]:
        """The factors ``(N, d)`` of scores, and biases ``(N,)``."""
        return self.factors(self.item_embeddings[1:]), self.biases(slice(None))

    def scores(self, histories: Tensor, counts: Tensor, candidates: tuple[Tensor, ...]) -> Tensor:
        """See `Recommender`."""
        factors, biases = candidates
        scores = torch.addmm(biases, self.queries(histories, counts), factors.T)
        if (by_age := self.repeat_biases()) is not None:
            columns, age, counted = repeats_of(histories - 1, counts - 1, len(by_age))
            scores.scatter_add_(1, columns, by_age[age] * counted)
        return scores

    def queries(self, histories: Tensor, counts: Tensor) -> Tensor:
        """Of histories as `scores` takes them, the factor ``(B, d)`` of their scores."""
        recent, read = _last_of(histories, counts, self.read_length)
        last = self.network.last_states(functional.embedding(recent, self.item_embeddings), read)
        return self.factors_of_states(last)

    def factors(self, vectors: Tensor) -> Tensor:
        """Of items: the one factor of their scores; for cosines of length one, where a zero vector stays zero."""
        return vectors if self.log_scale is None else functional.normalize(vectors, dim=-1)

    def factors_of_states(self, states: Tensor) -> Tensor:
        """The other factor; for cosines of the length by which they are multiplied, one over the temperature."""
        return states if self.log_scale is None else self.log_scale.exp() * self.factors(states).float()

    def biases(self, places: Tensor | slice) -> Tensor:
        """What the popularity of the items at these places adds to their scores, whatever the history."""
        counts = self.log_counts[places]
        return torch.zeros_like(counts) if self.popularity_weight is None else self.popularity_weight * counts

    def repeat_biases(self) -> Tensor | None:
        """What an item of the history adds to its own score, by how long ago it came ``(L,)``; see `RepeatBias`."""
        biases: Tensor | None = None if self.repeat_bias is None else self.repeat_bias()
        return biases


def _last_of(histories: Tensor, counts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The last `length` items of left-aligned histories ``(B, H)``, left-aligned, and how many each has."""
    if histories.shape[1] <= length:
        return histories, counts
    read = counts.clamp_max(length)
    # As many places as `length`, written so that a traced graph has fewer of them for histories that are shorter.
    place = torch.arange(histories.shape[1], device=histories.device)[:length]
    taken = histories.gather(1, ((counts - read)[:, None] + place).clamp_max(histories.shape[1] - 1))
    return torch.where(place < read[:, None], taken, 0), read


def _network(options: AdaptOptions) -> SASRec | GRU4Rec | HSTU | FMLP:
    if options.model == "gru4rec":
        return GRU4Rec(options.width, options.blocks, options.dropout)
    if options.model == "fmlp":
        return FMLP(options.width, options.length, options.blocks, options.dropout)
    attention: type[SASRec | HSTU] = SASRec if options.model == "sasrec" else HSTU
    return attention(options.width, options.length, options.blocks, options.heads, options.dropout)
