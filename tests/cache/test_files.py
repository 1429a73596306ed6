"""Whole files or nothing."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ssna.cache import DiskFullError
from ssna.cache.files import rename_without_replacing, replacing, write_atomically


def test_a_failed_write_keeps_the_old_content_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Can't write data (file write failed: errno = 28, error message = 'x')"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
    ids=["os", "hdf5", "library"],
)
def test_a_full_disk_is_one_sentence_whoever_notices_it(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(DiskFullError, match=r"file cannot be written: the disk is full"), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("links", [pytest.param(True, id="hard-links"), pytest.param(False, id="without")])
def test_renaming_never_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:

        def refuse(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr("os.link", refuse)
    for content, created in (("first", True), ("second", False)):
        temporary = tmp_path / ".tmp"
        temporary.write_text(content)
        assert rename_without_replacing(temporary, tmp_path / "final") is created
        assert not temporary.exists()
    assert (tmp_path / "final").read_text() == "first"
