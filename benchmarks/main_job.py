"""Recall@10 and NDCG@10 of the models of the demo, several seeds, on any prepared datasets.

    python benchmarks/main_job.py demo/ml-100k data/scientific --llm minilm --cache-root demo/cache

Each dataset must be prepared and its texts extracted (README.md shows how). Every finished cell is a line of
benchmarks/results/main_job.jsonl, so the script can be stopped and goes on; it ends with the table of docs/results.md.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from ssna import AdaptOptions, adapt
from ssna.dataset import open_dataset

MODELS: dict[str, dict[str, Any]] = {
    "popularity": {"model": "popularity"},
    "ids": {"side": "none"},
    "text": {},
    "text-and-ids": {"item_id": True},
    # What the default learning rate was compared with, on validation (docs/method.md).
    "ids, learning rate 2e-3": {"side": "none", "learning_rate": 2e-3},
    "text, learning rate 2e-3": {"learning_rate": 2e-3},
    "text-and-ids, learning rate 2e-3": {"item_id": True, "learning_rate": 2e-3},
}
RESULTS = Path(__file__).parent / "results" / "main_job.jsonl"


def cell_name(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a cell from the others."""
    return (
        cell["dataset"],
        cell["fingerprint"],
        cell["model"],
        cell["seed"],
        json.dumps(cell["options"], sort_keys=True),
    )


def read_cells() -> list[dict[str, Any]]:
    """The finished cells."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def commit() -> str:
    """The commit that is measured, marked if the work tree differs from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=RESULTS.parent.parent, capture_output=True, text=True, check=True).stdout.strip()


def table(cells: list[dict[str, Any]]) -> str:
    """Means over seeds with their standard deviation, as Markdown."""
    lines = [
        "| dataset | model | seeds | valid NDCG@10 | Recall@10 | NDCG@10 | best epochs |",
        "|---|---|---|---|---|---|---|",
    ]
    for dataset in dict.fromkeys(cell["dataset"] for cell in cells):
        for model in MODELS:
            mine = [cell for cell in cells if (cell["dataset"], cell["model"]) == (dataset, model)]
            if not mine:
                continue
            values = []
            for part, metric in (("valid", "ndcg@10"), ("test", "recall@10"), ("test", "ndcg@10")):
                found = [cell[part][metric] for cell in mine]
                spread = f" ± {statistics.stdev(found):.4f}" if len(found) > 1 else ""
                values.append(f"{statistics.mean(found):.4f}{spread}")
            epochs = ", ".join(str(cell["best_epoch"]) for cell in mine)
            lines.append(f"| {dataset} | {model} | {len(mine)} | {' | '.join(values)} | {epochs} |")
    return "\n".join(lines)


@click.command()
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--llm", required=True)
@click.option("--cache-root", type=click.Path(path_type=Path))
@click.option("--seeds", default=3, show_default=True, help="How many.")
@click.option("--threads", type=int, help="CPU threads.")
@click.option("--model", "models", multiple=True, type=click.Choice(list(MODELS)), default=list(MODELS))
@click.option("--epochs", default=AdaptOptions.epochs, show_default=True, help="At most so many.")
def main(
    datasets: tuple[Path, ...],
    llm: str,
    cache_root: Path | None,
    seeds: int,
    threads: int | None,
    models: tuple[str, ...],
    epochs: int,
) -> None:
    """Fill in the missing cells and print the table."""
    done = {cell_name(cell) for cell in read_cells()}
    asked: list[dict[str, Any]] = []
    for path in datasets:
        dataset = open_dataset(path)
        for model in models:
            for seed in range(1 if model == "popularity" else seeds):
                options = AdaptOptions(**MODELS[model], seed=seed, epochs=epochs)
                cell = {
                    "dataset": dataset.name,
                    "fingerprint": dataset.fingerprint,
                    "model": model,
                    "seed": seed,
                    "options": vars(options),
                }
                asked.append(cell)
                if cell_name(cell) in done:
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    results = adapt(
                        path,
                        Path(folder) / "run",
                        llm=llm if options.needs_states else None,
                        options=options,
                        cache_root=cache_root,
                        threads=threads,
                    )
                line = json.dumps({**cell, "llm": llm, "commit": commit(), **results})
                RESULTS.parent.mkdir(exist_ok=True)
                with RESULTS.open("a") as file:
                    file.write(line + "\n")
                click.echo(f"{dataset.name} {model} seed {seed}: {results['test']['recall@10']:.4f}", err=True)
    wanted = {cell_name(cell) for cell in asked}
    click.echo(table([cell for cell in read_cells() if cell_name(cell) in wanted]))


if __name__ == "__main__":
    main()
