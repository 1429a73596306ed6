"""float32 states to their stored form and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ssna.cache.precision import decode, encode

finite = st.floats(-(2.0**127), 2.0**127, width=32)
states = arrays(np.float32, st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 5)), elements=finite)


@given(states)
def test_float16_is_within_half_a_step_of_the_scaled_value(x: np.ndarray) -> None:
    stored, scales = encode(x, "float16")
    assert np.isfinite(stored).all()
    mantissa, _ = np.frexp(scales)
    assert (mantissa == 0.5).all(), "every scale is a power of two"
    overflows = np.abs(x).max(axis=2) > 65504
    np.testing.assert_array_equal(scales != 1, overflows)
    limit = np.maximum(np.abs(x) * 2**-11, 2.0**-25 * scales[:, :, None])
    assert (np.abs(decode(stored, scales).astype(np.float64) - x) <= limit).all()


def test_rows_that_need_no_scale_are_rounded_and_nothing_else() -> None:
    x = np.array([[[1.0001, 65504.0]], [[70000.0, 1.0]]], np.float32)
    stored, scales = encode(x, "float16")
    assert scales.tolist() == [[1.0], [2.0]]
    assert stored[0].tolist() == x[0].astype(np.float16).tolist()
    assert stored[1].tolist() == [[35008.0, 0.5]]


@given(states)
def test_float32_is_exact(x: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(*encode(x, "float32")), x, strict=True)


@given(arrays(np.float32, (2, 2, 4), elements=st.floats(-1e4, 1e4, width=32)))
def test_int8_is_within_half_a_step_of_its_scale(x: np.ndarray) -> None:
    stored, scales = encode(x, "int8")
    assert stored.dtype == np.int8
    assert (np.abs(decode(stored, scales) - x) <= scales[:, :, None] * 0.5001 + 1e-30).all()


def test_int8_keeps_zeros_and_reaches_127() -> None:
    stored, scales = encode(np.array([[[0.0, 0.0], [-2.0, 1.0]]], np.float32), "int8")
    assert stored.tolist() == [[[0, 0], [-127, 64]]]
    assert scales.tolist() == [[1.0, pytest.approx(2 / 127)]]
