"""A trained recommender as a search for the greatest inner product, which is what vector indices do.

A score is the product of two factors, plus a bias of the item. With that bias as one more dimension, the score is the
inner product of an item vector ``(v, b / c)`` and a query ``(q, c)``, for any c. As c serves the scale of cosines (one
over their temperature): items then have a length near one, and a graph of neighbours, as HNSW is, finds what an
exact search finds. With c = 1 a bias that has grown larger than one makes neighbours of items that are merely popular
(docs/export.md has the measurement).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssna.stage2_adapt.recommenders import SequenceRecommender


def item_vectors(model: SequenceRecommender) -> Tensor:
    """The N items' vectors ``(N, d + 1)``, item index 1 first."""
    factors, biases = model.candidates()
    return torch.cat([factors, (biases / _scale(model))[:, None]], dim=1)


class QueryNetwork(nn.Module):
    """Histories in, queries out, whose inner product with an item vector is the item's score.

    But for the bias of items that the history has already (`SequenceRecommender.repeat_biases`), which no inner
    product holds.
    """

    def __init__(self, model: SequenceRecommender) -> None:
        super().__init__()
        self.model = model

    def forward(self, histories: Tensor, counts: Tensor) -> Tensor:
        """Queries ``(B, d + 1)`` of histories as `Recommender.scores` takes them, of any length."""
        queries = self.model.queries(histories, counts)
        return torch.cat([queries, torch.ones_like(queries[:, :1]) * _scale(self.model)], dim=1)


def _scale(model: SequenceRecommender) -> Tensor:
    return torch.ones(()) if model.log_scale is None else model.log_scale.exp()
