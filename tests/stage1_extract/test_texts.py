"""Which texts are computed, by whom, and in which windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ssna.cache import keys_of_texts
from ssna.stage1_extract.texts import Wanted, find_wanted, windows
from tests.cache.strategies import add_rows, make_cache

words = st.lists(st.sampled_from([str(number) for number in range(8)]), max_size=30)


def blocks_of(texts: list[str], size: int) -> list[tuple[list[str], list[str]]]:
    ids = [f"i{i}" for i in range(len(texts))]
    return [(texts[start : start + size], ids[start : start + size]) for start in range(0, len(texts), size)]


@given(words, st.integers(1, 7))
def test_the_first_of_each_distinct_text_is_wanted(texts: list[str], size: int) -> None:
    wanted = find_wanted(lambda: iter(blocks_of(texts, size)), None, 1)
    expected = [text not in texts[:i] for i, text in enumerate(texts)]
    assert wanted.missing.tolist() == expected
    assert wanted.distinct == wanted.num_missing == len(set(texts))
    assert np.array_equal(wanted.keys, keys_of_texts(texts))


def test_what_is_cached_with_enough_layers_is_not_wanted(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, [1, 2], layers=3)
    add_rows(cache, [3], layers=2)
    texts = ["1", "2", "3", "4", "4"]
    for layers, missing in ((2, [False, False, False, True, False]), (3, [False, False, True, True, False])):
        assert find_wanted(lambda: iter([(texts, texts)]), cache, layers).missing.tolist() == missing


@given(st.integers(1, 5), st.integers(1, 60))
def test_processes_divide_the_missing_texts_by_key(world_size: int, count: int) -> None:
    keys = keys_of_texts(str(i) for i in range(count))
    missing = np.arange(count) % 3 != 0
    wanted = Wanted(keys, missing, count)
    shares = np.stack([wanted.share(rank, world_size) for rank in range(world_size)])
    assert np.array_equal(shares.sum(axis=0), missing)
    of_key = [int.from_bytes(key[:8].tobytes(), "big") % world_size for key in keys]
    for rank in range(world_size):
        assert all(of_key[i] == rank for i in np.flatnonzero(shares[rank]))


@given(words, st.integers(1, 7), st.integers(1, 9))
def test_windows_hold_the_chosen_texts_in_order(texts: list[str], block: int, size: int) -> None:
    chosen = np.array([int(text) % 2 == 0 for text in texts], np.bool_)
    found = list(windows(lambda: iter(blocks_of(texts, block)), chosen, size))
    rows = [row for window in found for row in window.rows.tolist()]
    assert rows == np.flatnonzero(chosen).tolist()
    assert [text for window in found for text in window.texts] == [texts[row] for row in rows]
    assert [item for window in found for item in window.item_ids] == [f"i{row}" for row in rows]
    assert all(len(window.texts) == size for window in found[:-1])
