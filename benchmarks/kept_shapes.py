"""What it costs in memory and time that oneDNN keeps the code of each shape it has met, on a CPU (docs/performance.md).

    python benchmarks/kept_shapes.py DATASET

Trains on a prepared dataset with made-up states, in processes that keep the code of 1,024 shapes (oneDNN's own number)
and of 16 (what the `ssna` command sets), in turn. Prints the memory of training beyond data and model, and the time of
a step.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import torch
from train import CPU, peak_bytes, training_data

from ssna.corpus import load_corpus
from ssna.dataset import open_dataset
from ssna.stage2_adapt import AdaptOptions, Training

CAPACITIES = (1024, 16)
VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


@click.command()
@click.argument("dataset", type=click.Path(exists=True, path_type=Path))
@click.option("--epochs", default=6, show_default=True)
@click.option("--rounds", default=2, show_default=True)
@click.option("--one", is_flag=True, hidden=True)
def main(dataset: Path, epochs: int, rounds: int, one: bool) -> None:
    """Measure both."""
    if one:
        click.echo(json.dumps(train(dataset, epochs)))
        return
    found: dict[int, list[dict[str, float]]] = {capacity: [] for capacity in CAPACITIES}
    for _ in range(rounds):
        for capacity, measured in found.items():
            command = [sys.executable, Path(__file__), dataset, "--one", "--epochs", str(epochs)]
            done = subprocess.run(
                command, env={**os.environ, VARIABLE: str(capacity)}, stdout=subprocess.PIPE, text=True, check=True
            )
            measured.append(json.loads(done.stdout))
    for capacity, measured in found.items():
        held = statistics.median(each["bytes"] for each in measured) / 2**20
        ratio = statistics.median(
            mine["seconds"] / first["seconds"] for mine, first in zip(measured, found[CAPACITIES[0]], strict=True)
        )
        click.echo(f"{capacity:5,} shapes   memory of training {held:5,.0f} MiB   time of a step {ratio:.2f} ×")


def train(dataset: Path, epochs: int) -> dict[str, float]:
    """Bytes beyond those before the first step, and the median seconds of a step."""
    torch.set_num_threads(1)
    options = AdaptOptions()
    training = Training(training_data(load_corpus(open_dataset(dataset), options), options), options, CPU)
    before, seconds = peak_bytes(), list[float]()
    training._modules.train()
    for epoch in range(epochs):
        for batch, states_of_batch in training._batches_with_states(torch.Generator().manual_seed(epoch)):
            started = time.perf_counter()
            training._step(batch, states_of_batch)
            seconds.append(time.perf_counter() - started)
    return {"bytes": peak_bytes() - before, "seconds": statistics.median(seconds)}


if __name__ == "__main__":
    main()
