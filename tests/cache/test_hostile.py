"""Damaged, foreign and hostile files on the reading path."""

from __future__ import annotations

import os
import random
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssna.cache import Cache, CacheError, soundness, verify
from ssna.cache.errors import MissingRowsError
from ssna.cache.files import sha256_of_file
from ssna.cache.index import index_path
from ssna.cache.segment import Rows, name_of_digest, open_segment, write_segment, wrong_rows
from ssna.cache.soundness import parse_errors
from tests.cache.strategies import add_rows, keys_for, make_cache, states_for

ATTACKS = range(900, 1400)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cache of one segment, copied from elsewhere: nothing is remembered of it."""
    cache = make_cache(tmp_path / "made here")
    add_rows(cache, range(20))
    (tmp_path / "root").mkdir()
    return Path(shutil.copytree(cache.path, tmp_path / "root" / cache.path.name))


def read(path: Path) -> np.ndarray:
    return Cache.open(path).select(keys_for(range(20)), 3).read()


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def test_a_copied_cache_is_read(path: Path) -> None:
    np.testing.assert_array_equal(read(path), states_for(range(20)))


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_flipped_bit_is_an_error_that_names_the_file(path: Path, place: float, indexed: bool) -> None:
    (file,) = (path / "segments").glob("*.h5")
    if not indexed:
        next(path.glob("index-*")).unlink()
    flip(file, int(place * file.stat().st_size * 8))
    with pytest.raises(CacheError, match="does not have the SHA-256 that its name says") as caught:
        read(path)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "content", [lambda old: old[: len(old) // 2], lambda old: b"", lambda old: b"PK\x03\x04" * 100, lambda old: old * 2]
)
def test_a_file_of_other_bytes_is_an_error_that_names_the_file(path: Path, content: Callable[[bytes], bytes]) -> None:
    (file,) = (path / "segments").glob("*.h5")
    file.write_bytes(content(file.read_bytes()))
    with pytest.raises(CacheError, match="does not have the SHA-256") as caught:
        read(path)
    assert str(file) in str(caught.value)


def attacks(content: bytes, seed: int) -> bytes:
    """The file with some of its HDF5 structure changed."""
    rng = random.Random(seed)
    structure = [i for i in range(len(content)) if content[i]]  # Mostly what HDF5 itself wrote.
    changed = bytearray(content)
    for at in rng.sample(structure, rng.choice((1, 1, 2, 8))):
        if rng.random() < 0.5:
            changed[at] = rng.randrange(256)
        else:
            wild = rng.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(content)))
            changed[at : at + 8] = struct.pack("<Q", wild)
    return bytes(changed[: len(content)])


def put(folder: Path, content: bytes) -> str:
    """A file under the name that its own SHA-256 gives it, which anyone can compute."""
    file = folder / "new"
    file.write_bytes(content)
    name = name_of_digest(sha256_of_file(file))
    file.rename(folder / f"{name}.h5")
    return name


def test_hostile_files_under_their_right_names_end_no_reader(path: Path, tmp_path: Path) -> None:
    """Of such files about one in three hundred crashes libhdf5 or never returns from it."""
    (sound,) = (path / "segments").glob("*.h5")
    content, fingerprint = sound.read_bytes(), Cache.open(path).manifest.fingerprint
    names = [put(tmp_path, attacks(content, seed)) for seed in ATTACKS]
    errors = parse_errors(tmp_path, names, fingerprint, seconds=2)
    assert len(errors) > len(ATTACKS) / 10, "hardly any attack did harm"
    assert all(str(tmp_path / f"{name}.h5") in str(error) for name, error in errors.items())
    for name in set(names) - set(errors):
        wrong_rows(open_segment(tmp_path, name, fingerprint).rows)
    sound.rename(tmp_path / sound.name)
    name = next(iter(errors))
    (tmp_path / f"{name}.h5").rename(sound.with_name(f"{name}.h5"))
    with pytest.raises(CacheError, match=name):
        read(path)
    (report,) = verify(path)
    assert name in str(report.damage)


def test_a_file_that_never_ends_the_parser_is_an_error_and_those_after_it_are_tried(path: Path) -> None:
    cache = Cache.open(path)
    add_rows(cache, range(20, 25), commit_each=True)
    names = sorted([*Cache.open(path).index.segments, "5"])
    os.mkfifo(cache.segments_folder / "5.h5")  # Opening it waits for somebody who writes.
    errors = parse_errors(cache.segments_folder, names, cache.manifest.fingerprint, seconds=1)
    assert list(errors) == ["5"]
    assert "5.h5 makes the HDF5 library crash or never return" in str(errors["5"])


def test_modules_in_the_current_folder_are_no_verdict_on_a_cache(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "platform.py").write_text("import sys; sys.exit(3)")
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read(path), states_for(range(20)))
    assert [report.damage for report in verify(path)] == [None]


@pytest.mark.parametrize(
    "script", ["import sys; sys.exit(3)", "import os; os.kill(os.getpid(), 9)", "print('ssna: ready')"]
)
def test_a_process_that_ends_by_itself_is_no_verdict_on_a_cache(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{script}"\n')
    program.chmod(0o755)
    monkeypatch.setattr(soundness.sys, "executable", str(program))
    with pytest.raises(CacheError, match="Nothing is known to be wrong with the cache"):
        read(path)
    assert not (path.parent / "file-hashes.json").exists()


@pytest.mark.parametrize("depth", ["3", "0", "9999999999999999999999"])
def test_layers_that_the_index_made_up_are_not_read(path: Path, depth: str) -> None:
    cache = Cache.open(path)
    add_rows(cache, range(20, 25), layers=1)
    file = index_path(path, Cache.open(path).index.segments)
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[8:16])
    header = content[16 : 16 + length].replace(b'"layers": 1', f'"layers": {depth}'.encode())
    arrays = content[16 + length + -(16 + length) % 64 :]
    file.write_bytes(content[:8] + struct.pack("<Q", len(header)) + header + bytes(-(16 + len(header)) % 64) + arrays)
    opened = Cache.open(path)
    if depth == "3":
        with pytest.raises(MissingRowsError):
            opened.select(keys_for([20]), 3)
    np.testing.assert_array_equal(opened.select(keys_for(range(20)), 3).read(), states_for(range(20)))


def test_scales_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, range(3))
    (name,) = cache.index.segments
    rows = cache.segment(name).rows
    wrong = Rows(**{**rows.fields(), "scales": np.full_like(rows.scales, np.nan)})
    (cache.segments_folder / f"{name}.h5").unlink()
    write_segment(cache.segments_folder, [wrong], 3, cache.manifest.fingerprint, [3, 2, 1], "made-up")
    with pytest.raises(CacheError, match="has scales that are no positive numbers"):
        Cache.open(cache.path).select(keys_for(range(3)), 3).read()


@pytest.mark.parametrize("offset", [-4, -120, -200])
def test_a_hostile_index_is_made_anew(path: Path, offset: int) -> None:
    """Its last two arrays are the segments and the rows of 20 keys, 4 bytes each."""
    file = index_path(path, [next((path / "segments").glob("*.h5")).stem])
    content = bytearray(file.read_bytes())
    content[offset : offset + 4] = b"\xff\xff\xff\xff"
    file.write_bytes(content)
    if offset < -160:  # A key: the row is not found, which costs an extraction but gives no wrong state.
        assert not Cache.open(path).has(keys_for(range(20)), 3).all()
    else:
        np.testing.assert_array_equal(read(path), states_for(range(20)))
