"""The comparison of docs/accuracy.md: methods, LLMs and seeds on any prepared datasets.

    python benchmarks/accuracy.py run data/ml-100k data/scientific --llm minilm --llm mpnet --cache-root CACHES
    python benchmarks/accuracy.py table > TABLES.md

Each dataset must be prepared and its texts extracted with all layers. The first `--llm` is trained with every method,
the others with the methods of MORE_LLMS. Every finished cell is a line of benchmarks/results/accuracy.jsonl, so the
script can be stopped at any time and goes on; several of it may run at once, on the same cells. All choices are made on
validation: of the search space by the first seed, and of what is called best by all seeds.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from grid.cells import Cell, Results, Row, missing, train
from grid.methods import METHODS
from grid.tables import tables

from ssna.cache import find_cache
from ssna.dataset import open_dataset

RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"
FIVE_SEEDS = ("ids", "last-whitened", "mean", "residual")
MORE_LLMS = ("last-whitened", "mean", "residual", "residual-ids")
LAYERS = (1, 2, 3, 4, 6, 9, 12)
STUDIED = "residual"


def rows_of(dataset: str, llms: Sequence[str], layers: dict[str, int]) -> list[Row]:
    """The grid of a dataset, the most wanted rows first."""
    rows = []
    for name, method in METHODS.items():
        seeds = 1 if not method.searched else 5 if name in FIVE_SEEDS else 3
        if method.num_llms <= len(llms):
            rows.append(Row(dataset, tuple(llms[: method.num_llms]), name, {}, seeds))
    for llm in llms[1:]:
        rows += [Row(dataset, (llm,), name, {}, 3) for name in MORE_LLMS]
    for number, llm in enumerate(llms):
        rows += [Row(dataset, (llm,), STUDIED, {"layers": a}, 1 if number else 3) for a in LAYERS if a < layers[llm]]
    return rows


@click.group()
def main() -> None:
    """Fill in the grid, or print what it holds."""


@main.command()
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--llm", "llms", multiple=True, required=True, help="Name of a cache; the first one has all methods.")
@click.option("--cache-root", type=click.Path(path_type=Path), required=True)
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--method", "methods", multiple=True, type=click.Choice(list(METHODS)), default=list(METHODS))
@click.option("--hours", type=float, default=1e9, help="Begin no further cell after so many.")
def run(
    datasets: tuple[Path, ...],
    llms: tuple[str, ...],
    cache_root: Path,
    threads: int,
    methods: tuple[str, ...],
    hours: float,
) -> None:
    """Train the missing cells."""
    from ssna.cache import Cache

    caches = {llm: find_cache(cache_root, llm) for llm in llms}
    layers = {llm: Cache.open(path).max_layers for llm, path in caches.items()}
    paths = {open_dataset(path).fingerprint: path for path in datasets}
    rows = [row for dataset in paths for row in rows_of(dataset, llms, layers) if row.method in methods]
    started = time.monotonic()
    RESULTS.parent.mkdir(exist_ok=True)
    while time.monotonic() - started < 3600 * hours:
        for cell in missing(rows, Results(RESULTS)):
            with claimed(cell) as mine:
                results = Results(RESULTS)  # Another process may have finished it since.
                if not mine or results.of(cell) is not None:
                    continue
                found = train(cell, paths[cell.dataset], caches, threads)
                results.add(cell, found)
                click.echo(
                    f"{found['dataset_name']} {cell.method} {'+'.join(cell.llms)} {dict(cell.options)}: valid NDCG@10 "
                    f"{found['valid']['ndcg@10']:.4f}, {found['epochs']} epochs, {found['total_seconds']:.0f} s",
                    err=True,
                )
                break
        else:
            break  # Nothing is missing, or others are at it.


@contextmanager
def claimed(cell: Cell) -> Iterator[bool]:
    """Whether no other process on this machine is at the cell; a killed one is not at it any more."""
    folder = RESULTS.parent / ".claims"
    folder.mkdir(exist_ok=True)
    with (folder / hashlib.sha256(cell.key.encode()).hexdigest()[:16]).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@main.command()
def table() -> None:
    """Print the tables, as Markdown."""
    click.echo(tables(Results(RESULTS)))


if __name__ == "__main__":
    main()
