"""How long the side network takes in blocks of items of different sizes, forward and backward, on a CPU.

    python benchmarks/side_blocks.py

Prints ratios to the block size that ssna uses; best of several.
"""

from __future__ import annotations

import click
import torch
from timing import best_of

from ssna.stage2_adapt import item_encoder
from ssna.stage2_adapt.item_encoder import ItemEncoder, encode
from ssna.stage2_adapt.options import AdaptOptions


@click.command()
@click.option("--items", default=16_912, show_default=True)
@click.option("--layers", default=6, show_default=True)
@click.option("--state-width", default=384, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(items: int, layers: int, state_width: int, threads: int) -> None:
    """Time each block size."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    states = torch.randn(layers, items, state_width)
    encoder, numbers = ItemEncoder([(layers, state_width)], items, AdaptOptions()), torch.arange(1, items + 1)
    gradient = torch.randn(items, AdaptOptions().width)
    used, seconds = item_encoder.CPU_BLOCK_ITEMS, {}
    for block in (256, 512, 1024, 2048, 4096, items):
        item_encoder.CPU_BLOCK_ITEMS = block
        encoder.zero_grad()
        seconds[block] = best_of(
            lambda: encode(encoder, lambda first, last: [states[:, first:last]], numbers, False).backward(gradient)
        )
    for block, value in seconds.items():
        click.echo(f"{block:>8,} items {value / seconds[used]:.2f} ×")


if __name__ == "__main__":
    main()
