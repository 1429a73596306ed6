"""What items are near to, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from ssna.stage2_adapt import Sequences, nearest_in_histories, nearest_items

# Of items 1 to 5: one without a vector, 3, is between those of positive and negative cosine with item 1.
VECTORS = torch.tensor([[0.0, 0.0], [2.0, 0.0], [3.0, 4.0], [0.0, 0.0], [-4.0, 3.0], [-1.0, 0.0]])


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_items_without_a_vector_are_near_to_nothing(k: int) -> None:
    items, cosines = nearest_items(functional.normalize(VECTORS, dim=1), 1, k)
    assert items == [2, 4, 5][:k]
    assert cosines == pytest.approx([0.6, -0.8, -1.0][:k])


def test_items_of_a_history_without_a_vector_explain_nothing() -> None:
    histories = Sequences(np.array([3, 5, 3, 3, 2, 3]), np.array([0, 3, 4, 6]))
    near, cosines = nearest_in_histories(VECTORS, torch.tensor([[1, 3], [1, 5], [1, 2]]), histories)
    assert near[0, 0] == 5
    assert near[2, 0] == 2
    nothing = -torch.inf
    assert cosines.flatten().tolist() == pytest.approx([-1.0, nothing, nothing, nothing, 0.6, nothing])
