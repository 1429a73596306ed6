"""Batches of texts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ssna.stage1_extract.batching import batches_by_length


@given(st.lists(st.integers(1, 60), max_size=50), st.integers(1, 200))
def test_every_text_is_in_one_batch_within_the_budget_longest_first(lengths: list[int], budget: int) -> None:
    batches = list(batches_by_length(lengths, budget))
    assert sorted(np.concatenate([*batches, np.empty(0, int)]).tolist()) == list(range(len(lengths)))
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_batches_are_as_full_as_the_budget_allows() -> None:
    batches = batches_by_length([2, 5, 3, 4, 2], token_budget=10)
    assert [batch.tolist() for batch in batches] == [[1, 3], [2, 0, 4]]
