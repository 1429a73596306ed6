"""Elements made ahead of their use."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ssna.cache import ahead


def test_the_next_element_is_made_while_one_is_used() -> None:
    made, go_on = [], threading.Event()

    def elements() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            if number == 1:
                go_on.set()
            yield number

    coming = ahead(elements())
    assert next(coming) == 0
    assert go_on.wait(timeout=30)
    assert list(coming) == [1, 2]
    assert made == [0, 1, 2]


def test_an_error_in_making_an_element_arrives_in_its_place() -> None:
    def elements() -> Iterator[int]:
        yield 1
        raise ValueError("made up")

    coming = ahead(elements())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="made up"):
        next(coming)
