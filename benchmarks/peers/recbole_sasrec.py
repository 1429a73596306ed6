"""RecBole's SASRec on the split that export.py wrote: seconds an epoch and seconds to rank all items for all users.

Install, with Python 3.11 and in an environment of its own. PyTorch comes first, so that the CPU build stays; RecBole
comes last and without what it asks for, since its quick_start, which is not used here, wants an old `ray`:

    python3.11 -m venv recbole-env
    recbole-env/bin/pip install torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
    recbole-env/bin/pip install -r benchmarks/peers/recbole-requirements.txt
    recbole-env/bin/pip install --no-deps recbole==1.2.1

    recbole-env/bin/python benchmarks/peers/recbole_sasrec.py SPLIT_FOLDER --epochs 4

One line of JSON goes to stdout: `train`, the seconds of each epoch's training alone; `evaluate`, the seconds of each
`Trainer.evaluate` over all users, metrics included; `loss`, each epoch's mean over its steps; how many `targets` and
`steps` an epoch has; metrics of the test items, ranked among all items, those of the history included. With
`--patience`, `curve` is the validation NDCG@10 of each epoch, and the metrics are of the best one.

What differs from ssna's SASRec:

- An example is a history with one target: every prefix of a user's training part is one. A step of B examples has B
  targets, where a step of B sequences has up to B × `length`; `--examples-a-step` gives RecBole's steps as many
  targets as those of the other libraries. Fewer, larger steps spare it overhead but leave the processor's cache, so
  either may be the faster. In both the transformer runs over all `length` places of each example, padding included,
  and one place is used. Prefixes are made before the first epoch, which is not counted.
- Blocks are post-norm, with another norm after the embeddings; feed-forward width 4 × `--width` and GELU are the same.
  Positions count from the start of the history. Dot products are scores, and the softmax is over all items and the
  padding's vector. Adam instead of AdamW, gradients not clipped, as is the library's default.

Users with exactly three interactions: RecBole's own leave-one-out would train on their validation item. `ExactSplit`
divides the library's examples at the places of the split instead.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import data_preparation
from recbole.data.dataset import SequentialDataset
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed
from shared import Curve, Split, log_epoch, parser, report, timed

NAME, USER, ITEM, POSITION = "split", "user_id", "item_id", "timestamp"


class ExactSplit(SequentialDataset):
    """RecBole's examples, each in the part in which its target lies."""

    split: Split

    def leave_one_out(self, group_by: str, leave_one_mode: str) -> list[SequentialDataset]:
        """The training, validation and test part; called when the library's examples have been made."""
        user = self.id2token(USER, self.inter_feat[USER].numpy()).astype(np.int64)
        place = self.split.starts[user] + self.inter_feat[POSITION].numpy().astype(np.int64)
        part = (place >= self.split.train_end[user]).astype(int) + (place >= self.split.valid_end[user])
        self._drop_unused_col()
        return [self.copy(self.inter_feat[torch.from_numpy(part == number)]) for number in range(3)]


class TimedTrainer(Trainer):
    """RecBole's trainer, which notes how long each epoch's training takes."""

    def __init__(self, config: Config, model: SASRec) -> None:
        super().__init__(config, model)
        self.seconds = list[float]()
        self.losses = list[float]()

    def _train_epoch(self, train_data: Any, *args: Any, **options: Any) -> float:
        started = time.perf_counter()
        loss: float = super()._train_epoch(train_data, *args, **options)
        self.seconds.append(time.perf_counter() - started)
        self.losses.append(loss / len(train_data))
        log_epoch(len(self.losses), self.seconds[-1], self.losses[-1])
        return loss


def write_interactions(split: Split, folder: Path) -> None:
    """All interactions as one of RecBole's atomic files, with places in the user's history for times."""
    folder.mkdir()
    lengths = np.diff(split.starts)
    user = np.repeat(np.arange(len(lengths)), lengths)
    rows = np.stack([user, split.items, np.arange(len(user)) - split.starts[user]], axis=1)
    header = f"{USER}:token\t{ITEM}:token\t{POSITION}:float"
    np.savetxt(folder / f"{NAME}.inter", rows, fmt="%d", delimiter="\t", header=header, comments="")


def main() -> None:
    """Train, evaluate, report."""
    arguments = parser(__doc__)
    arguments.add_argument("--examples-a-step", type=int, help="instead of --batch-size")
    options = arguments.parse_args()
    sys.argv[1:] = []  # RecBole's Config would read it too.
    split = Split.read(options.split)
    torch.set_num_threads(options.threads)
    settings = {
        "data_path": ".",
        "load_col": {"inter": [USER, ITEM, POSITION]},
        "unused_col": {"inter": [POSITION, f"{POSITION}_list"]},
        "use_gpu": False,
        "seed": options.seed,
        "epochs": options.epochs,
        "train_batch_size": options.examples_a_step or options.batch_size,
        "eval_batch_size": options.evaluation_batch_size,
        "learning_rate": options.learning_rate,
        "MAX_ITEM_LIST_LENGTH": split.length,
        "hidden_size": options.width,
        "inner_size": 4 * options.width,
        "n_layers": options.blocks,
        "n_heads": options.heads,
        "hidden_dropout_prob": options.dropout,
        "attn_dropout_prob": options.dropout,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["Recall", "NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "stopping_step": options.patience or 0,
        "metric_decimal_place": 6,
    }
    # The trainer writes logs of its own into the working folder.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(sys.stderr):
        write_interactions(split, Path(NAME))
        config = Config(model="SASRec", dataset=NAME, config_dict=settings)
        init_seed(config["seed"], config["reproducibility"])
        dataset = ExactSplit(config)
        dataset.split = split
        train, valid, test = data_preparation(config, dataset)
        assert dataset.item_num == split.num_items + 1
        assert len(test.dataset) == len(split.tested)
        model = SASRec(config, train.dataset)
        trainer = TimedTrainer(config, model)

        def test_metrics() -> dict[str, float]:
            found = trainer.evaluate(test, load_best_model=False)
            return {name: float(found[name]) for name in ("recall@10", "ndcg@10")}

        curve = Curve(options.patience or options.epochs)
        if options.patience is None:
            trainer.fit(train, saved=False, verbose=False)
        else:
            trainer.fit(
                train,
                valid,
                saved=False,
                verbose=False,
                callback_fn=lambda _, score: curve.flat_after(float(score), test_metrics),
            )
        seconds, last = timed(test_metrics, options.evaluations)
    report(
        "recbole",
        train=trainer.seconds,
        evaluate=seconds,
        users=len(test.dataset),
        items=split.num_items,
        targets=len(train.dataset),
        steps=math.ceil(len(train.dataset) / config["train_batch_size"]),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        loss=trainer.losses,
        curve=curve.valid,
        **(curve.tested or last),
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)  # Of pandas and PyTorch, in RecBole's code.
    main()
