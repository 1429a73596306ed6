"""A dataset's rows as the numbered arrays that stage two works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ssna.columns import ITEM, ITEM_INDEX, TEXT, TIME, TITLE, USER
from ssna.dataset import Dataset
from ssna.errors import DatasetError
from ssna.stage2_adapt import (
    AdaptOptions,
    OptionError,
    Sequences,
    Split,
    cases_of,
    leave_last,
    left_out,
    split_by_time,
    training_counts,
)
from ssna.terminal import counted


@dataclass(frozen=True)
class Corpus:
    """Users' sequences over N numbered items, split."""

    items: pl.DataFrame
    """item_index, item_id, title and text, in order of the index; those that occur in training come first"""
    user_ids: pl.Series
    sequences: Sequences
    split: Split
    num_trained: int
    """T: items 1 to T occur in training"""


def load_corpus(dataset: Dataset, options: AdaptOptions) -> Corpus:
    """Number the candidates and users of a dataset, and split its sequences.

    Raises:
        DatasetError: if an interaction is of an item that items.parquet lacks or has no text for.
        OptionError: if the split leaves nobody to validate or test.
    """
    interactions = dataset.interactions()
    if not len(interactions):
        raise DatasetError(f"{dataset.path} has no interactions; there is nothing to learn from.")
    items = dataset.items().filter(pl.col(TEXT) != "")
    used = interactions[ITEM].unique()
    if len(lacking := used.filter(~used.is_in(items[ITEM].implode()))):
        raise DatasetError(
            f"{dataset.path}: {counted(len(lacking), 'interacted item has', 'interacted items have')} no text in "
            f"items.parquet ({', '.join(lacking.sort().head(5))}). Run `ssna prepare` again."
        )
    if options.candidates == "interacted":
        items = items.filter(pl.col(ITEM).is_in(used.implode()))
    numbers = _numbers(interactions[ITEM], items[ITEM])
    users = interactions[USER].rle_id().to_numpy().astype(np.int64)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(users)) + 1, [len(users)]])
    user_ids = interactions[USER].gather(starts[:-1])
    if user_ids.n_unique() < len(user_ids):
        raise DatasetError(f"{dataset.path}: interactions.parquet is not in order of users. Run `ssna prepare` again.")
    sequences = Sequences(numbers, starts)
    split = _split(sequences, interactions[TIME], options)
    if not any(len(cases_of(sequences, split, part)) for part in ("valid", "test")):
        raise OptionError(_evaluates_nobody(dataset, sequences, options))
    return _trained_first(items, user_ids, sequences, split)


def _numbers(item_ids: pl.Series, known: pl.Series) -> np.ndarray:
    """Each row's position in `known`, from 1."""
    numbered = pl.DataFrame({ITEM: known}).with_row_index(ITEM_INDEX, offset=1)
    joined = pl.DataFrame({ITEM: item_ids}).join(numbered, on=ITEM, how="left", maintain_order="left")
    return joined[ITEM_INDEX].to_numpy().astype(np.int64)


def _split(sequences: Sequences, timestamps: pl.Series, options: AdaptOptions) -> Split:
    if (k := left_out(options.split)) is not None:
        return leave_last(sequences, k)
    return split_by_time(sequences, None if timestamps.null_count() else timestamps.to_numpy())


def _evaluates_nobody(dataset: Dataset, sequences: Sequences, options: AdaptOptions) -> str:
    """Why a split leaves nobody to validate or test, and which one leaves somebody."""
    k, longest = left_out(options.split), int(sequences.lengths.max())
    if k is None:
        found = f"no user of {dataset.path} has interactions both before and in a period that validates or tests"
    else:
        found = f"that takes a history of {2 * k + 1:,} interactions, and the longest of {dataset.path} has {longest:,}"
    largest = (longest - 1) // 2
    if largest < 1:
        advice = "Give a dataset with histories of at least 3 interactions"
    elif k is None or largest == 1:
        advice = "Give --split leave-one-out"
    else:
        advice = f"Give at most --split leave-last-{largest}"
    return f"--split {options.split} leaves nobody to validate or test: {found}. {advice}."


def _trained_first(items: pl.DataFrame, user_ids: pl.Series, sequences: Sequences, split: Split) -> Corpus:
    counts = training_counts(sequences, split, len(items))[1:]
    order = np.argsort(counts == 0, kind="stable")  # (N,): old positions in their new order
    new_number = np.empty(len(items) + 1, np.int64)
    new_number[0] = 0
    new_number[order + 1] = np.arange(1, len(items) + 1)
    ordered = items.select(pl.all().gather(order)).with_row_index(ITEM_INDEX, offset=1)
    return Corpus(
        items=ordered.select(ITEM_INDEX, ITEM, TITLE, TEXT),
        user_ids=user_ids,
        sequences=Sequences(new_number[sequences.items], sequences.starts),
        split=split,
        num_trained=int((counts > 0).sum()),
    )
