"""Read-only memory mappings that keep no file descriptor, so that a cache of any number of segments can be open."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def map_file(path: Path) -> Bytes:
    """The file's bytes as a read-only array; pages are read when touched and shared between processes.

    Raises:
        FileNotFoundError: if the file is gone.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return np.empty(0, np.uint8)
        return _map_posix(descriptor, size) if os.name == "posix" else _map_portable(descriptor, size)
    finally:
        os.close(descriptor)


def expect_reads(mapped: npt.NDArray[np.generic], scattered: bool) -> None:
    """Say whether a mapped array is about to be read here and there, or from one end to the other.

    By default the system reads and maps far more than a page around each one that is touched. For scattered rows that
    is many times what is wanted: of the disk, when they are not in memory yet, and of this process's memory.
    """
    if os.name == "posix":
        _advise(mapped, mmap.MADV_RANDOM if scattered else mmap.MADV_NORMAL)


def forget_pages(mapped: npt.NDArray[np.generic]) -> None:
    """Let go of the pages of a mapped array; the next touch maps them again. Nothing to do where there is no such call.

    They count as this process's memory otherwise, however little of them is still wanted.
    """
    if os.name == "posix":
        _advise(mapped, mmap.MADV_DONTNEED)


def _advise(mapped: npt.NDArray[np.generic], advice: int) -> None:
    """Advise the system on the pages of a mapped array. It may ignore that, so its answer is not looked at."""
    if not mapped.nbytes:
        return
    address = mapped.ctypes.data
    start = address - address % mmap.PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.madvise(start, address + mapped.nbytes - start, advice)


def _map_portable(descriptor: int, size: int) -> Bytes:
    mapped = np.frombuffer(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ), np.uint8)
    mapped.flags.writeable = False
    return mapped


def _map_posix(descriptor: int, size: int) -> Bytes:
    # Python's own mmap duplicates the descriptor and keeps it (until 3.13's trackfd); the system call does not.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    offset_type = ctypes.c_int64 if sys.maxsize > 2**32 else ctypes.c_long
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, offset_type]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        code = ctypes.get_errno()
        raise OSError(code, f"memory mapping failed: {os.strerror(code)}")
    buffer = (ctypes.c_ubyte * size).from_address(address)
    # The array keeps `buffer` alive, and so does every view of it.
    mapped: Bytes = np.frombuffer(buffer, np.uint8)  # type: ignore[call-overload]
    mapped.flags.writeable = False
    # Not at exit: another finaliser may still read, and the process's end unmaps anyway.
    weakref.finalize(buffer, libc.munmap, address, size).atexit = False
    return mapped
