"""What `--precision bfloat16` saves on a CPU: the side network's forward and backward pass over a step's items.

    python benchmarks/state_products.py --layers 12 --state-width 768

Prints its time with float32 states as a multiple of that with bfloat16 ones, best of several.
"""

from __future__ import annotations

import click
import torch
from timing import best_of

from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.side_network import SideNetwork


@click.command()
@click.option("--items", default=2_400, show_default=True)
@click.option("--layers", default=6, show_default=True)
@click.option("--state-width", default=384, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(items: int, layers: int, state_width: int, threads: int) -> None:
    """Time both."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    width = AdaptOptions.width
    network = SideNetwork(layers, state_width, width, integration=AdaptOptions.side)
    states, gradient = torch.randn(layers, items, state_width), torch.randn(items, width)
    wide, narrow = (
        best_of(lambda given=each: network(given).backward(gradient), 20) for each in (states, states.bfloat16())
    )
    click.echo(f"{layers} layers of {state_width}, {items:,} items: {wide / narrow:.2f} ×")


if __name__ == "__main__":
    main()
