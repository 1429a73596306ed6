"""Full softmax over all training items, in chunks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits held at once. On a CPU they stay in its cache between the passes over them, which takes half the time of
# whole logits (benchmarks/loss_chunks.py); a GPU wants fewer, larger kernels.
_CHUNK_LOGITS = {"cpu": 2**19}
_CHUNK_LOGITS_ELSEWHERE = 2**26
_FEWEST_ROWS = 32


class _FullSoftmax(torch.autograd.Function):
    """Cross-entropy whose gradients are computed chunk by chunk in the forward pass.

    The logits ``(P, N)`` of all positions are never held at once, nor computed twice: the gradient of a chunk's
    logits is known as soon as they are, so both matrix products that need it are done then.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, items: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        grad_states = torch.empty_like(states)
        grad_items = torch.zeros_like(items)
        grad_scale = torch.zeros_like(scale)
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        chunk_logits = _CHUNK_LOGITS.get(states.device.type, _CHUNK_LOGITS_ELSEWHERE)
        rows = max(_FEWEST_ROWS, chunk_logits // len(items))
        share = 1 / len(states)
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            chunk, target = states[part], targets[part, None]
            scaled = chunk * scale
            logits = (scaled @ items.T).float()  # (p, N)
            log_norm = logits.logsumexp(dim=1, keepdim=True)
            total += (log_norm - logits.gather(1, target)).sum()
            grad = logits.sub_(log_norm).exp_()  # Softmax; the target's one is taken off, then it is the gradient.
            grad.scatter_add_(1, target, torch.full_like(target, -1, dtype=grad.dtype))
            grad = grad.mul_(share).to(items.dtype)
            grad_scaled = grad @ items
            grad_items.addmm_(grad.T, scaled)
            grad_states[part] = grad_scaled * scale
            grad_scale += (grad_scaled * chunk).sum()
        ctx.save_for_backward(grad_states, grad_items, grad_scale)
        return total * share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, Tensor]:
        grad_states, grad_items, grad_scale = ctx.saved_tensors
        return grad_states * grad, grad_items * grad, None, grad_scale * grad


def full_softmax_loss(states: Tensor, items: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Mean cross-entropy of the targets under a softmax over all items; a scalar in float32.

    Memory beyond inputs and gradients does not grow with positions times items.

    Args:
        states: ``(P, d)``, one a position to predict.
        items: ``(N, d)``, the embeddings of all training items.
        targets: ``(P,)``, row in `items` of the item that came next.
        scale: scalar; the scores are ``scale * states @ items.T``.
    """
    loss: Tensor = _FullSoftmax.apply(states, items, targets, scale)  # type: ignore[no-untyped-call]
    return loss
