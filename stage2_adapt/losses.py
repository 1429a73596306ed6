"""Losses over candidate items, computed in chunks of positions.

Each takes the scores ``states @ items.T + biases`` of P positions over C candidate items, among which every position's
target is, and what is added to some of them. The scores of all positions are never held at once, nor computed twice:
their gradient is known as soon as they are, so both matrix products that need it are done in the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ssna.stage2_adapt.repeats import repeats_of

# Scores held at once. On a CPU they stay in its cache between the passes over them, but fewer rows than this make the
# matrix products slower than that saves (benchmarks/loss_chunks.py); a GPU wants fewer, larger kernels.
CHUNK_SCORES = {"cpu": 2**20}
CHUNK_SCORES_ELSEWHERE = 2**26
FEWEST_ROWS = 64


class Windows(NamedTuple):
    """Which place in which sequence of a batch each of P positions is."""

    columns: Tensor
    """``(B, L + 1)``, of the sequences' items among the candidates, oldest first, targets included; -1 is padding"""
    sequence: Tensor
    """``(P,)``"""
    place: Tensor
    """``(P,)``, of the most recent item that is known; the one after it is the target"""


class _Part(NamedTuple):
    """A loss of p positions, and its gradient by their scores: ``weight * others``, less `pull` at each target."""

    loss: Tensor
    """Scalar, summed over the positions"""
    others: Tensor
    """``(p, C)``"""
    weight: Tensor
    """``(p, 1)``"""
    pull: Tensor
    """``(p, 1)``"""


_LossOfScores = Callable[[Tensor, Tensor, Tensor | None], _Part]
"""From scores float32 (p, C), which it may overwrite, target columns (p, 1), and the windows' columns (p, L + 1)."""


class _ChunkedLoss(torch.autograd.Function):
    """Mean over positions of a loss of their scores."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        items: Tensor,
        biases: Tensor,
        targets: Tensor,
        by_age: Tensor | None,
        windows: Windows | None,
        loss_of_scores: _LossOfScores,
        precision: torch.dtype,
    ) -> Tensor:
        states = states.float()
        pulled, items = items.float()[targets], items.to(precision)
        grad_biases, grad_by_age = torch.zeros_like(biases), None if by_age is None else torch.zeros_like(by_age)
        grad_states, grad_items = torch.empty_like(states), torch.zeros_like(items, dtype=torch.float32)
        pull_all = torch.empty(len(states), 1, device=states.device)
        total = torch.zeros((), device=states.device)
        chunk_scores = CHUNK_SCORES.get(states.device.type, CHUNK_SCORES_ELSEWHERE)
        rows = min(len(states), max(FEWEST_ROWS, chunk_scores // len(items)))
        buffer = torch.empty(rows, len(items), dtype=precision, device=states.device)
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            chunk, target = states[part], targets[part, None]
            scores = torch.mm(chunk.to(precision), items.T, out=buffer[: len(chunk)]).float()
            scores.add_(biases)
            own = None if windows is None else windows.columns[windows.sequence[part]]
            if by_age is not None and windows is not None and own is not None:
                columns, age, counted = repeats_of(own, windows.place[part], len(by_age))
                scores.scatter_add_(1, columns, by_age[age] * counted)
            loss, others, weight, pull = loss_of_scores(scores, target, own)
            total += loss
            pull_all[part] = pull
            grad_biases += weight[:, 0] @ others
            if grad_by_age is not None:
                grad = (others.gather(1, columns) * weight - pull * (columns == target)) * counted
                grad_by_age.index_add_(0, age.flatten(), grad.flatten())
            others = others.to(precision)
            grad_states[part] = (others @ items).float() * weight
            if precision == torch.float32:
                grad_items.addmm_(others.T, chunk * weight)
            else:
                grad_items += others.T @ (chunk * weight).to(precision)
        # What the targets pull is a sum over positions, not over positions and candidates: it is left to the end.
        grad_states -= pull_all * pulled
        grad_items.index_add_(0, targets, pull_all * states, alpha=-1)
        grad_biases.index_add_(0, targets, pull_all[:, 0], alpha=-1)
        share = 1 / len(states)
        grads = (grad_states, grad_items, grad_biases, grad_by_age)
        ctx.save_for_backward(*(None if each is None else each.mul_(share) for each in grads))
        return total * share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # In their own memory: nothing reads them twice.
        states, items, biases, by_age = (None if each is None else each.mul_(grad) for each in ctx.saved_tensors)
        return states, items, biases, None, by_age, None, None, None


def softmax_loss(
    states: Tensor,
    items: Tensor,
    targets: Tensor,
    *,
    biases: Tensor | None = None,
    windows: Windows | None = None,
    by_age: Tensor | None = None,
    log_inclusion: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of the targets under a softmax over the candidates; a scalar in float32.

    Args:
        states: ``(P, d)``, one a position to predict.
        items: ``(C, d)``, vectors of the candidates.
        targets: ``(P,)``, row in `items` of the item that came next.
        biases: float32 ``(C,)``, of the candidates, whatever the position; None for none.
        windows: of the positions.
        by_age: ``(L,)``, added to the score of each item that the position knows, by how long ago it came; see
            `RepeatBias`. It goes with `windows`; None for nothing.
        log_inclusion: ``(C,)``, of candidates that are a sample of all items, the logarithm of the probability with
            which each came into it. It is taken off their scores, so that the sum over the sample estimates that over
            all items (the logQ correction of Bengio and Senécal 2008 and Yi et al., RecSys 2019, for candidates that
            count once however often they were drawn); but not off those of the position's own window, which are
            candidates for certain. None for all items.
    """

    def loss_of_scores(scores: Tensor, target: Tensor, own: Tensor | None) -> _Part:
        wanted = scores.gather(1, target)
        if log_inclusion is not None:
            certain = target if own is None else torch.where(own < 0, target, own)
            kept = scores.gather(1, certain)
            scores = scores.sub_(log_inclusion).scatter_(1, certain, kept)
        highest = scores.amax(dim=1, keepdim=True)
        exponentials = scores.sub_(highest).exp_()
        norm = exponentials.sum(dim=1, keepdim=True)
        return _Part((norm.log() + highest - wanted).sum(), exponentials, 1 / norm, torch.ones_like(norm))

    return _apply(states, items, targets, biases, windows, by_age, loss_of_scores)


