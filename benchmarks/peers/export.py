"""Write a dataset's leave-one-out split as plain arrays, which the scripts of the peers read without ssna.

    python benchmarks/peers/export.py DATASET OUT_FOLDER

OUT_FOLDER/split.npz holds `items` (M,), numbers 1 to `num_items` of all interactions, oldest first, one user after the
other; `starts` (U + 1,), where each user's begin; and `train_end` and `valid_end` (U,), where the parts end. Order and
parts are settled here, so interactions at the same time cannot fall differently in a peer. `window_start` and
`window_end` (W,) are the pieces of the training parts, at most `length` + 1 interactions long, that ssna trains on.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from ssna import AdaptOptions
from ssna.corpus import load_corpus
from ssna.dataset import open_dataset
from ssna.stage2_adapt.sequences import training_windows


@click.command()
@click.argument("dataset", type=click.Path(exists=True, path_type=Path))
@click.argument("out_folder", type=click.Path(file_okay=False, path_type=Path))
def main(dataset: Path, out_folder: Path) -> None:
    """Export the split of DATASET."""
    options = AdaptOptions()
    corpus = load_corpus(open_dataset(dataset), options)
    window_start, window_end = training_windows(corpus.sequences, corpus.split, options.length)
    out_folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        out_folder / "split.npz",
        items=corpus.sequences.items,
        starts=corpus.sequences.starts,
        train_end=corpus.split.train_end,
        valid_end=corpus.split.valid_end,
        window_start=window_start,
        window_end=window_end,
        num_items=len(corpus.items),
        length=options.length,
    )
    users, items = len(corpus.sequences.starts) - 1, len(corpus.items)
    click.echo(f"{out_folder / 'split.npz'}: the split of {users:,} users and {items:,} items", err=True)


if __name__ == "__main__":
    main()
