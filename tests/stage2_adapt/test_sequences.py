"""Splits, ranking tasks and training windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssna.cache import SsnaError
from ssna.stage2_adapt import Sequences, Split, cases_of, leave_last, left_out, split_by_time, training_counts
from ssna.stage2_adapt.sequences import gather_spans, targets_of, training_windows
from tests.stage2_adapt.strategies import NUM_ITEMS, histories, pack


def tasks(sequences: Sequences, split: Split, part: str) -> dict[int, tuple[list[int], list[int]]]:
    """History and distinct targets of each evaluated user."""
    cases = cases_of(sequences, split, part)  # type: ignore[arg-type]
    case, target = targets_of(sequences, cases)
    return {
        int(user): (sequences.items[cases.start[c] : cases.history_end[c]].tolist(), target[case == c].tolist())
        for c, user in enumerate(cases.user)
    }


def test_leave_last_holds_out_the_last_two_and_skips_the_short() -> None:
    sequences = pack([[1, 2, 3, 4], [5], [6, 7], [8, 9, 8]])
    split = leave_last(sequences)
    assert tasks(sequences, split, "valid") == {0: ([1, 2], [3]), 3: ([8], [9])}
    assert tasks(sequences, split, "test") == {0: ([1, 2, 3], [4]), 3: ([8, 9], [8])}
    assert training_counts(sequences, split, NUM_ITEMS).tolist() == [0, 1, 1, 0, 0, 1, 1, 1, 1, 0]


def test_leave_last_two_holds_out_four() -> None:
    sequences = pack([[1, 2, 3, 4, 5], [6, 7, 8, 9]])
    split = leave_last(sequences, 2)
    assert tasks(sequences, split, "valid") == {0: ([1], [2, 3])}
    assert tasks(sequences, split, "test") == {0: ([1, 2, 3], [4, 5])}
    assert training_counts(sequences, split, NUM_ITEMS).tolist() == [0, 1, 0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(("name", "k"), [("leave-one-out", 1), ("leave-last-3", 3), ("time", None)])
def test_names_of_splits(name: str, k: int | None) -> None:
    assert left_out(name) == k


@pytest.mark.parametrize("name", ["leave-last-", "leave-last-0", "leave-last-x", "leave-last-²", "last"])
def test_names_that_are_no_split(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        left_out(name)


def test_split_by_time_cuts_at_the_same_moments_for_all_users() -> None:
    # 20 interactions at times 0 to 19: training before 16, test from 18 on.
    sequences = pack([[*range(1, 9), 9, 9], [1, 2, 3, 4, 5, 6, 7, 8, 1, 2]])
    timestamps = np.array([*range(8), 16, 17, *range(8, 16), 18, 19])
    split = split_by_time(sequences, timestamps)
    assert tasks(sequences, split, "valid") == {0: (list(range(1, 9)), [9])}
    assert tasks(sequences, split, "test") == {1: ([1, 2, 3, 4, 5, 6, 7, 8], [1, 2])}


def test_split_by_time_needs_timestamps() -> None:
    with pytest.raises(SsnaError, match="--split time needs the time of every interaction.*leave-one-out"):
        split_by_time(pack([[1, 2, 3]]), None)


@given(histories, st.integers(1, 5))
def test_windows_make_every_training_interaction_but_a_users_first_a_target_once(
    drawn: list[list[int]], length: int
) -> None:
    sequences = pack(drawn)
    split = leave_last(sequences)
    starts, ends = training_windows(sequences, split, length)
    targets = sorted(place for start, end in zip(starts, ends, strict=True) for place in range(start + 1, end))
    expected = [
        place
        for user in range(sequences.num_users)
        for place in range(sequences.starts[user] + 1, split.train_end[user])
    ]
    assert targets == expected
    assert ((ends - starts >= 2) & (ends - starts <= length + 1)).all()


@given(histories, st.integers(1, 6))
def test_spans_are_the_last_items_left_aligned(drawn: list[list[int]], length: int) -> None:
    sequences = pack(drawn)
    start, end = (torch.from_numpy(bound) for bound in (sequences.starts[:-1], sequences.starts[1:]))
    rows, counts = gather_spans(torch.from_numpy(sequences.items), start, end, length)
    width = min(length, max(map(len, drawn)))
    assert rows.tolist() == [[*history[-length:], *[0] * width][:width] for history in drawn]
    assert counts.tolist() == [min(len(history), length) for history in drawn]
