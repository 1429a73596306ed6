"""What each default of `ssna adapt` is worth: one option at a time takes another value, all else stays.

    python benchmarks/defaults.py run data/ml-100k data/scientific --llm minilm --cache-root CACHES --seeds 2
    python benchmarks/defaults.py table

Figures are of the validation part, on which defaults are chosen. Finished cells are lines of
benchmarks/results/defaults.jsonl; the script can be stopped and goes on, and several of it may run at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from grid.cells import Cell, Results, fill_in

from ssna import AdaptOptions
from ssna.cache import find_cache
from ssna.dataset import open_dataset

RESULTS = Path(__file__).parent / "results" / "defaults.jsonl"
METHOD = AdaptOptions.side
VARIANTS: dict[str, Mapping[str, Any]] = {
    "the defaults": {},
    "--averaging 0": {"averaging": 0.0},
    "--side gru": {"side": "gru"},
    "--side mean": {"side": "mean"},
    "--preparation whiten": {"preparation": "whiten"},
    "--preparation none": {"preparation": "none"},
    "--no-repeat-bias": {"repeat_bias": False},
    "--no-popularity-bias": {"popularity_bias": False},
    "--width 32": {"width": 32},
    "--width 128": {"width": 128},
    "--side-width 128": {"side_width": 128},
    "--side-dropout 0.2": {"side_dropout": 0.2},
    "--activation relu": {"activation": "relu"},
    "--dropout 0.1": {"dropout": 0.1},
    "--dropout 0.4": {"dropout": 0.4},
    "--scorer dot": {"scorer": "dot"},
    "--loss softmax": {"loss": "softmax"},
    "--loss in-batch": {"loss": "in-batch"},
    "--loss gbce": {"loss": "gbce"},
    "--batch-size 256": {"batch_size": 256},
    "--learning-rate 5e-4": {"learning_rate": 5e-4},
    "--learning-rate 2e-3": {"learning_rate": 2e-3},
    "--weight-decay 0.1": {"weight_decay": 0.1},
    "--blocks 1": {"blocks": 1},
    "--heads 1": {"heads": 1},
    "--item-id": {"item_id": True},
    "--item-id --fusion gate": {"item_id": True, "fusion": "gate"},
    "--model gru4rec": {"model": "gru4rec"},
    "--model hstu": {"model": "hstu"},
    "--model fmlp": {"model": "fmlp"},
}


def cell_of(dataset: str, llm: str, variant: str, seed: int) -> Cell:
    """The training of a variant."""
    return Cell.of(dataset, (llm,), METHOD, {**VARIANTS[variant], "seed": seed})


@click.group()
def main() -> None:
    """Train the variants, or print what was found."""


@main.command()
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--llm", required=True, help="Name of a cache.")
@click.option("--cache-root", type=click.Path(path_type=Path), required=True)
@click.option("--seeds", default=2, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--variant", "variants", multiple=True, type=click.Choice(list(VARIANTS)), default=list(VARIANTS))
def run(
    datasets: tuple[Path, ...], llm: str, cache_root: Path, seeds: int, threads: int, variants: tuple[str, ...]
) -> None:
    """Train the missing cells."""
    paths = {open_dataset(path).fingerprint: path for path in datasets}
    cells = [cell_of(dataset, llm, each, seed) for seed in range(seeds) for each in variants for dataset in paths]
    fill_in(RESULTS, lambda results: cells, paths, {llm: find_cache(cache_root, llm)}, threads)


@main.command()
def table() -> None:
    """Print what each seed has, as Markdown."""
    results = Results(RESULTS)
    names = {line["dataset"]: line["dataset_name"] for line in results.lines.values()}
    llms = dict.fromkeys(line["llms"][0] for line in results.lines.values())
    for llm in llms:
        head = [f"{name}: valid NDCG@10 by seed | best epochs" for name in names.values()]
        click.echo(f"| {llm} | {' | '.join(head)} |\n|---|{'---|---|' * len(names)}")
        for variant in VARIANTS:
            row = [text for dataset in names for text in _cells(results, dataset, llm, variant)]
            if any(row):
                click.echo(f"| `{variant}` | {' | '.join(row)} |")


def _cells(results: Results, dataset: str, llm: str, variant: str) -> list[str]:
    lines = [line for seed in range(9) if (line := results.of(cell_of(dataset, llm, variant, seed))) is not None]
    values = ", ".join(f"{line['valid']['ndcg@10']:.4f}".replace("0.", ".") for line in lines)
    return [values, ", ".join(str(line["best_epoch"]) for line in lines)]


if __name__ == "__main__":
    main()
