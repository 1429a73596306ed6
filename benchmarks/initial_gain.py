"""What the initial gain of the side network's norm is worth: validation NDCG@10 of text alone at several gains.

    python benchmarks/initial_gain.py demo/ml-100k --llm minilm --cache-root demo/cache

The dataset must be prepared and its texts extracted. The test set is not looked at.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import click

from ssna import AdaptOptions, adapt
from ssna.stage2_adapt import side_network


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path, exists=True))
@click.option("--llm", required=True)
@click.option("--cache-root", type=click.Path(path_type=Path))
@click.option("--seeds", default=2, show_default=True, help="How many.")
@click.option("--gains", default="1,0.05", show_default=True)
@click.option("--threads", type=int, help="CPU threads.")
def main(dataset: Path, llm: str, cache_root: Path | None, seeds: int, gains: str, threads: int | None) -> None:
    """Train with each gain and print the means over seeds."""
    for gain in map(float, gains.split(",")):
        side_network._INITIAL_GAIN = gain
        values, epochs = [], []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                results = adapt(
                    dataset,
                    Path(folder) / "run",
                    llm=llm,
                    options=AdaptOptions(seed=seed),
                    cache_root=cache_root,
                    threads=threads,
                )
            values.append(results["valid"]["ndcg@10"])
            epochs.append(results["best_epoch"])
        listed = ", ".join(f"{value:.4f}" for value in values)
        click.echo(f"gain {gain:g}: valid NDCG@10 {statistics.mean(values):.4f} ({listed}), best epochs {epochs}")


if __name__ == "__main__":
    main()
