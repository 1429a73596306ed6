"""Output folders: refused when they hold something, and filled so that a crash leaves nothing half-written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssna.cache import temporary_sibling
from ssna.errors import OutputError


def check_output(path: Path, overwrite: bool, marker: str, what: str) -> None:
    """Return if a folder may be written there.

    Args:
        path: the folder; it may be missing.
        overwrite: whether one of ours may be replaced.
        marker: the file by which a folder of ours is known: no other folder is ever replaced.
        what: what the folder holds, for the message.

    Raises:
        OutputError: if a file stands there, or a folder that holds something and may not be replaced.
    """
    if path.is_file():
        raise OutputError(f"{path} is a file; expected the name of a new or empty folder.")
    if not path.exists() or not any(path.iterdir()):
        return
    if not overwrite:
        raise OutputError(f"{path} exists and is not empty. Give another folder, or --overwrite to replace it.")
    if not (path / marker).exists():
        raise OutputError(
            f"{path} is not empty and is no {what} (it has no {marker}), so --overwrite does not touch it. "
            "Give another folder, or empty it yourself."
        )


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill; on success it takes the place of `path`, on failure it is removed."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            old = temporary_sibling(path)
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
