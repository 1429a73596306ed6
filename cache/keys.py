"""Row keys: which text a row of layer states belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

KEY_BYTES = 16
_KEYS_AT_ONCE = 2**20

Keys = npt.NDArray[np.uint8]  # (n, 16)


def keys_of_texts(texts: Iterable[str]) -> Keys:
    """The first 128 bits of each text's SHA-256, uint8 ``(n, 16)``; equal texts have equal keys."""
    joined = b"".join(hashlib.sha256(text.encode()).digest()[:KEY_BYTES] for text in texts)
    return np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES)


def split_key(keys: Keys) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The high and low 64 bits of each key, as two native integers ``(n,)`` that sort like the bytes."""
    halves = np.ascontiguousarray(keys).view(">u8").astype(np.uint64)  # (n, 2)
    return np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])


def slices(count: int) -> Iterator[slice]:
    """All positions below `count` in slices, so that what is computed of so many keys at once stays small."""
    for start in range(0, count, _KEYS_AT_ONCE):
        yield slice(start, min(start + _KEYS_AT_ONCE, count))
