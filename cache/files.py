"""Writing so that nothing is ever half-written: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ssna.cache.errors import CacheError, DiskFullError

if sys.platform != "win32":
    import fcntl

TEMPORARY_PREFIX = ".tmp-"
_LEFTOVER_SECONDS = 3600
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def temporary_sibling(path: Path) -> Path:
    """A name beside `path` that nobody else uses and that no reader takes for a finished file."""
    return path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"


def fsync_file(path: Path) -> None:
    """Return once the bytes of the file are on disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    """Return once the entries of the folder are on disk (a no-op where folders cannot be opened)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def telling_when_full(path: Path) -> Iterator[None]:
    """Turn what the libraries that write to `path` raise on a full disk into one sentence.

    Raises:
        DiskFullError: if the disk, a quota or a limit of file sizes is exhausted.
    """
    try:
        yield
    except Exception as error:
        codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        # Not only OSError: HDF5, Polars and safetensors say it in the text of errors of their own.
        said = [os.strerror(errno.ENOSPC), *(f"errno = {code}," for code in codes)]
        if getattr(error, "errno", None) not in codes and not any(words in str(error) for words in said):
            raise
        raise DiskFullError(
            f"{path} cannot be written: the disk is full. Free some and run the same command again; what was committed "
            "before is kept."
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on success it becomes `path` in one step, on failure it is removed."""
    temporary = temporary_sibling(path)
    try:
        with telling_when_full(path):
            yield temporary
            fsync_file(temporary)
        temporary.replace(path)
        fsync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write the whole file or nothing; text is written as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def lock(file: BinaryIO, wait: bool) -> bool:
    """Keep out whoever else locks this file, until it is closed; does nothing where there are no such locks.

    Args:
        file: open for writing, without which NFS gives no lock; nothing is written to it.
        wait: for another who has it.

    Returns:
        False if another has it and nobody waited.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # A file system without locks.
            pass
    return True


def check_writable(folder: Path) -> None:
    """Make sure, before hours of work, that files can be made in this folder of a cache or cache root.

    Raises:
        CacheError: if not.
    """
    probe = temporary_sibling(folder / "probe")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CacheError(
            f"{folder} cannot be written ({error.strerror}), and texts are missing from the cache. Make it writable or "
            "choose another --cache-root."
        ) from error


def sweep_leftovers(folder: Path) -> None:
    """Remove what a crash left unfinished over an hour ago, by the clock of the machine that keeps the files."""
    leftovers = list(folder.glob(f"{TEMPORARY_PREFIX}*"))
    if not leftovers:
        return
    probe = temporary_sibling(folder / "clock")
    try:
        probe.touch()
        now = probe.stat().st_mtime
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    for path in leftovers:
        with suppress(OSError):
            if now - path.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def signals_held_back() -> Iterator[None]:
    """A second Ctrl-C or SIGTERM waits until this is done: the first one often comes with another close behind it."""
    if threading.current_thread() is not threading.main_thread():  # Only there are signals handled.
        yield
        return
    came = list[int]()
    # None: a handler that was not set from Python, which cannot be put back.
    before = {int(number): handler for number in _SIGNALS if (handler := signal.getsignal(number)) is not None}
    for number in before:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def rename_without_replacing(temporary: Path, path: Path) -> bool:
    """Give a finished, fsynced file its name unless that name is taken.

    Returns:
        Whether the file now has the name; if not, the temporary file is removed and `path` is untouched.
    """
    try:
        os.link(temporary, path)
        created = True
    except FileExistsError:
        created = False
    except OSError:  # A file system without hard links.
        created = not path.exists()
        if created:
            temporary.rename(path)
    temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return created


def sha256_of_file(path: Path) -> str:
    """SHA-256 of the file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
