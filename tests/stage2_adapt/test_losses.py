"""The losses and their gradients against plain PyTorch, and the correction of sampled candidates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ssna.stage2_adapt import losses
from ssna.stage2_adapt.losses import Windows, gbce_loss, gbce_power, softmax_loss

P, C = 11, 7
# Four sequences, of which two are shorter; -1 is padding. Of the positions one knows an item twice, and one its target.
COLUMNS = torch.tensor([[0, 1, 2, 3], [4, 4, 4, 5], [6, 5, 0, -1], [3, 2, 3, 1]])
SEQUENCE = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3])
PLACE = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2])
TARGETS = COLUMNS[SEQUENCE, PLACE + 1]
WINDOWS = Windows(COLUMNS, SEQUENCE, PLACE)
LOG_INCLUSION = torch.linspace(-3, 0, C)
DRAWN = torch.tensor([0.0, 1, 2, 0, 1, 3, 0])


def scores_of(states: Tensor, items: Tensor, biases: Tensor, by_age: Tensor) -> Tensor:
    rows = list((states @ items.T + biases).unbind())
    for position, (sequence, place) in enumerate(zip(SEQUENCE.tolist(), PLACE.tolist(), strict=True)):
        for earlier in range(place + 1):
            item = functional.one_hot(COLUMNS[sequence, earlier], C)
            rows[position] = rows[position] + by_age[min(place - earlier, len(by_age) - 1)] * item
    return torch.stack(rows)


def full(*inputs: Tensor) -> Tensor:
    return functional.cross_entropy(scores_of(*inputs), TARGETS)


def sampled(*inputs: Tensor) -> Tensor:
    """The items of the position's own window as they are, all others raised by how rarely they are candidates."""
    scores = scores_of(*inputs)
    own = torch.stack([torch.isin(torch.arange(C), COLUMNS[sequence]) for sequence in SEQUENCE])
    return functional.cross_entropy(torch.where(own, scores, scores - LOG_INCLUSION), TARGETS)


def gbce(*inputs: Tensor) -> Tensor:
    scores = scores_of(*inputs)
    own = functional.one_hot(TARGETS, C).bool()
    positive = -0.3 * functional.logsigmoid(scores[own])
    negative = -(functional.logsigmoid(-scores) * DRAWN * ~own).sum(1)
    return ((positive + negative) / (1 + DRAWN.sum())).mean()


LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "softmax": (full, lambda s, i, b, a: softmax_loss(s, i, TARGETS, biases=b, windows=WINDOWS, by_age=a)),
    "sampled": (
        sampled,
        lambda s, i, b, a: softmax_loss(
            s, i, TARGETS, biases=b, windows=WINDOWS, by_age=a, log_inclusion=LOG_INCLUSION
        ),
    ),
    "gbce": (gbce, lambda s, i, b, a: gbce_loss(s, i, TARGETS, DRAWN, 7, 0.3, biases=b, windows=WINDOWS, by_age=a)),
}


@pytest.mark.parametrize("chunk", [1, 40, 10**6])
@pytest.mark.parametrize("name", list(LOSSES))
def test_values_and_gradients_are_those_of_the_plain_formula(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK_SCORES", {"cpu": chunk})
    monkeypatch.setattr(losses, "FEWEST_ROWS", 1)
    torch.manual_seed(0)
    inputs = [torch.randn(P, 4), torch.randn(C, 4), torch.randn(C), torch.randn(2)]
    ours, theirs = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))
    plain, chunked = LOSSES[name]
    loss, reference = chunked(*ours), plain(*theirs)
    torch.testing.assert_close(loss, reference)
    (loss * 2).backward()
    (reference * 2).backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_the_power_of_gbce_goes_from_one_to_the_share_that_is_drawn() -> None:
    assert gbce_power(10, 101, 0.0) == pytest.approx(1.0)
    assert gbce_power(10, 101, 1.0) == pytest.approx(0.1)
    assert gbce_power(10, 101, 0.75) == pytest.approx(0.1 * (0.75 * (1 - 10) + 10))
    assert gbce_power(500, 101, 0.75) == pytest.approx(1.0), "all items are drawn"
