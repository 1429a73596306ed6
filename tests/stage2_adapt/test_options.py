"""Options that do not fit are refused with what was found and expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssna.stage2_adapt import AdaptOptions, OptionError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "bert4rec"}, "--model bert4rec: expected one of sasrec, gru4rec, hstu, fmlp, popularity"),
        ({"side": "lstm"}, "--side lstm: expected one of gru, gate, residual, mean, concat, last, frozen, none"),
        ({"split": "random"}, "--split random: expected one of leave-one-out, leave-last-K, time"),
        ({"candidates": "100"}, "--candidates 100: expected one of interacted, all"),
        ({"batch_size": 0}, "--batch-size 0: expected at least 1"),
        ({"layers": 0}, "--layers 0: expected at least 1"),
        ({"layers": 2, "side": "none"}, "--layers 2 goes with a side network"),
        ({"item_id": True, "model": "popularity"}, "--item-id adds IDs to the text of a side network"),
        ({"width": 30, "heads": 4}, "--width 30 cannot be divided among --heads 4"),
        ({"dropout": 1.0}, "--dropout 1: expected a share"),
        ({"id_dropout": 1.0}, "--id-dropout 1: expected a share"),
        ({"learning_rate": float("nan")}, "--learning-rate nan: expected a finite number"),
        ({"seed": -1}, "--seed -1: expected a whole number"),
        ({"seed": 2**64}, "--seed 18446744073709551616: expected a whole number"),
        ({"learning_rate": 0.0}, "--learning-rate 0"),
        ({"epochs": "5"}, "--epochs '5': expected a whole number"),
        ({"seed": 1.5}, "--seed 1.5: expected a whole number"),
        ({"dropout": "0.2"}, "--dropout '0.2': expected a number"),
        ({"item_id": 1}, "--item-id 1: expected True or False"),
        ({"layers": "2"}, "--layers '2': expected a whole number"),
        ({"side_width": (32, 64.0)}, "--side-width 64.0: expected a whole number"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        AdaptOptions(**change)  # type: ignore[arg-type]


def test_whole_numbers_are_numbers() -> None:
    assert AdaptOptions(averaging=2, clip=1, layers=(1, None)).averaging == 2


def test_numbers_of_numpy_become_those_of_python() -> None:
    given: Any = {"epochs": np.int64(3), "dropout": np.float32(0.5), "item_id": np.bool_(True), "layers": [np.int8(2)]}
    options = AdaptOptions(**given)
    assert options == AdaptOptions(epochs=3, dropout=0.5, item_id=True, layers=(2,))
    types = {name: type(getattr(options, name)) for name in given}
    assert types == {"epochs": int, "dropout": float, "item_id": bool, "layers": tuple}
    assert isinstance(options.layers, tuple)
    assert type(options.layers[0]) is int
