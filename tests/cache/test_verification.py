"""Verification finds whatever is wrong with a cache, and repair makes room for what is right."""

from __future__ import annotations

import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from ssna.cache import Cache, CacheError, set_aside, verify, verify_index
from ssna.cache.index import index_path
from ssna.cache.segment import write_segment
from tests.cache.strategies import add_rows, keys_for, make_cache


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = make_cache(tmp_path)
    add_rows(made, range(10))
    add_rows(made, range(10, 30))
    return made


def test_a_sound_cache_is_sound(cache: Cache) -> None:
    seen = list[tuple[int, int]]()
    reports = list(verify(cache.path, lambda *values: seen.append(values)))
    assert seen == [(0, 2), (1, 2)]
    assert [report.damage for report in reports] == [None, None]
    assert sorted(report.rows for report in reports) == [10, 20]


def test_every_one_of_a_thousand_single_bit_flips_is_found(cache: Cache) -> None:
    path = cache.segments_folder / f"{cache.index.segments[0]}.h5"
    sound = path.read_bytes()
    rng = random.Random(0)
    for bit in rng.sample(range(8 * len(sound)), 1000):
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        (bad,) = [report for report in verify(cache.path) if report.damage is not None]
        assert bad.segment == path.stem
    path.write_bytes(sound)
    assert all(report.damage is None for report in verify(cache.path))


def test_a_file_that_fails_its_name_is_not_parsed(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in cache.segments_folder.glob("*.h5"):
        path.write_bytes(b"not HDF5 at all")
    monkeypatch.setattr(h5py, "File", None)
    assert all("do not have the SHA-256" in str(report.damage) for report in verify(cache.path))


def test_rows_without_their_checksum_are_named(cache: Cache) -> None:
    rows = cache.segment(cache.index.segments[0]).rows
    states = rows.states.copy()
    states[3, 1, 2] += 1
    states[5, 0, 0] += 1
    wrong = type(rows)(**{**rows.fields(), "states": states})
    name = write_segment(cache.segments_folder, [wrong], len(wrong), cache.manifest.fingerprint, (3, 2, 1), "made-up")
    (report,) = [report for report in verify(cache.path) if report.damage is not None]
    assert report.segment == name
    assert report.damage == f"2 of {len(rows)} rows do not have their checksum"
    assert report.bad_keys == tuple(rows.keys[i].tobytes().hex() for i in (3, 5))


def test_a_damaged_segment_set_aside_leaves_a_gap_and_the_rest(cache: Cache) -> None:
    name = cache.index.segments[0]
    lost = cache.segment(name).rows.keys.copy()
    path = cache.segments_folder / f"{name}.h5"
    path.write_bytes(path.read_bytes()[:-8])
    moved = set_aside(cache.path, name)
    assert moved.exists()
    opened = Cache.open(cache.path)
    assert not opened.has(lost, 3).any()
    assert opened.has(keys_for(range(30)), 3).sum() == 30 - len(lost)
    assert all(report.damage is None for report in verify(cache.path))


def test_an_index_that_is_wrong_is_found_and_made_anew(cache: Cache) -> None:
    assert verify_index(cache.path)
    path = index_path(cache.path, cache.index.segments)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not verify_index(cache.path)
    assert not path.exists()
    assert np.array_equal(Cache.open(cache.path).select(keys_for(range(30)), 3).read()[:, 0, 0], 50 * np.arange(30))


def test_reading_never_takes_a_row_of_another_text(cache: Cache) -> None:
    path = index_path(cache.path, cache.index.segments)
    content = bytearray(path.read_bytes())
    content[-4:] = content[-8:-4]  # The last text's row becomes that of the one before.
    path.write_bytes(content)
    selected = Cache.open(cache.path).select(keys_for(range(30)), 3)
    assert np.array_equal(selected.read()[:, 0, 0], 50 * np.arange(30))


def test_what_is_no_cache_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="is not a cache"):
        list(verify(tmp_path))
