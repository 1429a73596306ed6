"""Dropout: which share of the values goes, and what is made of the others."""

from __future__ import annotations

import pytest
import torch

from ssna.stage2_adapt.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_so_many_values_are_dropped_and_the_others_scaled_up(share: float) -> None:
    torch.manual_seed(0)
    values = torch.ones(501, 401, requires_grad=True)  # No multiple of four.
    dropped = Dropout(share)(values)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], torch.full((int(kept.sum()),), 1 / (1 - share)), rtol=1e-4, atol=0)
    deviation = (share * (1 - share) / values.numel()) ** 0.5
    assert abs(1 - kept.float().mean() - share) < 5 * deviation
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped), "the gradient takes the way of the values"


def test_values_fall_independently_of_their_neighbours_and_of_the_time_before() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(2, 4000)) != 0).float()
    again = (Dropout(0.5)(torch.ones(2, 4000)) != 0).float()
    for one, other in [
        (kept[0], kept[1]),
        (kept, again),
        *((kept[:, step:], kept[:, :-step]) for step in (1, 2, 3, 4)),
    ]:
        assert abs((one * other).mean() - 0.25) < 5 * (0.25 * 0.75 / one.numel()) ** 0.5


def test_the_seed_decides_and_nothing_is_dropped_outside_training() -> None:
    module, values = Dropout(0.3), torch.randn(7, 5)
    torch.manual_seed(1)
    first = module(values)
    torch.manual_seed(1)
    assert torch.equal(module(values), first)
    assert module.eval()(values) is values
    assert Dropout(0.0)(values) is values
