"""Dropout that is fast on a CPU too, where PyTorch's own draws each value's fate with a generator of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_LANES = 4  # 16-bit numbers in each 64-bit one that is drawn
_NUMBERS = 2**16


class Dropout(nn.Module):
    """In training, sets a share of the values to zero and scales the others up, so that the expectation stays.

    On a CPU one random 64-bit number decides about four values, which is several times as fast (benchmarks/dropout.py);
    the share is a multiple of 2^-16.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """Values of the same shape."""
        if not self.training or not self.share:
            return values
        if values.device.type != "cpu":
            return functional.dropout(values, self.share)
        dropped = round(self.share * _NUMBERS)
        drawn = torch.empty(-(-values.numel() // _LANES), dtype=torch.int64).random_(-(2**63), None)
        numbers = drawn.view(torch.int16)[: values.numel()].view(values.shape)
        factors = (numbers >= dropped - _NUMBERS // 2).to(values.dtype).mul_(_NUMBERS / (_NUMBERS - dropped))
        return values * factors
