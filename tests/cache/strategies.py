"""Made-up rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssna.cache import Cache, Keys, SegmentWriter, keys_of_texts

SETTINGS = {"weights": {"model.safetensors": "00"}, "pooling": "mean"}
LLM = {"source": "made-up", "blocks": 3, "state_width": 4}


def make_cache(root: Path, name: str = "made-up", **settings: str) -> Cache:
    """An empty cache."""
    return Cache.create(root, name, {**SETTINGS, **settings}, LLM)


def keys_for(numbers: range | list[int]) -> Keys:
    """Keys of the texts "0", "1", …"""
    return keys_of_texts(str(number) for number in numbers)


def states_for(numbers: range | list[int], layers: int = 3, width: int = 4) -> np.ndarray:
    """States whose value says where they belong: 50 * number + 10 * layer + dimension; exact in float16."""
    grid = np.ix_(np.asarray(list(numbers)), np.arange(layers), np.arange(width))
    return (50 * grid[0] + 10 * grid[1] + grid[2]).astype(np.float32)


def add_rows(cache: Cache, numbers: range | list[int], layers: int = 3, commit_each: bool = False) -> None:
    """Commit rows of these numbers: one segment, or one for each row and no merging."""
    blocks = list(range(3, 3 - layers, -1))
    if commit_each:
        for number in numbers:
            add_rows(cache, [number], layers)
        return
    n = len(numbers)
    with SegmentWriter(cache, blocks, "float16", "made-up") as writer:
        writer.add(keys_for(numbers), states_for(numbers, layers), np.full(n, 7, np.uint32), np.zeros(n, np.bool_))
    cache.refresh()
