"""Inner products of queries and item vectors are the model's scores."""

from __future__ import annotations

import pytest
import torch

from ssna.stage2_adapt import AdaptOptions, QueryNetwork, SequenceRecommender, item_vectors


def make(**options: object) -> SequenceRecommender:
    """A recommender of seven items whose every part has something to say."""
    torch.manual_seed(0)
    model = SequenceRecommender(7, AdaptOptions(width=8, length=4, heads=2, **options)).eval()  # type: ignore[arg-type]
    torch.nn.init.normal_(model.item_embeddings)
    model.log_counts = torch.tensor([9.0, 5, 3, 2, 1, 1, 1]).log()
    if model.popularity_weight is not None:
        model.popularity_weight.data.fill_(0.7)
    return model


@pytest.mark.parametrize("model", ["sasrec", "gru4rec", "hstu", "fmlp"])
@pytest.mark.parametrize("scorer", ["cosine", "dot"])
@pytest.mark.parametrize("popularity_bias", [True, False])
@torch.no_grad()
def test_inner_products_are_scores(model: str, scorer: str, popularity_bias: bool) -> None:
    made = make(model=model, scorer=scorer, popularity_bias=popularity_bias, repeat_bias=False)
    histories, counts = (
        torch.tensor([[3, 1, 2, 0, 0, 0], [1, 2, 3, 4, 5, 6], [7, 0, 0, 0, 0, 0]]),
        torch.tensor([3, 6, 1]),
    )
    queries, vectors = QueryNetwork(made)(histories, counts), item_vectors(made)
    assert (queries.shape, vectors.shape) == ((3, 9), (7, 9))
    torch.testing.assert_close(queries @ vectors.T, made.scores(histories, counts, made.candidates()))


@torch.no_grad()
def test_the_bias_of_repeats_is_not_in_them() -> None:
    made = make()
    assert made.repeat_bias is not None
    made.repeat_bias.by_age.data = torch.tensor([0.1, 0.2, 0.3, 0.4])
    histories, counts = torch.tensor([[3, 1, 3]]), torch.tensor([3])
    missing = (
        made.scores(histories, counts, made.candidates()) - QueryNetwork(made)(histories, counts) @ item_vectors(made).T
    )
    torch.testing.assert_close(missing, torch.tensor([[2.0, 0, 1 + 3, 0, 0, 0, 0]]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_vectors_of_cosines_have_length_one_but_for_the_bias() -> None:
    made = make()
    vectors = item_vectors(made)
    torch.testing.assert_close(vectors[:, :-1].norm(dim=1), torch.ones(7))
    assert made.log_scale is not None
    torch.testing.assert_close(vectors[:, -1], 0.7 * made.log_counts * 0.07)  # The scale begins as 1 / 0.07.
