"""Batches of texts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ssna.stage1_extract.batching import batch_size, longest_first


@given(st.lists(st.integers(1, 60), max_size=50))
def test_texts_are_ordered_longest_first_and_equals_keep_their_order(lengths: list[int]) -> None:
    order = longest_first(np.array(lengths, np.uint32)).tolist()
    assert order == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


@given(st.integers(1, 600), st.integers(1, 5000))
def test_a_batch_is_as_full_as_the_budget_allows(longest: int, budget: int) -> None:
    size = batch_size(longest, budget)
    assert size == 1 or size * longest <= budget
    assert (size + 1) * longest > budget
