"""Interaction histories as packed arrays, and which part of each trains, validates and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssna.cache import SsnaError

LEAVE_ONE_OUT, BY_TIME, LEAVE_LAST = "leave-one-out", "time", "leave-last-"
SPLITS = (LEAVE_ONE_OUT, f"{LEAVE_LAST}K", BY_TIME)

# Of `--split time`: shares of all interactions, by time, that train and that come before the test period.
_TRAIN_SHARE, _BEFORE_TEST_SHARE = 0.8, 0.9
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """All users' interactions, oldest first, one user after the other."""

    items: Int64s
    """(M,): item index of each interaction, 1 to N"""
    starts: Int64s
    """(U + 1,): user u's interactions are `items[starts[u] : starts[u + 1]]`"""

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Int64s:
        """(U,): interactions of each user."""
        return np.diff(self.starts)

    def of_users(self, users: Sequence[int]) -> Sequences:
        """Those of these users, numbers from 0, in their order."""
        spans = [self.items[self.starts[user] : self.starts[user + 1]] for user in users]
        starts = np.cumsum([0, *map(len, spans)], dtype=np.int64)
        return Sequences(np.concatenate([self.items[:0], *spans]), starts)


@dataclass(frozen=True)
class Split:
    """Where, in each user's sequence, training ends and validation ends; both (U,), positions in `items`.

    The interactions before `train_end` train; those up to `valid_end` validate; the rest test. The history at
    test time includes the validation part. A user without a part is not evaluated on it.
    """

    train_end: Int64s
    valid_end: Int64s


def left_out(split: str) -> int | None:
    """k of `leave-last-k`, 1 of `leave-one-out`, and None of `time`.

    Raises:
        ValueError: if it is none of these.
    """
    if split in (LEAVE_ONE_OUT, BY_TIME):
        return 1 if split == LEAVE_ONE_OUT else None
    number = split.removeprefix(LEAVE_LAST)
    if number == split or not number.isascii() or not number.isdigit() or int(number) < 1:
        raise ValueError(split)
    return int(number)


def leave_last(sequences: Sequences, k: int = 1) -> Split:
    """The last k interactions test, the k before validate; users with fewer than 2 k + 1 only train."""
    ends = sequences.starts[1:]
    long_enough = sequences.lengths > 2 * k
    return Split(train_end=np.where(long_enough, ends - 2 * k, ends), valid_end=np.where(long_enough, ends - k, ends))


def split_by_time(sequences: Sequences, timestamps: Int64s | None) -> Split:
    """The latest tenth of all interactions tests, the tenth before validates; a user may have several targets.

    Args:
        sequences: ordered by time within each user.
        timestamps: (M,), of each interaction; None if the dataset has none.

    Raises:
        SsnaError: if there are no timestamps.
    """
    if timestamps is None:
        raise SsnaError(
            "--split time needs the time of every interaction, and this dataset has only their order. "
            "Use --split leave-one-out, or prepare the dataset with a timestamp column."
        )
    valid_from, test_from = np.quantile(timestamps, [_TRAIN_SHARE, _BEFORE_TEST_SHARE], method="higher")
    starts = sequences.starts[:-1]
    return Split(
        train_end=starts + _count_per_user(sequences, timestamps < valid_from),
        valid_end=starts + _count_per_user(sequences, timestamps < test_from),
    )


def _count_per_user(sequences: Sequences, chosen: npt.NDArray[np.bool_]) -> Int64s:
    total = np.concatenate([[0], np.cumsum(chosen)])
    counts: Int64s = total[sequences.starts[1:]] - total[sequences.starts[:-1]]
    return counts


@dataclass(frozen=True)
class Cases:
    """C ranking tasks, one a user: the history ends where the targets begin.

    The history of case c is `items[start[c] : history_end[c]]`, and its targets are the distinct items of
    `items[history_end[c] : target_end[c]]`.
    """

    user: Int64s
    start: Int64s
    history_end: Int64s
    target_end: Int64s

    def __len__(self) -> int:
        """C."""
        return len(self.user)

    def between(self, first: int, last: int) -> Cases:
        """Those from `first` up to `last`, without it."""
        return Cases(**{name: values[first:last] for name, values in vars(self).items()})

    def take(self, places: Int64s) -> Cases:
        """Those at these places, in that order."""
        return Cases(**{name: values[places] for name, values in vars(self).items()})


def cases_of(sequences: Sequences, split: Split, part: Literal["valid", "test"]) -> Cases:
    """The ranking tasks of the validation or test part: every user who has a history and a target there."""
    start = sequences.starts[:-1]
    history_end, target_end = (
        (split.train_end, split.valid_end) if part == "valid" else (split.valid_end, sequences.starts[1:])
    )
    user = np.flatnonzero((history_end > start) & (target_end > history_end))
    return Cases(user, start[user], history_end[user], target_end[user])


def targets_of(sequences: Sequences, cases: Cases) -> tuple[Int64s, Int64s]:
    """Every distinct target as a pair: position of its case, and item index; sorted by both."""
    counts = cases.target_end - cases.history_end
    case = np.repeat(np.arange(len(cases)), counts)
    within = np.arange(len(case)) - np.repeat(np.cumsum(counts) - counts, counts)
    item = sequences.items[cases.history_end[case] + within]
    pairs = np.unique(np.stack([case, item], axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def gather_spans(items: Tensor, start: Tensor, end: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The last `length` items of each span `items[start:end]`, ``(B, L)`` left-aligned and 0-padded, and their counts.

    The result is as wide as the longest of these spans, at most `length`, and lies where `items` does.
    """
    counts = (end - start).clamp_max(length)  # (B,)
    column = torch.arange(int(counts.max()) if len(counts) else 0)
    filled = column < counts[:, None]  # (B, L)
    places = torch.where(filled, (end - counts)[:, None] + column, 0)
    return torch.where(filled.to(items.device), items[places.to(items.device)], 0), counts


def training_counts(sequences: Sequences, split: Split, num_items: int) -> Int64s:
    """How often each item occurs in training, (N + 1,) with 0 for the padding index."""
    user = np.repeat(np.arange(sequences.num_users), sequences.lengths)
    trains = np.arange(len(sequences.items)) < split.train_end[user]
    return np.bincount(sequences.items[trains], minlength=num_items + 1)


def training_windows(sequences: Sequences, split: Split, length: int) -> tuple[Int64s, Int64s]:
    """Spans (start, end), both (W,), that cover the training part in pieces of at most `length` + 1 interactions.

    Each piece predicts its items 2, 3, … from those before. Pieces are cut from the end of a user's training part
    backwards and share one interaction, so that every interaction but a user's first is a target exactly once.
    """
    first = sequences.starts[:-1]
    targets = split.train_end - first - 1
    pieces = np.maximum(-(-targets // length), 0)
    user = np.repeat(np.arange(len(first)), pieces)
    number = np.arange(len(user)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    end = split.train_end[user] - number * length
    start = np.maximum(end - length - 1, first[user])
    return start, end
