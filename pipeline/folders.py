"""What is written to: refused when it holds something, and folders filled so that a crash leaves none half-written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ssna.cache import fsync_file, fsync_folder, sweep_leftovers, telling_when_full, temporary_sibling
from ssna.errors import OutputError


def check_output(path: Path, overwrite: bool, is_ours: Callable[[Path], bool], what: str) -> None:
    """Return if our files may be written to a folder.

    Args:
        path: the folder; it may be missing.
        overwrite: whether files of ours that are there may be replaced.
        is_ours: tells a folder that ssna made from all others, which are never touched.
        what: what the folder holds, for the message.

    Raises:
        OutputError: if a file stands there, or a folder that holds something and may not be replaced.
    """
    check_no_file(path)
    if not path.exists() or not any(path.iterdir()):
        return
    if not overwrite:
        raise OutputError(f"{path} exists and is not empty. Give another folder, or --overwrite to replace it.")
    if not is_ours(path):
        raise OutputError(
            f"{path} is not empty and is no {what}, so --overwrite does not touch it. Give another folder, or empty it "
            "yourself."
        )


def check_output_file(path: Path, overwrite: bool, is_ours: Callable[[Path], bool], what: str) -> None:
    """Return if a file of ours may be written.

    Args:
        path: the file; it may be missing.
        overwrite: whether a file of ours that is there may be replaced.
        is_ours: tells a file that ssna made from all others, which are never touched.
        what: what the file is, for the message.

    Raises:
        OutputError: if a folder stands there, or a file that may not be replaced.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; expected the name of a file to write.")
    if not path.exists():
        return
    if not overwrite:
        raise OutputError(f"{path} exists. Give another --output, or --overwrite to replace it.")
    if not is_ours(path):
        raise OutputError(f"{path} is no {what} of ours, so --overwrite does not touch it. Give another --output.")


def check_no_file(path: Path) -> None:
    """Return if no file stands where a folder is to be written.

    Raises:
        OutputError: if one does.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; expected the name of a new or empty folder to write to.")


@contextmanager
def filling(path: Path, names: Sequence[str]) -> Iterator[Path]:
    """A temporary folder to write files to; on success they take their place in `path`, on failure nothing changes.

    The last of the names marks the folder as complete: it is removed first and comes back last. Other files in `path`
    stay as they are.
    """
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(path)
    temporary = temporary_sibling(path / names[-1])
    temporary.mkdir()
    try:
        with telling_when_full(path):
            yield temporary
            for name in names:
                fsync_file(temporary / name)
        (path / names[-1]).unlink(missing_ok=True)
        for name in names:
            (temporary / name).replace(path / name)
        fsync_folder(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_new and not any(path.iterdir()):
            path.rmdir()
        raise
    temporary.rmdir()
