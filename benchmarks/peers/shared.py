"""What the scripts of the peers share: the exported split, the arguments and the line of results."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Split:
    """The arrays that export.py writes."""

    items: np.ndarray
    starts: np.ndarray
    train_end: np.ndarray
    valid_end: np.ndarray
    window_start: np.ndarray
    window_end: np.ndarray
    num_items: int
    length: int

    @classmethod
    def read(cls, folder: Path) -> Split:
        """The split in a folder."""
        with np.load(folder / "split.npz") as arrays:
            read = {each.name: arrays[each.name] for each in fields(cls)}
        return cls(**{name: value if value.ndim else value.item() for name, value in read.items()})

    @property
    def validated(self) -> np.ndarray:
        """Users who have a validation item."""
        return np.flatnonzero(self.train_end < self.valid_end)

    @property
    def tested(self) -> np.ndarray:
        """Users who have a test item."""
        return np.flatnonzero(self.valid_end < self.starts[1:])


@dataclass
class Curve:
    """What `--patience` goes by: the validation NDCG@10 of each epoch, and the test metrics of the best one."""

    patience: int
    valid: list[float] = field(default_factory=list)
    tested: dict[str, float] = field(default_factory=dict)

    def flat_after(self, valid: float, test: Callable[[], dict[str, float]]) -> bool:
        """Note an epoch, test it if it is the best so far, and say whether the last best is `patience` epochs ago."""
        best = not self.valid or valid > max(self.valid)
        self.valid.append(valid)
        if best:
            self.tested = test()
        return len(self.valid) - 1 - int(np.argmax(self.valid)) >= self.patience


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of both scripts."""
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    arguments.add_argument("split", type=Path, help="folder that export.py wrote")
    arguments.add_argument("--width", type=int, default=64)
    arguments.add_argument("--blocks", type=int, default=2)
    arguments.add_argument("--heads", type=int, default=2)
    arguments.add_argument("--dropout", type=float, default=0.2)
    arguments.add_argument("--batch-size", type=int, default=128)
    arguments.add_argument("--evaluation-batch-size", type=int, default=256)
    arguments.add_argument("--learning-rate", type=float, default=1e-3)
    arguments.add_argument("--epochs", type=int, default=4)
    arguments.add_argument(
        "--patience",
        type=int,
        help="stop after so many epochs without a better validation NDCG@10, and test the best (at most --epochs)",
    )
    arguments.add_argument("--evaluations", type=int, default=5, help="how often all users are ranked and timed")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--seed", type=int, default=0)
    return arguments


def timed(work: Callable[[], Any], times: int) -> tuple[list[float], Any]:
    """Seconds of each of several runs, and what the last returned."""
    seconds, result = [], None
    for _ in range(times):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return seconds, result


def log_epoch(number: int, seconds: float, loss: float) -> None:
    """Say that an epoch is over."""
    print(f"epoch {number}: {seconds:.2f} s, loss {loss:.4f}", file=sys.stderr)


def report(library: str, **results: Any) -> None:
    """The line of results."""
    print(json.dumps({"library": library, "version": version(library), **results}), file=sys.__stdout__)
