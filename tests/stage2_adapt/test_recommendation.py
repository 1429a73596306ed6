"""What items are near to, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

import ssna.stage2_adapt.recommendation as recommendation
from ssna.stage2_adapt import Sequences, nearest_in_histories, nearest_items

# Of items 1 to 6: one without a vector, 3, is between those of positive and negative cosine with item 1.
VECTORS = torch.tensor([[0.0, 0.0], [2.0, 0.0], [3.0, 4.0], [0.0, 0.0], [-4.0, 3.0], [-1.0, 0.0], [0.0, -2.0]])


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 9])
def test_items_without_a_vector_are_near_to_nothing(k: int) -> None:
    items, cosines = nearest_items(functional.normalize(VECTORS, dim=1), 1, k)
    assert items == [2, 6, 4, 5][:k]
    assert cosines == pytest.approx([0.6, 0.0, -0.8, -1.0][:k])


# Histories in which items are repeated, have no vector, or are fewer than three; for each, what is recommended, and the
# items nearest to that with their cosines.
EXPLAINED = [
    ([2, 5, 2, 4, 3, 2, 1, 6, 5, 4, 4, 2], {1: [(2, 0.6), (6, 0.0), (4, -0.8)], 4: [(5, 0.8), (2, 0.0), (6, -0.6)]}),
    ([5, 5, 3, 5], {5: [], 2: [(5, -0.6)]}),
    ([3], {1: [], 3: []}),
    ([5, 2, 5], {3: [], 1: [(2, 0.6), (5, -1.0)]}),
]


@pytest.mark.parametrize("numbers_at_once", [1, 2**24])  # A user alone, and all together
def test_up_to_three_items_of_a_history_are_named_once_each(
    monkeypatch: pytest.MonkeyPatch, numbers_at_once: int
) -> None:
    monkeypatch.setattr(recommendation, "_NUMBERS_AT_ONCE", numbers_at_once)
    given, expected = zip(*EXPLAINED, strict=True)
    histories = Sequences(np.concatenate(given), np.cumsum([0, *map(len, given)]))
    near, cosines = nearest_in_histories(VECTORS, torch.tensor([list(each) for each in expected]), histories)
    assert near.shape == cosines.shape == (4, 2, 3)
    wanted = [named for each in expected for named in each.values()]
    for items, scores, named in zip(near.flatten(0, 1), cosines.flatten(0, 1), wanted, strict=True):
        assert items[: len(named)].tolist() == [item for item, _ in named]
        padding = [-torch.inf] * (3 - len(named))
        assert scores.tolist() == pytest.approx([score for _, score in named] + padding, abs=1e-6)
