"""The optimiser, its learning rate, and when its steps have failed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssna.cache import SsnaError
from ssna.stage2_adapt.options import AdaptOptions


class TrainingError(SsnaError):
    """Training cannot start or go on."""


def make_optimizer(modules: nn.Module, options: AdaptOptions) -> torch.optim.Optimizer:
    """AdamW that decays matrices but neither biases, norms nor the scale."""
    matrices, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in modules.named_parameters():
        # The biases of all layers' adapters stand together in one parameter of several dimensions.
        (others if parameter.ndim < 2 or name.endswith("bias") else matrices).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)


def learning_rate_at(step: int, steps_an_epoch: int, options: AdaptOptions) -> float:
    """Of a step, counted from 0 over all epochs: what the warm-up and the schedule leave of the highest one."""
    factor = min(1.0, (step + 1) / options.warmup) if options.warmup else 1.0
    total = options.epochs * steps_an_epoch
    if options.schedule == "cosine" and step >= options.warmup:
        done = (step - options.warmup) / max(1, total - options.warmup)
        factor = 0.5 * (1 + math.cos(math.pi * done))
    return options.learning_rate * factor


def kept_of_average(step: int, steps: int, epochs: float) -> float:
    """How much of the average of the parameters before a step stays in that after it.

    An exponential moving average over about so many epochs (Kingma and Ba, arXiv 1412.6980, section 7.2), which takes
    more of each of the first steps, so that where training started is soon forgotten.

    Args:
        step: from 0, since training began.
        steps: of an epoch.
        epochs: of the average, above 0.
    """
    return min(1 - 1 / max(1.0, epochs * steps), (step + 2) / (step + 11))


def check_finite(losses: Sequence[Tensor], norms: Sequence[Tensor], checked: int, epoch: int) -> None:
    """Stop at the first step whose loss or gradient is no finite number; its parameters are lost already.

    Args:
        losses: of the epoch's steps so far.
        norms: of their gradients.
        checked: so many of the first ones were looked at before.
        epoch: its number.

    Raises:
        TrainingError: naming the step.
    """
    for name, values in (("loss", losses), ("gradient", norms)):
        wrong = ~torch.stack(list(values[checked:])).isfinite()
        if wrong.any():
            first = checked + int(wrong.nonzero()[0])
            what = "NaN" if values[first].isnan() else "infinite"
            raise TrainingError(
                f"the {name} became {what} in step {first + 1} of epoch {epoch}. The checkpoint of the epochs before, "
                "if any, is kept: train again with a lower --learning-rate (and --overwrite), or take the best of them "
                "by --resume --time-limit 1."
            )
