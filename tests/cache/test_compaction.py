"""Compaction: fewer segments, the same rows, at every step between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssna.cache import Cache, CacheError, SegmentWriter, compact, compaction, verify
from ssna.cache.segment import Rows, write_segment
from tests.cache.strategies import add_rows, keys_for, make_cache, states_for


def write_rows(cache: Cache, numbers: list[int], layers: int, shift: float) -> None:
    """A segment whose states tell it from other segments with the same texts."""
    states = states_for(numbers, layers) + np.float32(shift)
    with SegmentWriter(cache, list(range(3, 3 - layers, -1)), "float32", "made-up") as writer:
        writer.add(keys_for(numbers), states, np.full(len(numbers), 7, np.uint32), np.zeros(len(numbers), np.bool_))


def answers(path: Path, numbers: range) -> dict[tuple[int, int], bytes]:
    """What every text and depth reads as."""
    cache = Cache.open(path)
    return {
        (number, layers): cache.select(keys_for([number]), layers).read().tobytes()
        for number in numbers
        for layers in (1, 2, 3)
        if cache.has(keys_for([number]), layers).all()
    }


def test_a_text_that_was_extracted_with_every_depth_of_a_deep_llm(tmp_path: Path) -> None:
    cache, depths = make_cache(tmp_path), range(1, 41)
    for depth in depths:
        states = np.full((1, depth, 2), depth, np.float32)
        with SegmentWriter(cache, list(range(40, 40 - depth, -1)), "float16", "made-up") as writer:
            writer.add(keys_for([1]), states, np.ones(1, np.uint32), np.zeros(1, np.bool_))
    before = {depth: Cache.open(cache.path).select(keys_for([1]), depth).read().tobytes() for depth in depths}
    compact(Cache.open(cache.path))
    assert {depth: Cache.open(cache.path).select(keys_for([1]), depth).read().tobytes() for depth in depths} == before


def test_small_segments_become_one_and_rows_stay_as_they_are(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, range(20), commit_each=True)
    before = Cache.open(cache.path).select(keys_for(range(20)), 3)
    seen = list[tuple[int, int]]()
    done = compact(Cache.open(cache.path), on_progress=lambda *values: seen.append(values))
    assert (done.segments_before, done.segments_after, done.rows_dropped) == (20, 1, 0)
    after = Cache.open(cache.path).select(keys_for(range(20)), 3)
    assert after.digest == before.digest
    assert np.array_equal(after.read(), before.read()), "what was selected before stays readable"
    assert all(report.damage is None for report in verify(cache.path))
    assert seen == [(0, 20)], "of 20 rows, before the one segment"
    again = compact(Cache.open(cache.path))
    assert (again.segments_before, again.segments_after) == (1, 1)


def test_segments_are_filled_up_to_their_size(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, range(20), commit_each=True)
    row_bytes = Cache.open(cache.path).segment(cache.index.segments[0]).rows.nbytes
    compact(Cache.open(cache.path), segment_bytes=6 * row_bytes)
    after = Cache.open(cache.path)
    assert sorted(len(after.segment(name).rows) for name in after.index.segments) == [2, 6, 6, 6]


segments = st.lists(st.tuples(st.sets(st.integers(0, 5), min_size=1), st.integers(1, 3)), min_size=1, max_size=6)


@settings(max_examples=40)
@given(segments)
def test_every_read_gives_the_same_row_before_between_and_after(
    tmp_path_factory: pytest.TempPathFactory, contents: list[tuple[set[int], int]]
) -> None:
    cache = make_cache(tmp_path_factory.mktemp("cache"), stored_dtype="float32")
    for shift, (numbers, layers) in enumerate(contents):
        write_rows(cache, sorted(numbers), layers, shift)
    expected = answers(cache.path, range(6))
    with pytest.MonkeyPatch.context() as patch:
        for steps in watched(patch, cache.path):
            assert answers(cache.path, range(6)) == expected, steps
    assert answers(cache.path, range(6)) == expected
    after = Cache.open(cache.path)
    kept = sum(len(after.segment(name).rows) for name in after.index.segments)
    distinct = {bytes(row) for row in expected.values()}
    assert kept <= len(distinct), "only rows that some read returns are kept"


def watched(patch: pytest.MonkeyPatch, path: Path) -> Iterator[str]:
    """Compact, and stop after each segment that is written and each that is removed."""
    steps = list[str]()
    states = list[tuple[str, dict[tuple[int, int], bytes]]]()

    def record(what: str) -> None:
        steps.append(what)
        states.append((what, answers(path, range(6))))

    real_write, real_unlink = compaction.write_segment, Path.unlink

    def write(*arguments: object, **options: object) -> str:
        name = real_write(*arguments, **options)
        record(f"wrote {name}")
        return name

    def unlink(self: Path, missing_ok: bool = False) -> None:
        real_unlink(self, missing_ok)
        if self.suffix == ".h5" and not self.name.startswith("."):
            record(f"removed {self.name}")

    expected = answers(path, range(6))
    patch.setattr(compaction, "write_segment", write)
    patch.setattr(Path, "unlink", unlink)
    compact(Cache.open(path))
    for what, found in states:
        assert found == expected, what
    yield from steps


def test_damaged_rows_are_not_carried_over(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, [1, 2])
    rows = Cache.open(cache.path).segment(cache.index.segments[0]).rows
    wrong = Rows(**{**rows.take(slice(0, 1)).fields(), "keys": keys_for([3])})
    write_segment(cache.segments_folder, [wrong], len(wrong), cache.manifest.fingerprint, (3, 2, 1), "made-up")
    before = sorted(path.name for path in cache.segments_folder.glob("*.h5"))
    with pytest.raises(CacheError, match="are damaged, so nothing was removed"):
        compact(Cache.open(cache.path))
    assert sorted(path.name for path in cache.segments_folder.glob("*.h5")) == before
