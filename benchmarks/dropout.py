"""Time of dropout, forward and backward, against PyTorch's own (docs/performance.md).

python benchmarks/dropout.py
"""

from __future__ import annotations

import click
import torch
from timing import best_of
from torch import nn

from ssna.stage2_adapt.dropout import Dropout


@click.command()
def main() -> None:
    """Print the ratio for a batch of 128 sequences of 50 states of width 64."""
    torch.set_num_threads(2)
    values = torch.randn(128, 50, 64, requires_grad=True)
    seconds = {
        type(module).__module__: best_of(lambda module=module: module(values).sum().backward())
        for module in (Dropout(0.2), nn.Dropout(0.2))
    }
    ours, theirs = seconds.values()
    print(f"PyTorch's dropout takes {theirs / ours:.1f} times as long")


if __name__ == "__main__":
    main()
