"""Committing: when, how much a crash costs, and that nothing committed is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssna.cache import Cache, SegmentWriter
from ssna.cache import writer as writer_module
from ssna.cache.files import sweep_leftovers
from ssna.cache.writer import commit_interval
from tests.cache.strategies import add_rows, keys_for, make_cache, states_for


def add(writer: SegmentWriter, numbers: list[int], states: np.ndarray | None = None) -> np.ndarray:
    n = len(numbers)
    values = states_for(numbers) if states is None else states
    return writer.add(keys_for(numbers), values, np.ones(n, np.uint32), np.zeros(n, np.bool_))


def test_a_second_signal_waits_until_what_is_held_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, real = make_cache(tmp_path), writer_module.write_segment

    def interrupted(*arguments: object) -> str:
        signal.raise_signal(signal.SIGINT)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(writer_module, "write_segment", interrupted)
    with pytest.raises(KeyboardInterrupt), SegmentWriter(cache, [3, 2, 1], "float16", "made-up") as writer:
        add(writer, [1, 2])
        raise KeyboardInterrupt
    assert Cache.open(cache.path).has(keys_for([1, 2]), 3).all()


@pytest.mark.parametrize(("elapsed", "seconds"), [(0, 5), (400, 5), (1000, 10), (6000, 60), (100_000, 60)])
def test_commits_come_every_hundredth_of_the_elapsed_time_within_5_and_60_s(elapsed: float, seconds: float) -> None:
    assert commit_interval(elapsed) == pytest.approx(seconds)


def test_rows_are_committed_when_the_time_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: clock[0])
    cache = make_cache(tmp_path)
    writer = SegmentWriter(cache, [3, 2, 1], "float16", "made-up")
    add(writer, [1])
    assert writer.committed_rows == 0
    clock[0] = 4.9
    add(writer, [2])
    assert writer.committed_rows == 0
    clock[0] = 5.0
    add(writer, [3])
    assert writer.committed_rows == 3
    assert Cache.open(cache.path).has(keys_for([1, 2, 3]), 3).all()


def test_rows_are_committed_when_they_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "COMMIT_BYTES", 200)
    writer = SegmentWriter(make_cache(tmp_path), [3, 2, 1], "float16", "made-up")
    add(writer, [1])
    assert writer.committed_rows == 0
    add(writer, [2, 3, 4])
    assert writer.committed_rows == 4


def test_an_exception_commits_what_is_held_and_goes_on(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    with pytest.raises(KeyboardInterrupt), SegmentWriter(cache, [3, 2, 1], "float16", "made-up") as writer:
        add(writer, [1, 2])
        raise KeyboardInterrupt
    np.testing.assert_array_equal(Cache.open(cache.path).select(keys_for([2, 1]), 3).read(), states_for([2, 1]))


def test_rows_with_inf_or_nan_are_not_taken(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    states = states_for([1, 2, 3])
    states[0, 2, 3], states[2, 0, 0] = np.inf, np.nan
    with SegmentWriter(cache, [3, 2, 1], "float16", "made-up") as writer:
        assert add(writer, [1, 2, 3], states).tolist() == [False, True, False]
    assert Cache.open(cache.path).has(keys_for([1, 2, 3]), 3).tolist() == [False, True, False]


def test_a_run_merges_its_own_small_segments_and_leaves_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, [90])
    (foreign,) = cache.segments_folder.glob("*.h5")
    with SegmentWriter(cache, [3, 2, 1], "float16", "made-up") as writer:
        for number in range(10):
            add(writer, [number])
            writer.commit()
        assert len(list(cache.segments_folder.glob("*.h5"))) == 11
    left = list(cache.segments_folder.glob("*.h5"))
    assert foreign in left
    assert len(left) == 2
    np.testing.assert_array_equal(Cache.open(cache.path).select(keys_for(range(10)), 3).read(), states_for(range(10)))


def test_merged_segments_do_not_exceed_the_commit_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache(tmp_path)
    with SegmentWriter(cache, [3, 2, 1], "float16", "made-up") as writer:
        for number in range(6):
            add(writer, [number])
            writer.commit()
        one = next(cache.segments_folder.glob("*.h5")).stat().st_size
        monkeypatch.setattr(writer_module, "COMMIT_BYTES", 3 * one)
    assert len(list(cache.segments_folder.glob("*.h5"))) == 2
    assert Cache.open(cache.path).has(keys_for(range(6)), 3).all()


def test_a_crash_while_merging_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache(tmp_path)

    def die(self: Path, missing_ok: bool = False) -> None:
        raise SystemExit("killed")

    with pytest.raises(SystemExit), SegmentWriter(cache, [3, 2, 1], "float16", "made-up") as writer:
        for number in range(4):
            add(writer, [number])
            writer.commit()
        real = Path.unlink
        monkeypatch.setattr(
            Path,
            "unlink",
            lambda self, missing_ok=False: die(self) if self.suffix == ".h5" else real(self, missing_ok=missing_ok),
        )
    monkeypatch.undo()
    assert len(list(cache.segments_folder.glob("*.h5"))) == 5
    np.testing.assert_array_equal(Cache.open(cache.path).select(keys_for(range(4)), 3).read(), states_for(range(4)))


def test_leftovers_of_a_crash_are_swept_after_an_hour_and_nothing_else(tmp_path: Path) -> None:
    old, young, segment = tmp_path / ".tmp-1-aa", tmp_path / ".tmp-2-bb", tmp_path / "0123456789abcdef.h5"
    old_folder = tmp_path / ".tmp-3-cc"
    old_folder.mkdir()
    (old_folder / "file").touch()
    for path in (old, young, segment):
        path.touch()
    for path in (old, segment, old_folder):
        os.utime(path, (1, path.stat().st_mtime - 3700))
    sweep_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {young.name, segment.name}


def test_two_writers_at_once_need_no_lock(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    with (
        SegmentWriter(cache, [3, 2, 1], "float16", "a") as first,
        SegmentWriter(Cache.open(cache.path), [3, 2, 1], "float16", "b") as second,
    ):
        for number in range(0, 8, 2):
            add(first, [number])
            add(second, [number + 1])
            first.commit()
            second.commit()
    np.testing.assert_array_equal(Cache.open(cache.path).select(keys_for(range(8)), 3).read(), states_for(range(8)))


def test_merging_does_not_change_which_of_two_equal_rows_wins(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    shared, alone = keys_for([1]), keys_for([2, 3, 4])

    def changed(by: float) -> np.ndarray:
        return states_for([1]) + by  # The same text computed in another batch.

    with SegmentWriter(cache, [3, 2, 1], "float16", "a") as first:
        with SegmentWriter(Cache.open(cache.path), [3, 2, 1], "float16", "b") as second:
            add(second, [1], changed(1))
        add(first, [1], changed(2))
        first.commit()
        for number in (2, 3, 4):
            add(first, [number])
            first.commit()
        before = Cache.open(cache.path).select(shared, 3).digest
    after = Cache.open(cache.path)
    assert after.select(shared, 3).digest == before
    assert after.has(alone, 3).all()
    assert len(list(cache.segments_folder.glob("*.h5"))) == 3, "the two with the shared row, and one merged"


_WRITER = """
import sys
from pathlib import Path
from ssna.cache import Cache, SegmentWriter
from tests.cache.strategies import keys_for, states_for
import numpy as np
for _ in range(6):
    with SegmentWriter(Cache.open(Path(sys.argv[1])), [3, 2, 1], "float16", sys.argv[2]) as writer:
        for number in range(12):
            writer.add(keys_for([number]), states_for([number]), np.ones(1, np.uint32), np.zeros(1, np.bool_))
            writer.commit()
"""


def test_processes_that_write_merge_and_read_the_same_rows_do_not_disturb_each_other(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    root = Path(__file__).parents[2]
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(cache.path), name], cwd=root, stderr=subprocess.PIPE)
        for name in ("a", "b")
    ]
    while any(writer.poll() is None for writer in writers):
        reader = Cache.open(cache.path)
        there = np.flatnonzero(reader.has(keys_for(range(12)), 3)).tolist()
        if there:
            np.testing.assert_array_equal(reader.select(keys_for(there), 3).read(), states_for(there))
    for writer in writers:
        assert writer.communicate()[1] == b""
        assert writer.returncode == 0
    assert Cache.open(cache.path).has(keys_for(range(12)), 3).all()
