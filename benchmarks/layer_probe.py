"""What each layer's titles hold, by linear probes: genres, and how popular an item is in training.

    ssna extract data/ml-100k --llm LLM --name minilm --text '{movie_title}'
    python benchmarks/layer_probe.py data/ml-100k --llm minilm --text '{movie_title}' --genres class
    python benchmarks/layer_probe.py data/scientific --llm minilm

Ridge regression on standardised states, five folds of the items; its strength is chosen by each fold on the folds that
it is fitted to. Genres: mean area under the ROC curve over those of at least 30 items (.5 is chance). Popularity: share
of the variance of log counts that is explained (0 is chance).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import polars as pl
import torch
from torch import Tensor

from ssna import AdaptOptions
from ssna.inputs import read_inputs
from ssna.stage2_adapt.sequences import training_counts

FOLDS, FEWEST = 5, 30
_STRENGTHS = tuple(10.0**power for power in range(-2, 4))


def predicted(states: Tensor, wanted: Tensor) -> Tensor:
    """What a ridge regression fitted to the other folds says of each item ``(N, T)``."""
    fold = torch.from_numpy(np.random.default_rng(0).permutation(len(states)) % FOLDS)
    found = torch.empty_like(wanted)
    for held_out in range(FOLDS):
        fitted, left = fold != held_out, fold == held_out
        inner = fitted & (fold != (held_out + 1) % FOLDS)
        validation = fitted & ~inner
        guesses = _ridge(states[inner], wanted[inner], states[validation])
        errors = [float((guess - wanted[validation]).square().mean()) for guess in guesses]
        found[left] = _ridge(states[fitted], wanted[fitted], states[left])[int(np.argmin(errors))]
    return found


def _ridge(states: Tensor, wanted: Tensor, others: Tensor) -> list[Tensor]:
    """Predictions for other items, of each strength."""
    mean, deviation, level = states.mean(dim=0), states.std(dim=0).clamp_min(1e-6), wanted.mean(dim=0)
    left, sizes, right = torch.linalg.svd((states - mean) / deviation, full_matrices=False)
    seen, target = ((others - mean) / deviation) @ right.T, left.T @ (wanted - level)
    return [
        seen @ ((sizes / (sizes.square() + strength * len(states)))[:, None] * target) + level
        for strength in _STRENGTHS
    ]


def area_under_curve(scores: Tensor, labels: Tensor) -> float:
    """The chance that an item with the label scores higher than one without."""
    order = scores.argsort(stable=True)
    place = torch.empty(len(scores))
    place[order] = torch.arange(1.0, len(scores) + 1)
    positives = int(labels.sum())
    return float((place[labels > 0].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives)))


def mean_area(scores: Tensor, labels: Tensor) -> float:
    """Over labels ``(N, T)``."""
    return float(np.mean([area_under_curve(scores[:, i], labels[:, i]) for i in range(labels.shape[1])]))


def explained(scores: Tensor, wanted: Tensor) -> float:
    """Share of the variance."""
    return float(1 - (wanted - scores).square().sum() / (wanted - wanted.mean(dim=0)).square().sum())


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path, exists=True))
@click.option("--llm", required=True, help="Name of a cache.")
@click.option("--cache-root", type=click.Path(path_type=Path), default=None)
@click.option("--text", default=None, help="Template that was extracted; none takes the items' own text.")
@click.option("--genres", default=None, help="Column of items.parquet with words; each is a label.")
def main(dataset: Path, llm: str, cache_root: Path | None, text: str | None, genres: str | None) -> None:
    """Print a table, top layer first, as Markdown."""
    inputs = read_inputs(dataset, [llm], [], cache_root, AdaptOptions(text=text))
    corpus, rows = inputs.corpus, inputs.sources[0].rows
    counts = training_counts(corpus.sequences, corpus.split, len(corpus.items))[1:]
    popularity = torch.from_numpy(np.log(np.maximum(counts, 1))).float()[:, None]
    probes: dict[str, tuple[Tensor, Callable[[Tensor, Tensor], float]]] = {"popularity": (popularity, explained)}
    if genres is not None:
        fields = corpus.items.select("item_id").join(
            pl.read_parquet(dataset / "items.parquet"), on="item_id", maintain_order="left"
        )
        probes["genres"] = (_labels(fields[genres].to_list()), mean_area)
    click.echo(f"| {dataset.name}, {llm} | {' | '.join(probes)} |\n|---|{'---|' * len(probes)}")
    for number, states in zip(rows.layers, torch.from_numpy(rows.read()).float().unbind(dim=1), strict=True):
        found = [measure(predicted(states, wanted), wanted) for wanted, measure in probes.values()]
        click.echo(f"| layer {number} | {' | '.join(f'{value:.3f}' for value in found)} |".replace("0.", "."))


def _labels(words: list[str | None]) -> Tensor:
    """``(N, T)``, 1 where an item has the word; words of at least `FEWEST` items."""
    sets = [set((each or "").split()) for each in words]
    names = sorted(set().union(*sets))
    labels = torch.tensor([[float(name in each) for name in names] for each in sets])
    return labels[:, labels.sum(dim=0) >= FEWEST]


if __name__ == "__main__":
    main()
