"""What `--precision bfloat16` saves on a CPU: the side network's forward and backward pass over a step's items.

    python benchmarks/state_products.py --layers 12 --state-width 768

Prints its time with float32 states as a multiple of that with bfloat16 ones, best of several, and what it takes with
bfloat16 ones if their number changes in each step, as it is and made a multiple of 64.
"""

from __future__ import annotations

import time

import click
import torch
from timing import best_of

import ssna.cli  # noqa: F401  # What it tells PyTorch's libraries, as every command does.
from ssna.stage2_adapt import side_network
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
    seconds = dict.fromkeys((1, side_network._ITEMS_MULTIPLE), 0.0)
    for number in range(items - 30, items + 30):
        given, gradient = torch.randn(layers, number, state_width).bfloat16(), torch.randn(number, width)
        for multiple in seconds:
            side_network._ITEMS_MULTIPLE = multiple
            started = time.perf_counter()
            network(given).backward(gradient)
            seconds[multiple] += time.perf_counter() - started
    as_it_is, rounded = seconds.values()
    click.echo(f"about {items:,} items, another number each time: {rounded / as_it_is:.2f} × in multiples of 64")


if __name__ == "__main__":
    main()
