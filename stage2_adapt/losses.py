"""Losses over candidate items, computed in chunks of positions.

Each takes the scores ``scale * states @ items.T`` of P positions over C candidate items, among which every position's
target is. The scores of all positions are never held at once, nor computed twice: their gradient is known as soon as
they are, so both matrix products that need it are done in the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Scores held at once. On a CPU they stay in its cache between the passes over them, which takes half the time of
# whole scores (benchmarks/loss_chunks.py); a GPU wants fewer, larger kernels.
_CHUNK_SCORES = {"cpu": 2**19}
_CHUNK_SCORES_ELSEWHERE = 2**26
_FEWEST_ROWS = 32

_LossAndGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From scores float32 (p, C), which it may overwrite, and target columns (p, 1): the summed loss, and its gradient."""


class _ChunkedLoss(torch.autograd.Function):
    """Mean over positions of a loss of their scores."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, items: Tensor, targets: Tensor, scale: Tensor, loss_and_gradient: _LossAndGradient
    ) -> Tensor:
        states, items = states.float(), items.float()  # Under mixed precision these products are of its dtype anyway.
        grad_states = torch.empty_like(states)
        grad_items = torch.zeros_like(items)
        grad_scale = torch.zeros_like(scale)
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        chunk_scores = _CHUNK_SCORES.get(states.device.type, _CHUNK_SCORES_ELSEWHERE)
        rows = max(_FEWEST_ROWS, chunk_scores // len(items))
        share = 1 / len(states)
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            chunk = states[part]
            scaled = chunk * scale
            loss, grad = loss_and_gradient((scaled @ items.T).float(), targets[part, None])
            total += loss
            grad = grad.mul_(share).to(items.dtype)
            grad_scaled = grad @ items
            grad_items.addmm_(grad.T, scaled)
            grad_states[part] = grad_scaled * scale
            grad_scale += (grad_scaled * chunk).sum()
        ctx.save_for_backward(grad_states, grad_items, grad_scale)
        return total * share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, Tensor, None]:
        grad_states, grad_items, grad_scale = ctx.saved_tensors
        return grad_states * grad, grad_items * grad, None, grad_scale * grad, None


def softmax_loss(
    states: Tensor, items: Tensor, targets: Tensor, scale: Tensor, log_inclusion: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of the targets under a softmax over the candidates; a scalar in float32.

    Args:
        states: ``(P, d)``, one a position to predict.
        items: ``(C, d)``, vectors of the candidates.
        targets: ``(P,)``, row in `items` of the item that came next.
        scale: scalar; the scores are ``scale * states @ items.T``.
        log_inclusion: ``(C,)``, of candidates that are a sample of all items, the logarithm of the probability with
            which each came into it. It is taken off the scores of all but the target, so that the sum over the sample
            estimates that over all items without bias (the logQ correction of Bengio and Senécal 2008 and Yi et al.,
            RecSys 2019, for candidates that count once however often they were drawn). None for all items.
    """

    def loss_and_gradient(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        wanted = scores.gather(1, target)
        if log_inclusion is not None:
            scores = scores.sub_(log_inclusion).scatter_(1, target, wanted)
        log_norm = scores.logsumexp(dim=1, keepdim=True)
        loss = (log_norm - wanted).sum()
        softmax = scores.sub_(log_norm).exp_()
        return loss, softmax.scatter_add_(1, target, torch.full_like(target, -1, dtype=softmax.dtype))

    return _apply(states, items, targets, scale, loss_and_gradient)


def gbce_loss(states: Tensor, items: Tensor, targets: Tensor, scale: Tensor, drawn: Tensor, power: float) -> Tensor:
    """Mean generalised binary cross-entropy (Petrov and Macdonald, arXiv 2308.07192, equation 7); float32.

    Args:
        states: ``(P, d)``, one a position to predict.
        items: ``(C, d)``, vectors of the candidates.
        targets: ``(P,)``, row in `items` of the item that came next.
        scale: scalar; the scores are ``scale * states @ items.T``.
        drawn: float ``(C,)``, how often each candidate was drawn as a negative; a target is never its own negative.
        power: beta, of the probability of the target; see `gbce_power`.
    """
    share = 1 / (1 + float(drawn.sum()))

    def loss_and_gradient(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        wanted = scores.gather(1, target)
        weights = drawn.expand_as(scores).scatter(1, target, 0)
        loss = (weights * functional.softplus(scores)).sum() + power * functional.softplus(-wanted).sum()
        grad = scores.sigmoid_().mul_(weights).scatter_(1, target, -power * torch.sigmoid(-wanted))
        return loss * share, grad.mul_(share)

    return _apply(states, items, targets, scale, loss_and_gradient)


def gbce_power(num_negatives: int, num_items: int, calibration: float) -> float:
    """Beta: how calibrated scores shall be, from 0 (as drawn) to 1 (as probabilities); arXiv 2308.07192, equation 9."""
    rate = min(1.0, num_negatives / max(1, num_items - 1))
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


def _apply(
    states: Tensor, items: Tensor, targets: Tensor, scale: Tensor, loss_and_gradient: _LossAndGradient
) -> Tensor:
    loss: Tensor = _ChunkedLoss.apply(states, items, targets, scale, loss_and_gradient)  # type: ignore[no-untyped-call]
    return loss
