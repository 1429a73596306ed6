"""Pooling weights against hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssna.stage1_extract.pooling import Pooling, pool, pooling_weights


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", [[0, 0.5, 0.5], [0.5, 0.5, 0], [1, 0, 0]]),
        ("last", [[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
        ("cls", [[1, 0, 0], [1, 0, 0], [1, 0, 0]]),
    ],
)
def test_weights_of_texts_of_three_two_and_one_tokens(rule: Pooling, expected: list[list[float]]) -> None:
    # The first text and the last begin with a token that `mean` leaves out; of the last it is the only one.
    weights = pooling_weights([3, 2, 1], [True, False, True], rule)
    assert weights.dtype == np.float32
    assert weights.tolist() == expected


def test_pooling_is_the_weighted_sum_over_tokens_in_float32() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]], dtype=torch.bfloat16)
    pooled = pool(hidden, torch.tensor([[0.5, 0.5, 0.0]]))
    assert pooled.dtype == torch.float32
    assert pooled.tolist() == [[2.0, 3.0]]
