"""Between float32 states and the dtype they are stored in.

A state x is stored as ``round(x / scale)`` with one scale per row and layer. float16 uses powers of two, and only
where a value would overflow (decoder LLMs have massive activations above 65,504), so that every other row is the
plain rounding of its states. int8 maps the largest value of the row and layer to 127.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

StoredDtype = Literal["float16", "float32", "int8"]
STORED_DTYPES: tuple[StoredDtype, ...] = get_args(StoredDtype)

Floats = npt.NDArray[np.float32]

_FLOAT16_MAX = 65504.0
_INT8_MAX = 127.0


def row_bytes(layers: int, width: int, dtype: StoredDtype) -> int:
    """Bytes of one row on disk: the states, and beside them scales, key, token count, mark and checksum."""
    return layers * width * np.dtype(dtype).itemsize + 4 * layers + 16 + 4 + 1 + 8


def encode(states: Floats, dtype: StoredDtype) -> tuple[npt.NDArray[np.generic], Floats]:
    """Stored values ``(n, A, D)`` and scales ``(n, A)`` of finite float32 states ``(n, A, D)``."""
    scales = np.ones(states.shape[:2], np.float32)
    if dtype == "float32":
        return states.astype(np.float32, copy=False), scales
    largest = np.abs(states).max(axis=2)  # (n, A)
    if dtype == "int8":
        # Rows smaller than any normal float32 scale count as zeros, at scale 1.
        np.divide(largest, _INT8_MAX, out=scales, where=largest > _INT8_MAX * np.finfo(np.float32).tiny)
        scaled = states / scales[:, :, None]
        return np.rint(scaled).clip(-_INT8_MAX, _INT8_MAX).astype(np.int8), scales
    mantissas, exponents = np.frexp(largest / np.float32(_FLOAT16_MAX))
    exponents -= mantissas == 0.5  # The quotient is a power of two itself.
    np.ldexp(np.float32(1), exponents, out=scales, where=largest > _FLOAT16_MAX)
    if (scales != 1).any():
        states = states / scales[:, :, None]
    return states.astype(np.float16), scales


def decode(stored: npt.NDArray[np.generic], scales: Floats) -> Floats:
    """float32 states ``(n, A, D)`` from stored values ``(n, A, D)`` and scales ``(n, A)``."""
    states: Floats = stored.astype(np.float32)
    if (scales != 1).any():
        states *= scales[:, :, None]
    return states
