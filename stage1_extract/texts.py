"""The texts to extract: read twice in blocks, so that what is held of each item is its key and little more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssna.cache import Cache, Keys, keys_of_texts, slices, split_key

TextBlocks = Callable[[], Iterator[tuple[Sequence[str], Sequence[str]]]]
"""Gives the non-empty texts from the first on, each time it is called: blocks of texts and of their items' ids"""


@dataclass(frozen=True)
class Wanted:
    """Which of all n texts are to be computed; 17 bytes a text."""

    keys: Keys
    """Of every text ``(n, 16)``"""
    missing: npt.NDArray[np.bool_]
    """The first of each distinct text that the cache lacks ``(n,)``"""
    distinct: int
    """Number of distinct texts"""

    @property
    def num_missing(self) -> int:
        """Number of texts to compute."""
        return int(self.missing.sum())

    def missing_keys(self) -> Iterator[Keys]:
        """Keys of the missing texts, in blocks."""
        return (self.keys[part][self.missing[part]] for part in slices(len(self.keys)))

    def share(self, rank: int, world_size: int) -> npt.NDArray[np.bool_]:
        """The missing texts of one of several processes ``(n,)``: those whose key modulo their number is its rank."""
        if world_size == 1:
            return self.missing
        mine = self.missing.copy()
        for part in slices(len(mine)):
            high, _ = split_key(self.keys[part])
            mine[part] &= high % world_size == rank
        return mine


def find_wanted(texts: TextBlocks, cache: Cache | None, layers: int) -> Wanted:
    """Look every text up in the cache.

    Args:
        texts: all of them.
        cache: None if there is none yet.
        layers: with how many layers a text must be there to count as cached.
    """
    keys = np.concatenate([np.empty((0, 16), np.uint8), *(keys_of_texts(block) for block, _ in texts())])
    missing = _first_of_each(keys)
    distinct = int(missing.sum())
    if cache is not None:
        for part in slices(len(keys)):
            missing[part] &= ~cache.has(keys[part], layers)
    return Wanted(keys, missing, distinct)


def _first_of_each(keys: Keys) -> npt.NDArray[np.bool_]:
    """Which keys stand for the first time ``(n,)``."""
    high, low = split_key(keys)
    order = np.lexsort((low, high))  # Stable: the first of equal keys stays first.
    first = np.ones(len(keys), np.bool_)
    for part in slices(len(keys) - 1):
        here, before = order[part.start + 1 : part.stop + 1], order[part]
        first[here] = (high[here] != high[before]) | (low[here] != low[before])
    return first


@dataclass(frozen=True)
class Window:
    """Texts that are tokenised and sorted by length together."""

    rows: npt.NDArray[np.intp]
    """Their places among all texts"""
    texts: list[str]
    item_ids: list[str]
    """An item of each, for error messages"""


def windows(texts: TextBlocks, chosen: npt.NDArray[np.bool_], size: int) -> Iterator[Window]:
    """The chosen texts, in windows of `size`."""
    rows, held, ids = list[int](), list[str](), list[str]()
    start = 0
    for block, item_ids in texts():
        for i in np.flatnonzero(chosen[start : start + len(block)]).tolist():
            rows.append(start + i)
            held.append(block[i])
            ids.append(item_ids[i])
            if len(rows) == size:
                yield Window(np.array(rows), held, ids)
                rows, held, ids = [], [], []
        start += len(block)
    if rows:
        yield Window(np.array(rows), held, ids)
