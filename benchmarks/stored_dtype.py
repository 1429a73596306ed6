"""What storing states as int8 instead of float16 costs in accuracy and saves on disk.

    python benchmarks/stored_dtype.py demo/ml-100k --llm LLM_FOLDER --threads 1

Extracts the dataset's texts in each stored dtype into a temporary cache root, holds the rows against float32, and
trains the default text model on each with the same seeds.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import click
import numpy as np

from ssna import AdaptOptions, ExtractOptions, adapt, extract
from ssna.cache import STORED_DTYPES, Cache, keys_of_texts
from ssna.dataset import open_dataset


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path, exists=True))
@click.option("--llm", required=True, type=click.Path(exists=True))
@click.option("--seeds", default=3, show_default=True, help="How many.")
@click.option("--epochs", default=60, show_default=True, help="At most so many.")
@click.option("--threads", type=int, help="CPU threads.")
def main(dataset: Path, llm: str, seeds: int, epochs: int, threads: int | None) -> None:
    """Print size, error and accuracy by stored dtype as Markdown."""
    keys = keys_of_texts(open_dataset(dataset).items()["text"].unique(maintain_order=True))
    with tempfile.TemporaryDirectory() as folder:
        places = {}
        for store in STORED_DTYPES:
            done = extract(
                dataset, llm, name=store, options=ExtractOptions(store=store), cache_root=folder, device="cpu"
            )
            places[store] = Path(done.cache)
        layers = Cache.open(places["float32"]).max_layers
        exact = Cache.open(places["float32"]).select(keys, layers).read()
        click.echo("| stored as | bytes a text | largest error | RMS error | valid NDCG@10 | Recall@10 | NDCG@10 |")
        click.echo("|---|---|---|---|---|---|---|")
        for store in ("float16", "int8"):
            cache = Cache.open(places[store])
            error = cache.select(keys, layers).read() - exact
            rms = np.sqrt((error**2).mean() / (exact**2).mean())
            values: dict[str, list[float]] = {"valid ndcg@10": [], "test recall@10": [], "test ndcg@10": []}
            for seed in range(seeds):
                results = adapt(
                    dataset,
                    Path(folder) / "runs" / f"{store}-{seed}",
                    cache=places[store],
                    options=AdaptOptions(seed=seed, epochs=epochs),
                    threads=threads,
                )
                for name, found in values.items():
                    part, metric = name.split()
                    found.append(results[part][metric])
            shown = " | ".join(f"{statistics.mean(v):.4f} ± {statistics.stdev(v):.4f}" for v in values.values())
            size = cache.size_on_disk() / len(keys)
            largest = np.abs(error).max() / np.abs(exact).max()
            click.echo(f"| {store} | {size:,.0f} | {largest:.1e} | {rms:.1e} | {shown} |")


if __name__ == "__main__":
    main()
