"""Peak memory of `ssna prepare` on made-up interactions; 25 million, as many as MovieLens 25M has, by default.

    python benchmarks/prepare_memory.py
    python benchmarks/prepare_memory.py --format table --interactions 10_000_000 --users 500_000 --items 200_000
    python benchmarks/prepare_memory.py --format amazon --interactions 5_000_000 --users 100_000 --items 50_000

Writes the source (620 MB, 400 MB, 1.4 GB) to a temporary folder, runs the command on it, and prints the peak of its
resident memory. The figures in docs/results.md are this script's.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import polars as pl

_ROWS_AT_ONCE = 1_000_000
_REVIEW = "It arrived on time and does what it should; the second one is still in its box. " * 2


def blocks(interactions: int, users: int, items: int) -> Iterator[pl.DataFrame]:
    """user, item, stars and time (seconds) of Zipf-distributed items at random times, a million rows a block."""
    rng = np.random.default_rng(0)
    for start in range(0, interactions, _ROWS_AT_ONCE):
        n = min(_ROWS_AT_ONCE, interactions - start)
        yield pl.DataFrame(
            {
                "user": rng.integers(0, users, n),
                "item": (rng.zipf(1.2, n) - 1) % items,
                "stars": rng.integers(1, 6, n),
                "time": rng.integers(1_000_000_000, 1_700_000_000, n),
            }
        )


def write_csv(path: Path, rows: Iterator[pl.DataFrame], columns: list[pl.Expr]) -> None:
    """A CSV file with a header."""
    with path.open("wb") as file:
        for number, block in enumerate(rows):
            block.select(columns).write_csv(file, include_header=number == 0)


def write_table(folder: Path, rows: Iterator[pl.DataFrame], items: int) -> list[Path]:
    """Two CSV files with long ids."""
    columns = [
        pl.format("customer-{}", "user").alias("user_id"),
        pl.format("product-{}", "item").alias("item_id"),
        pl.col("stars").alias("rating"),
        pl.col("time").alias("timestamp"),
    ]
    write_csv(folder / "events.csv", rows, columns)
    pl.DataFrame({"n": np.arange(items)}).select(
        pl.format("product-{}", "n").alias("item_id"), pl.format("Product number {}", "n").alias("title")
    ).write_csv(folder / "items.csv")
    return [folder / "events.csv", folder / "items.csv"]


def write_movielens(folder: Path, rows: Iterator[pl.DataFrame], items: int) -> list[Path]:
    """ratings.csv and movies.csv as in MovieLens 20M and later."""
    columns = [
        (pl.col("user") + 1).alias("userId"),
        (pl.col("item") + 1).alias("movieId"),
        pl.col("stars").cast(pl.Float64).alias("rating"),
        pl.col("time").alias("timestamp"),
    ]
    write_csv(folder / "ratings.csv", rows, columns)
    pl.DataFrame({"movieId": np.arange(1, items + 1)}).with_columns(
        pl.format("Film {} (1999)", "movieId").alias("title"), pl.lit("Comedy|Drama").alias("genres")
    ).write_csv(folder / "movies.csv")
    return [folder]


def write_amazon(folder: Path, rows: Iterator[pl.DataFrame], items: int) -> list[Path]:
    """Reviews, with their text, and metadata as in Amazon Reviews 2023."""
    with (folder / "Made_Up.jsonl").open("wb") as file:
        for block in rows:
            block.select(
                pl.col("stars").cast(pl.Float64).alias("rating"),
                pl.lit(_REVIEW).alias("text"),
                pl.format("B{}", pl.col("item").cast(pl.String).str.zfill(9)).alias("parent_asin"),
                pl.format("A{}", pl.col("user").cast(pl.String).str.zfill(27)).alias("user_id"),
                (pl.col("time") * 1000).alias("timestamp"),
            ).write_ndjson(file)
    pl.DataFrame({"n": np.arange(items)}).select(
        pl.format("Product number {}", "n").alias("title"),
        pl.concat_list(pl.lit("Made up"), pl.lit("Things")).alias("categories"),
        pl.format("B{}", pl.col("n").cast(pl.String).str.zfill(9)).alias("parent_asin"),
    ).write_ndjson(folder / "meta_Made_Up.jsonl")
    return [folder / "Made_Up.jsonl", folder / "meta_Made_Up.jsonl"]


WRITERS = {"movielens": write_movielens, "table": write_table, "amazon": write_amazon}


@click.command()
@click.option("--format", "format", type=click.Choice(list(WRITERS)), default="movielens", show_default=True)
@click.option("--interactions", type=int, default=25_000_095, show_default=True)
@click.option("--users", type=int, default=162_541, show_default=True)
@click.option("--items", type=int, default=62_423, show_default=True)
def main(format: str, interactions: int, users: int, items: int) -> None:
    """Write the source, run the command on it, print its peak."""
    with tempfile.TemporaryDirectory() as source, tempfile.TemporaryDirectory() as output:
        paths = WRITERS[format](Path(source), blocks(interactions, users, items), items)
        size = sum(path.stat().st_size for path in Path(source).iterdir())
        command = [
            sys.executable, "-m", "ssna", "prepare", *map(str, paths), output, "--format", format,
            "--min-user", "5", "--min-item", "5", "--min-rating", "2", "--duplicates", "last",
        ]  # fmt: skip
        started = time.monotonic()
        child = os.posix_spawn(sys.executable, command, os.environ)
        _, status, usage = os.wait4(child, 0)
        seconds = time.monotonic() - started
    if status:
        raise SystemExit(f"the command failed with status {status}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    click.echo(
        f"{interactions:,} interactions, {size / 1e6:.0f} MB as {format}: "
        f"peak {peak / 2**30:.2f} GiB resident, {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
