"""Lookup and reading: the right row, whatever the segments."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssna.cache import Cache, CacheError, DiskFullError, fingerprint_of, keys_of_texts
from ssna.cache.errors import MissingRowsError
from ssna.cache.index import MISSING, Index, build_index, load_index, save_index
from ssna.cache.segment import list_segments, open_segment
from tests.cache.strategies import add_rows, keys_for, make_cache, states_for


def test_key_is_the_first_128_bits_of_the_sha256_of_the_text() -> None:
    expected = hashlib.sha256("Kölsch".encode()).digest()[:16]
    assert keys_of_texts(["x", "Kölsch"])[1].tobytes() == expected


def test_fingerprint_is_the_sha256_of_canonical_json() -> None:
    canonical = '{"a":"ü","b":[1,null]}'
    assert fingerprint_of({"b": [1, None], "a": "ü"}) == hashlib.sha256(canonical.encode()).hexdigest()


def test_folder_is_named_after_the_name_and_the_fingerprint(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, "some-llm")
    assert cache.path.name == f"some-llm-{cache.manifest.fingerprint[:12]}"
    manifest = json.loads((cache.path / "manifest.json").read_text())
    assert manifest["fingerprint"] == fingerprint_of(manifest["settings"])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_follow_the_order_asked_whatever_the_segments(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    parts = data.draw(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True), max_size=5))
    cache = make_cache(tmp_path_factory.mktemp("cache"))
    for part in parts:
        add_rows(cache, part)
    stored = sorted({number for part in parts for number in part})
    assert len(cache) == len(stored)
    asked = data.draw(st.lists(st.sampled_from(stored), max_size=12)) if stored else []
    layers = data.draw(st.integers(1, 3))
    selected = Cache.open(cache.path).select(keys_for(asked), layers)
    if asked:
        np.testing.assert_array_equal(selected.read(), states_for(asked, layers), strict=True)
        assert selected.layers == (3, 2, 1)[:layers]
    assert len(selected.read()) == len(asked)
    np.testing.assert_array_equal(cache.has(keys_for(range(31)), 3), [number in stored for number in range(31)])


def test_missing_rows_are_an_error_that_says_where_they_were_asked_for(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, [1, 2])
    with pytest.raises(MissingRowsError, match="2 of 3 texts are not cached") as caught:
        cache.select(keys_for([5, 1, 6]), 3)
    assert caught.value.positions == [0, 2]


def test_a_row_counts_only_with_enough_layers(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, [1, 2], layers=2)
    add_rows(cache, [2], layers=3)
    assert cache.has(keys_for([1, 2]), 2).tolist() == [True, True]
    assert cache.has(keys_for([1, 2]), 3).tolist() == [False, True]
    assert cache.max_layers == 3
    assert cache.common_layers(keys_for([1, 2])) == 2
    assert cache.common_layers(keys_for([2])) == 3
    assert cache.common_layers(keys_for([2, 5])) == 0
    np.testing.assert_array_equal(cache.select(keys_for([2, 1]), 2).read(), states_for([2, 1], 2))


def test_of_equal_rows_the_smallest_segment_name_wins(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    for numbers in ([1], [1, 2], [1, 3], [1, 4]):
        add_rows(cache, numbers)
    segments = [
        open_segment(cache.segments_folder, n, cache.manifest.fingerprint) for n in list_segments(cache.segments_folder)
    ]
    assert len(segments) == 4
    position, row = build_index(segments).find(keys_for([1]), 3)
    assert position.tolist() == [0]
    assert segments[0].rows.keys[row[0]].tobytes() == keys_for([1]).tobytes()


def test_keys_that_share_their_first_64_bits_are_told_apart() -> None:
    low = np.array([4, 9], np.uint64)
    index = Index(
        segments=("a",),
        layers=np.array([3]),
        high=np.array([7, 7], np.uint64),
        low=low,
        segment=np.zeros(2, np.uint32),
        row=np.array([11, 12], np.uint32),
    )
    wanted = np.array([[7, 9], [7, 5], [6, 4]], ">u8").view(np.uint8).reshape(3, 16)
    segment, row = index.find(wanted, 3)
    assert segment.tolist() == [0, MISSING, MISSING]
    assert row.tolist() == [12, MISSING, MISSING]


def test_the_digest_tells_rows_and_their_order_apart(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, [1, 2, 3])
    digests = [cache.select(keys_for(rows), 3).digest for rows in ([1, 2], [2, 1], [1, 3], [1, 2])]
    assert digests[0] == digests[3]
    assert len(set(digests)) == 3


def test_the_index_is_saved_once_and_rebuilt_when_the_segments_change(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, [1])
    (first,) = cache.path.glob("index-*.bin")
    add_rows(cache, [2])
    (second,) = cache.path.glob("index-*.bin")
    assert first.name != second.name
    names = list_segments(cache.segments_folder)
    saved = load_index(cache.path, names)
    assert saved is not None
    second.write_bytes(second.read_bytes()[:-1])
    assert load_index(cache.path, names) is None
    np.testing.assert_array_equal(Cache.open(cache.path).select(keys_for([2]), 3).read(), states_for([2]))


def test_a_saved_index_is_the_one_that_was_built(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, range(5), commit_each=True)
    names = list_segments(cache.segments_folder)
    built = build_index([open_segment(cache.segments_folder, name, cache.manifest.fingerprint) for name in names])
    save_index(cache.path, built)
    loaded = load_index(cache.path, names)
    assert loaded is not None
    for name in ("high", "low", "segment", "row", "layers"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(built, name))


def test_open_segments_keep_no_file_descriptors(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, range(20), commit_each=True)
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader = Cache.open(cache.path)
    states = reader.select(keys_for(range(20)), 3).read()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    np.testing.assert_array_equal(states, states_for(range(20)))


def test_a_reader_lists_again_when_a_segment_is_gone(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, [1])
    reader = Cache.open(cache.path)
    (old,) = cache.segments_folder.glob("*.h5")
    add_rows(cache, [1, 2])  # As another process that compacts would: first the new segment, then the removal.
    old.unlink()
    np.testing.assert_array_equal(reader.select(keys_for([1]), 3).read(), states_for([1]))


def test_a_full_disk_does_not_keep_a_cache_from_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, range(3))
    for index in cache.path.glob("index-*"):
        index.unlink()

    def full(*arguments: object) -> None:
        raise DiskFullError("full")

    monkeypatch.setattr("ssna.cache.store.save_index", full)
    assert Cache.open(cache.path).has(keys_for(range(3)), 3).all()


def test_rows_committed_later_are_seen_after_a_refresh(tmp_path: Path) -> None:
    reader = make_cache(tmp_path)
    add_rows(Cache.open(reader.path), [1])
    assert not reader.has(keys_for([1]), 3).any()
    reader.refresh()
    assert reader.has(keys_for([1]), 3).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda m: m.unlink(), "is not a cache: it has no manifest.json", id="missing"),
        pytest.param(lambda m: m.write_text("{"), "is not a cache manifest", id="not-json"),
        pytest.param(lambda m: m.write_text(m.read_text().replace("mean", "last")), "changed by hand", id="edited"),
        pytest.param(
            lambda m: m.write_text(m.read_text().replace('"format_version": 1', '"format_version": 9')),
            "format version 9; this ssna reads version 1",
            id="version",
        ),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(tmp_path: Path, change: object, message: str) -> None:
    cache = make_cache(tmp_path)
    change(cache.path / "manifest.json")  # type: ignore[operator]
    with pytest.raises(CacheError, match=message):
        Cache.open(cache.path)


def test_segments_are_plain_hdf5_with_contiguous_little_endian_datasets(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, [4, 5])
    (path,) = cache.segments_folder.glob("*.h5")
    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    with h5py.File(path) as file:
        assert {name: (d.shape, d.dtype.str, d.chunks, d.compression) for name, d in file.items()} == {
            "keys": ((2, 16), "|u1", None, None),
            "states": ((2, 3, 4), "<f2", None, None),
            "scales": ((2, 3), "<f4", None, None),
            "token_counts": ((2,), "<u4", None, None),
            "truncated": ((2,), "|b1", None, None),
            "checksums": ((2,), "<u8", None, None),
        }
        assert file.attrs["fingerprint"] == cache.manifest.fingerprint
        assert file.attrs["layers"].tolist() == [3, 2, 1]
        assert file.attrs["format_version"] == 1
        assert "torch" in json.loads(file.attrs["library_versions"])
        np.testing.assert_array_equal(file["states"][:], states_for([4, 5]).astype(np.float16))
        assert file["token_counts"][:].tolist() == [7, 7]
