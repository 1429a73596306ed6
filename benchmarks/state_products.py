"""What `--precision bfloat16` saves on a CPU: the side network's forward and backward pass over a step's items.

    python benchmarks/state_products.py --layers 12 --state-width 768

Prints its time with float32 states as a multiple of that with bfloat16 ones, best of several, and what it takes with
bfloat16 ones if their number changes in each step, as it is and made a multiple of 64.
"""

from __future__ import annotations

import click
import torch
from timing import best_of
from torch import Tensor

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
    """Time float32 against bfloat16, and numbers of items as they come against multiples."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = SideNetwork(layers, state_width, AdaptOptions.width, integration=AdaptOptions.side)
    states, gradient = made_up(items, layers, state_width)
    wide, narrow = (
        best_of(lambda given=each: network(given).backward(gradient), 20) for each in (states, states.bfloat16())
    )
    click.echo(f"{layers} layers of {state_width}, {items:,} items: {wide / narrow:.2f} ×")
    ratio = time_in_multiples(network, items, layers, state_width)
    click.echo(f"about {items:,} items, another number each time: {ratio:.2f} × in multiples of 64")


def made_up(items: int, layers: int, state_width: int) -> tuple[Tensor, Tensor]:
    """Random states of items, and gradients of their vectors."""
    return torch.randn(layers, items, state_width), torch.randn(items, AdaptOptions.width)


def time_in_multiples(network: SideNetwork, items: int, layers: int, state_width: int) -> float:
    """Time of numbers of items about this one made a multiple of 64, as a multiple of their time as they are."""
    seconds = dict.fromkeys((1, side_network._ITEMS_MULTIPLE), 0.0)
    for number in range(items - 30, items + 30):
        states, gradient = made_up(number, layers, state_width)
        narrow = states.bfloat16()
        for multiple in seconds:
            side_network._ITEMS_MULTIPLE = multiple
            seconds[multiple] += best_of(lambda given=narrow, at=gradient: network(given).backward(at), 1)
    as_they_are, rounded = seconds.values()
    return rounded / as_they_are


if __name__ == "__main__":
    main()
