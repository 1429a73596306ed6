"""How long the full softmax takes with chunks of different sizes, against PyTorch's cross_entropy on whole logits.

    python benchmarks/loss_chunks.py

Prints ratios to the size that ssna uses on this device: forward and backward, best of several.
"""

from __future__ import annotations

import click
import torch
from timing import best_of
from torch.nn import functional

from ssna.stage2_adapt import losses


@click.command()
@click.option("--positions", default=6000, show_default=True)
@click.option("--items", default=1678, show_default=True)
@click.option("--width", default=64, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(positions: int, items: int, width: int, threads: int) -> None:
    """Time each chunk size."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    states = (14 * functional.normalize(torch.randn(positions, width))).requires_grad_()
    vectors = functional.normalize(torch.randn(items, width)).requires_grad_()
    targets = torch.randint(0, items, (positions,))
    used = losses.CHUNK_SCORES["cpu"]
    seconds = {}
    for chunk in (2**exponent for exponent in range(17, 25)):
        losses.CHUNK_SCORES["cpu"] = chunk
        seconds[f"{chunk:,} logits"] = best_of(lambda: losses.softmax_loss(states, vectors, targets).backward())
    reference = seconds[f"{used:,} logits"]
    seconds["cross_entropy on whole logits"] = best_of(
        lambda: functional.cross_entropy(states @ vectors.T, targets).backward()
    )
    for name, value in seconds.items():
        click.echo(f"{name:32s} {value / reference:.2f} ×")


if __name__ == "__main__":
    main()
