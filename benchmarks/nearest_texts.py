"""What each layer's texts know of the next item before anything is trained: Recall@10 of the nearest texts.

    python benchmarks/nearest_texts.py data/ml-100k data/scientific --llm minilm --cache-root CACHES

An item's score is its text's cosine with those of the history, each worth .6 of the one after it; items of the history
are left out. States are standardised, and their principal directions scaled by a power of their variance: 0 leaves
them, -.5 whitens them. The same for the differences of neighbouring layers. Validation part, at most 4,000 users;
nothing is fitted to who interacted with what.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssna import AdaptOptions
from ssna.inputs import read_inputs
from ssna.stage2_adapt import Sequences, cases_of, targets_of
from ssna.stage2_adapt.evaluation import mask_items
from ssna.stage2_adapt.sequences import Cases, gather_spans

_FADING, _READ, _USERS, _AT_ONCE = 0.6, 10, 4_000, 500
_POWERS = (0.0, -0.25, -0.5)


def scaled(states: Tensor, num_trained: int, power: float) -> Tensor:
    """States ``(N, D)`` along the principal directions of the training items', at length one."""
    trained = states[:num_trained]
    states = (states - trained.mean(dim=0)) / trained.std(dim=0).clamp_min(1e-6)
    variances, directions = torch.linalg.eigh(states[:num_trained].T @ states[:num_trained] / num_trained)
    kept = variances > 1e-4 * variances.mean()
    return functional.normalize(states @ (directions[:, kept] * variances[kept] ** power), dim=1)


def recall(texts: Tensor, sequences: Sequences, cases: Cases, targets: np.ndarray, k: int = 10) -> float:
    """Recall@k of the items whose texts ``(N, K)`` are nearest to those of the histories."""
    items, hits = torch.from_numpy(sequences.items), 0
    for first in range(0, len(cases), _AT_ONCE):
        some = cases.between(first, min(first + _AT_ONCE, len(cases)))
        start, end = torch.from_numpy(some.start), torch.from_numpy(some.history_end)
        read, counts = gather_spans(items, start, end, _READ)
        age = counts[:, None] - 1 - torch.arange(read.shape[1])
        weights = torch.where(age >= 0, _FADING ** age.clamp_min(0).float(), 0)
        wanted = torch.einsum("bl,bld->bd", weights, texts[(read - 1).clamp_min(0)])
        seen, _ = gather_spans(items, start, end, int((end - start).max()))
        scores = mask_items(wanted @ texts.T, seen)
        target = torch.from_numpy(targets[first : first + len(some), None] - 1)
        hits += int(((scores >= scores.gather(1, target)).sum(dim=1) <= k).sum())
    return hits / len(cases)


@click.command()
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--llm", required=True, help="Name of a cache.")
@click.option("--cache-root", type=click.Path(path_type=Path), required=True)
def main(datasets: Sequence[Path], llm: str, cache_root: Path) -> None:
    """Print a table for each dataset, top layer first, as Markdown."""
    for dataset in datasets:
        inputs = read_inputs(dataset, [llm], [], cache_root, AdaptOptions())
        corpus, rows = inputs.corpus, inputs.sources[0].rows
        cases = cases_of(corpus.sequences, corpus.split, "valid")
        chosen = np.random.default_rng(0).permutation(len(cases))[:_USERS]
        cases = cases.take(np.sort(chosen))
        _, targets = targets_of(corpus.sequences, cases)
        layers = torch.from_numpy(rows.read()).float().unbind(dim=1)  # Top first
        named = {f"layer {number}": states for number, states in zip(rows.layers, layers, strict=True)}
        pairs = zip(rows.layers, layers, layers[1:], strict=False)
        named |= {f"layer {number} less {number - 1}": upper - lower for number, upper, lower in pairs}
        click.echo(f"| {dataset.name}, {llm} | as it is | half whitened | whitened |\n|---|---|---|---|")
        for name, states in named.items():
            found = [recall(scaled(states, corpus.num_trained, p), corpus.sequences, cases, targets) for p in _POWERS]
            click.echo(f"| {name} | {' | '.join(f'{value:.4f}' for value in found)} |".replace("0.", "."))
        click.echo(f"| chance | {10 / len(corpus.items):.4f} | | |\n".replace("0.", "."))


if __name__ == "__main__":
    main()
