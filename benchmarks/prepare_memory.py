"""Peak memory of `ssna prepare` on a made-up CSV of 10 million interactions.

    python benchmarks/prepare_memory.py

Writes the source (some 350 MB) to a temporary folder, runs the command on it, and prints the peak of its resident
memory. The figure in docs/results.md is this script's.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import polars as pl

_ROWS_AT_ONCE = 1_000_000


def write_source(folder: Path, interactions: int, users: int, items: int) -> None:
    """Interactions of Zipf-distributed items at random times, and the items' titles."""
    rng = np.random.default_rng(0)
    with (folder / "events.csv").open("wb") as file:
        for start in range(0, interactions, _ROWS_AT_ONCE):
            n = min(_ROWS_AT_ONCE, interactions - start)
            block = pl.DataFrame(
                {
                    "user": rng.integers(0, users, n),
                    "item": (rng.zipf(1.2, n) - 1) % items,
                    "stars": rng.integers(1, 6, n),
                    "time": rng.integers(1_000_000_000, 1_700_000_000, n),
                }
            )
            block.select(
                pl.format("customer-{}", "user").alias("user_id"),
                pl.format("product-{}", "item").alias("item_id"),
                pl.col("stars").alias("rating"),
                pl.col("time").alias("timestamp"),
            ).write_csv(file, include_header=start == 0)
    pl.DataFrame({"n": np.arange(items)}).select(
        pl.format("product-{}", "n").alias("item_id"), pl.format("Product number {}", "n").alias("title")
    ).write_csv(folder / "items.csv")


@click.command()
@click.option("--interactions", default=10_000_000, show_default=True)
@click.option("--users", default=500_000, show_default=True)
@click.option("--items", default=200_000, show_default=True)
def main(interactions: int, users: int, items: int) -> None:
    """Write the source, run the command on it, print its peak."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_source(folder, interactions, users, items)
        size = (folder / "events.csv").stat().st_size
        command = [
            sys.executable, "-m", "ssna", "prepare", str(folder / "events.csv"), str(folder / "items.csv"),
            str(folder / "out"), "--format", "table", "--min-user", "5", "--min-item", "5", "--min-rating", "2",
            "--duplicates", "last",
        ]  # fmt: skip
        started = time.monotonic()
        child = os.posix_spawn(sys.executable, command, os.environ)
        _, status, usage = os.wait4(child, 0)
        seconds = time.monotonic() - started
    if status:
        raise SystemExit(f"the command failed with status {status}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    click.echo(
        f"{interactions:,} interactions, {size / 1e6:.0f} MB of CSV: "
        f"peak {peak / 2**30:.2f} GiB resident, {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