def gbce_loss(
    states: Tensor,
    items: Tensor,
    targets: Tensor,
    drawn: Tensor,
    num_drawn: int,
    power: float,
    *,
    biases: Tensor | None = None,
    windows: Windows | None = None,
    by_age: Tensor | None = None,
) -> Tensor:
    """Mean generalised binary cross-entropy (Petrov and Macdonald, arXiv 2308.07192, equation 7); float32.

    Args:
        states: ``(P, d)``, one a position to predict.
        items: ``(C, d)``, vectors of the candidates.
        targets: ``(P,)``, row in `items` of the item that came next.
        drawn: float ``(C,)``, how often each candidate was drawn as a negative; a target is never its own negative.
        num_drawn: their sum.
        power: beta, of the probability of the target; see `gbce_power`.
        biases: float32 ``(C,)``, of the candidates, whatever the position; None for none.
        windows: of the positions.
        by_age: ``(L,)``, added to the score of each item that the position knows, by how long ago it came; see
            `RepeatBias`. It goes with `windows`; None for nothing.
    """
    share = 1 / (1 + num_drawn)

    def loss_of_scores(scores: Tensor, target: Tensor, own: Tensor | None) -> _Part:
        wanted = scores.gather(1, target)
        weights = drawn.expand_as(scores).scatter(1, target, 0)
        loss = (weights * functional.softplus(scores)).sum() + power * functional.softplus(-wanted).sum()
        others = scores.sigmoid_().mul_(weights)
        return _Part(loss * share, others, torch.full_like(wanted, share), share * power * torch.sigmoid(-wanted))

    return _apply(states, items, targets, biases, windows, by_age, loss_of_scores)


def gbce_power(num_negatives: int, num_items: int, calibration: float) -> float:
    """Beta: how calibrated scores shall be, from 0 (as drawn) to 1 (as probabilities); arXiv 2308.07192, equation 9."""
    rate = min(1.0, num_negatives / max(1, num_items - 1))
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


def _apply(
    states: Tensor,
    items: Tensor,
    targets: Tensor,
    biases: Tensor | None,
    windows: Windows | None,
    by_age: Tensor | None,
    loss_of_scores: _LossOfScores,
) -> Tensor:
    """The loss; under automatic mixed precision its matrix products are of that dtype, and all else is float32."""
    device = states.device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    biases = items.new_zeros(len(items), dtype=torch.float32) if biases is None else biases
    with torch.autocast(device, enabled=False):
        loss: Tensor = _ChunkedLoss.apply(  # type: ignore[no-untyped-call]
            states, items, biases, targets, by_age, windows, loss_of_scores, precision
        )
    return loss
