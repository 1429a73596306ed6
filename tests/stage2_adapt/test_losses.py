"""The losses and their gradients against plain PyTorch, and the correction of sampled candidates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ssna.stage2_adapt import losses
from ssna.stage2_adapt.losses import gbce_loss, gbce_power, softmax_loss
from ssna.stage2_adapt.repeats import AddedScores

P, C = 11, 7
TARGETS = torch.arange(P) % C
# Each position adds to three scores, to some of them twice, and to some to the target's.
COLUMNS = torch.stack([torch.arange(P) % 2, torch.arange(P) % 3, torch.arange(P) % C], dim=1)
LOG_INCLUSION = torch.linspace(-3, 0, C)
DRAWN = torch.tensor([0.0, 1, 2, 0, 1, 3, 0])


def scores_of(states: Tensor, items: Tensor, biases: Tensor, values: Tensor) -> Tensor:
    return (states @ items.T + biases).scatter_add(1, COLUMNS, values)


def full(states: Tensor, items: Tensor, biases: Tensor, values: Tensor) -> Tensor:
    return functional.cross_entropy(scores_of(states, items, biases, values), TARGETS)


def sampled(states: Tensor, items: Tensor, biases: Tensor, values: Tensor) -> Tensor:
    """The target as it is, all others raised by how rarely they are candidates."""
    scores = scores_of(states, items, biases, values)
    own = functional.one_hot(TARGETS, C).bool()
    return functional.cross_entropy(torch.where(own, scores, scores - LOG_INCLUSION), TARGETS)


def gbce(states: Tensor, items: Tensor, biases: Tensor, values: Tensor) -> Tensor:
    scores = scores_of(states, items, biases, values)
    own = functional.one_hot(TARGETS, C).bool()
    positive = -0.3 * functional.logsigmoid(scores[own])
    negative = -(functional.logsigmoid(-scores) * DRAWN * ~own).sum(1)
    return ((positive + negative) / (1 + DRAWN.sum())).mean()


LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "softmax": (full, lambda s, i, b, v: softmax_loss(s, i, TARGETS, b, AddedScores(COLUMNS, v))),
    "sampled": (sampled, lambda s, i, b, v: softmax_loss(s, i, TARGETS, b, AddedScores(COLUMNS, v), LOG_INCLUSION)),
    "gbce": (gbce, lambda s, i, b, v: gbce_loss(s, i, TARGETS, DRAWN, 0.3, b, AddedScores(COLUMNS, v))),
}


@pytest.mark.parametrize("chunk", [1, 40, 10**6])
@pytest.mark.parametrize("name", list(LOSSES))
def test_values_and_gradients_are_those_of_the_plain_formula(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CHUNK_SCORES", {"cpu": chunk})
    monkeypatch.setattr(losses, "_FEWEST_ROWS", 1)
    torch.manual_seed(0)
    inputs = [torch.randn(P, 4), torch.randn(C, 4), torch.randn(C), torch.randn(P, 3)]
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
