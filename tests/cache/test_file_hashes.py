"""The memory of file hashes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ssna.cache import file_hashes
from ssna.cache.file_hashes import sha256_of_files


def of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really read."""
    real, read = file_hashes.sha256_of_file, list[Path]()
    monkeypatch.setattr(file_hashes, "sha256_of_file", lambda path: read.append(path) or real(path))
    return read


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path, hashed: list[Path]) -> None:
    file, memory = tmp_path / "weights", tmp_path / "file-hashes.json"
    file.write_bytes(b"one")
    assert sha256_of_files([file], memory) == [of(b"one")]
    assert sha256_of_files([file, file], memory) == [of(b"one")] * 2
    assert hashed == [file]
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 0))
    assert sha256_of_files([file], memory) == [of(b"two")]
    assert hashed == [file, file]


def test_two_processes_keep_what_the_other_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, memory = tmp_path / "one", tmp_path / "other", tmp_path / "file-hashes.json"
    one.write_bytes(b"one")
    other.write_bytes(b"other")
    real = file_hashes.sha256_of_file

    def meanwhile(path: Path) -> str:
        monkeypatch.setattr(file_hashes, "sha256_of_file", real)
        sha256_of_files([other], memory)
        return real(path)

    monkeypatch.setattr(file_hashes, "sha256_of_file", meanwhile)
    sha256_of_files([one], memory)
    monkeypatch.setattr(file_hashes, "sha256_of_file", lambda path: pytest.fail("read again"))
    assert sha256_of_files([one, other], memory) == [of(b"one"), of(b"other")]


def test_of_a_file_that_changes_while_it_is_read_nothing_false_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, memory = tmp_path / "weights", tmp_path / "file-hashes.json"
    file.write_bytes(b"old")
    real = file_hashes.sha256_of_file

    def rewritten(path: Path) -> str:
        sha256 = real(path)
        path.write_bytes(b"a new one")
        return sha256

    monkeypatch.setattr(file_hashes, "sha256_of_file", rewritten)
    sha256_of_files([file], memory)
    monkeypatch.setattr(file_hashes, "sha256_of_file", real)
    assert sha256_of_files([file], memory) == [of(b"a new one")]


def test_a_file_that_is_gone_is_forgotten_and_an_absent_folder_is_not(tmp_path: Path) -> None:
    memory = tmp_path / "file-hashes.json"
    for name in ("here/file", "disk/file"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"content")
    sha256_of_files([tmp_path / "here/file", tmp_path / "disk/file"], memory)
    (tmp_path / "here/file").unlink()
    (tmp_path / "disk").rename(tmp_path / "away")
    (tmp_path / "new").write_bytes(b"new")
    sha256_of_files([tmp_path / "new"], memory)
    content = memory.read_text()
    assert "here/file" not in content
    assert "disk/file" in content


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 3}', '{"x": [1, 2]}', '{"x": ["a", "b", "c", "d"]}'])
def test_a_damaged_memory_remembers_nothing(tmp_path: Path, content: str) -> None:
    file, memory = tmp_path / "file", tmp_path / "file-hashes.json"
    file.write_bytes(b"one")
    memory.write_text(content)
    assert sha256_of_files([file], memory) == [of(b"one")]


def test_a_memory_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    assert sha256_of_files([file], tmp_path / "no folder" / "file-hashes.json") == [of(b"one")]
