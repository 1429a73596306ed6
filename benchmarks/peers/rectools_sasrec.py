"""RecTools' SASRec on the split that export.py wrote: seconds an epoch and seconds to rank all items for all users.

Install, with Python 3.11 and in an environment of its own. PyTorch comes first, so that the CPU build stays:

    python3.11 -m venv rectools-env
    rectools-env/bin/pip install torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
    rectools-env/bin/pip install -r benchmarks/peers/rectools-requirements.txt

    rectools-env/bin/python benchmarks/peers/rectools_sasrec.py SPLIT_FOLDER --epochs 4

One line of JSON goes to stdout: `train`, the seconds of each epoch's training alone; `evaluate`, the seconds of each
`recommend` for all users with Recall@10 and NDCG@10 of its outcome; `loss`, each epoch's mean; how many `targets` and
`steps` an epoch has; metrics of the test items, with those of the history among the ranked (`filter_viewed=False`).
With `--patience`, `curve` is the validation NDCG@10 of each epoch, and the metrics are of the best one.

What differs from ssna's SASRec:

- Of a user's training part RecTools reads the last window alone and leaves the rest. Here every window that ssna trains
  on is given as a user of its own, so that an epoch has the same targets.
- Every sequence is padded, on the left, to `length`. Padding takes part in the attention and costs as much in the
  softmax as an item, whose logits of all places exist at once; the loss is the mean over the targets.
- `--block sasrec`, RecTools' own, is that of the paper's code: keys and values are not normed, and what a layer adds is
  added to its normed input. ReLU, and a feed-forward width of `--width` that cannot be changed: a block has half the
  matrix products of one whose feed-forward is 4 × as wide. A norm at the end, as in ssna. `--block pre-norm` gives
  SASRecModel RecTools' other block: pre-norm, GELU, feed-forward width 4 × `--width`, no norm at the end.
- Positions count from the end of the history, as in ssna. Dot products are scores, and the padding's vector is in the
  softmax. Adam with betas .9 and .98 instead of AdamW, gradients not clipped, Xavier's normal distribution at first.
- Items that do not occur in training are unknown to the model: neither read nor ranked, and missed as targets.

Of the histories at test time RecTools is given the last `length` interactions, which spares it the sorting of what it
would not read.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import NDCG, Recall, calc_metrics
from rectools.models import SASRecModel
from rectools.models.nn.transformers.net_blocks import PreLNTransformerLayers
from rectools.models.nn.transformers.sasrec import SASRecTransformerLayers
from shared import Curve, Split, log_epoch, parser, report, timed

BLOCKS = {"sasrec": (SASRecTransformerLayers, {}), "pre-norm": (PreLNTransformerLayers, {"ff_factors_multiplier": 4})}
K = 10


class Clock(Callback):
    """Notes how long each epoch's training takes."""

    def __init__(self) -> None:
        self.seconds = list[float]()
        self.losses = list[float]()
        self.started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self.started)
        self.losses.append(float(trainer.callback_metrics["train_loss"]))
        log_epoch(len(self.losses), self.seconds[-1], self.losses[-1])


def table(split: Split, names: np.ndarray, start: np.ndarray, end: np.ndarray) -> pd.DataFrame:
    """The interactions of spans, each under a user's name, with places in the span for times."""
    counts = end - start
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return pd.DataFrame(
        {
            Columns.User: np.repeat(names, counts),
            Columns.Item: split.items[np.repeat(start, counts) + place],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(place, unit="s"),
        }
    )


@dataclass(frozen=True)
class Part:
    """The validation or the test part: users, what is known of each, and the item to be found."""

    users: np.ndarray
    histories: Dataset
    targets: pd.DataFrame

    @classmethod
    def of(cls, split: Split, users: np.ndarray, start: np.ndarray, end: np.ndarray) -> Part:
        """The part that lies from `start` to `end` of each of all users, (U,)."""
        start, end = start[users], end[users]
        first = np.maximum(start - split.length, split.starts[users])
        return cls(users, Dataset.construct(table(split, users, first, start)), table(split, users, start, end))

    def metrics(self, model: SASRecModel) -> dict[str, float]:
        """Recall@10 and NDCG@10."""
        wanted = {"recall@10": Recall(k=K), "ndcg@10": NDCG(k=K, divide_by_achievable=True)}
        ranked = model.recommend(self.users, self.histories, k=K, filter_viewed=False, on_unsupported_targets="ignore")
        return {name: float(value) for name, value in calc_metrics(wanted, ranked, self.targets).items()}


def main() -> None:
    """Train, evaluate, report."""
    arguments = parser(__doc__)
    arguments.add_argument("--block", choices=list(BLOCKS), default="sasrec")
    options = arguments.parse_args()
    split = Split.read(options.split)
    torch.set_num_threads(options.threads)
    seed_everything(options.seed)

    start, end = split.window_start, split.window_end
    training = Dataset.construct(table(split, np.arange(len(start)), start, end))
    valid = Part.of(split, split.validated, split.train_end, split.valid_end)
    test = Part.of(split, split.tested, split.valid_end, split.starts[1:])

    layers, layer_settings = BLOCKS[options.block]
    model = SASRecModel(
        n_blocks=options.blocks,
        n_heads=options.heads,
        n_factors=options.width,
        dropout_rate=options.dropout,
        session_max_len=split.length,
        loss="softmax",
        lr=options.learning_rate,
        batch_size=options.batch_size,
        recommend_batch_size=options.evaluation_batch_size,
        recommend_torch_device="cpu",
        transformer_layers_type=layers,
        transformer_layers_kwargs=layer_settings,
    )
    model._trainer = Trainer(
        accelerator="cpu",
        devices=1,
        min_epochs=options.epochs,
        max_epochs=options.epochs,
        callbacks=[Clock()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    curve = Curve(options.patience or options.epochs)
    with contextlib.redirect_stdout(sys.stderr):
        if options.patience is None:
            model.fit(training)
        else:
            for _ in range(options.epochs):
                model.fit_partial(training, 1, 1)
                if curve.flat_after(valid.metrics(model)["ndcg@10"], lambda: test.metrics(model)):
                    break
        seconds, last = timed(lambda: test.metrics(model), options.evaluations)
    clock = next(callback for callback in model.fit_trainer.callbacks if isinstance(callback, Clock))
    report(
        "rectools",
        train=clock.seconds,
        evaluate=seconds,
        users=len(test.users),
        items=split.num_items,
        targets=int((end - start - 1).sum()),
        steps=math.ceil(len(start) / options.batch_size),
        parameters=sum(parameter.numel() for parameter in model.torch_model.parameters()),
        loss=clock.losses,
        curve=curve.valid,
        **(curve.tested or last),
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore")  # Of chained assignments and of loader workers, in the libraries' code.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    main()
