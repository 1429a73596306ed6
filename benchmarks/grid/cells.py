"""Cells of the accuracy grid: one training each, a line of a JSON Lines file once it is finished."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from grid.methods import METHODS, SEARCH, SEARCHED, Method
from lines import append_line, commit, read_lines

from ssna import AdaptOptions, adapt
from ssna.api.evaluate import evaluate_run
from ssna.runs import METRICS_FILE, open_run
from ssna.stage2_adapt import item_encoder
from ssna.stage2_adapt.sequences import cases_of, targets_of, training_counts

DEEPEST = 20  # Ranks beyond it count as nothing at any k, and are not kept.
RARITY = ("most popular fifth", "others of the more popular half", "least popular half", "never seen in training")
CRITERION = "ndcg@10"


@dataclass(frozen=True)
class Cell:
    """What tells one training from all others."""

    dataset: str
    """Fingerprint"""
    llms: tuple[str, ...]
    """Names of caches"""
    method: str
    options: Mapping[str, Any]
    """Every field of `AdaptOptions`: what is a default may be another one later"""

    @classmethod
    def of(cls, dataset: str, llms: tuple[str, ...], method: str, options: Mapping[str, Any]) -> Cell:
        """The cell of a method with further options."""
        return cls(dataset, llms, method, {**asdict(AdaptOptions()), **METHODS[method].options, **options})

    @property
    def changed(self) -> dict[str, Any]:
        """The options that are not what they are by default now, and the seed."""
        defaults = asdict(AdaptOptions())
        return {name: value for name, value in self.options.items() if name == "seed" or value != defaults[name]}

    @property
    def key(self) -> str:
        """Of its line."""
        return json.dumps(asdict(self), sort_keys=True)


class Results:
    """The finished cells, in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = {cell_of(line).key: line for line in read_lines(path)}

    def add(self, cell: Cell, found: Mapping[str, Any]) -> None:
        """Write a finished cell; several processes may."""
        line = {**asdict(cell), **found}
        append_line(self.path, line)
        self.lines[cell.key] = line

    def of(self, cell: Cell) -> dict[str, Any] | None:
        """The line of a cell, if it is finished."""
        return self.lines.get(cell.key)


def cell_of(line: Mapping[str, Any]) -> Cell:
    """Whose line it is."""
    return Cell(line["dataset"], tuple(line["llms"]), line["method"], line["options"])


@dataclass(frozen=True)
class Row:
    """A method on a dataset with LLMs: trials with the first seed, then all seeds with the best of them.

    Or no trials, and what another row has chosen: an ablation changes one thing.
    """

    dataset: str
    llms: tuple[str, ...]
    method: str
    base: Mapping[str, Any]
    """Options that hold for all methods on this dataset, and further ones of this row"""
    seeds: int
    like: Row | None = None
    """Whose choice it takes"""

    def trials(self) -> list[Cell]:
        """One cell a point of the search space."""
        if self.like is not None:
            return []
        search = SEARCH if METHODS[self.method].searched else ({},)
        options = [{**self.base, **METHODS[self.method].options, **trial, "seed": 0} for trial in search]
        return [Cell.of(self.dataset, self.llms, self.method, each) for each in options]

    def chosen(self, results: Results) -> Cell | None:
        """The trial with the best validation, once all are finished; or one with the options of such a trial."""
        if self.like is not None:
            theirs = self.like.chosen(results)
            if theirs is None:
                return None
            taken = {name: theirs.options[name] for name in SEARCHED}
            return Cell.of(self.dataset, self.llms, self.method, {**taken, **self.base, "seed": 0})
        lines = [(results.of(cell), cell) for cell in self.trials()]
        if any(line is None for line, _ in lines):
            return None
        return max(lines, key=lambda pair: pair[0]["valid"][CRITERION])[1]  # type: ignore[index]

    def repeated(self, results: Results) -> list[Cell]:
        """All seeds of the chosen trial; none before it is chosen."""
        best = self.chosen(results)
        if best is None:
            return []
        return [replace(best, options={**best.options, "seed": seed}) for seed in range(self.seeds)]


def cells_of(rows: Sequence[Row], results: Results) -> list[Cell]:
    """All cells that are known, one of each row after the other: a row's seeds are when its trials are finished."""
    columns = (zip_longest(*(row.trials() for row in rows)), zip_longest(*(row.repeated(results) for row in rows)))
    return [cell for column in columns for cells in column for cell in cells if cell is not None]


def fill_in(
    path: Path,
    cells: Callable[[Results], Sequence[Cell]],
    datasets: Mapping[str, Path],
    caches: Mapping[str, Path],
    threads: int | None,
) -> None:
    """Train the missing cells, one after the other; several processes share them.

    Args:
        path: of the results.
        cells: all that are wanted, given those that are finished.
        datasets: by fingerprint.
        caches: by name.
        threads: of the CPU.
    """
    path.parent.mkdir(exist_ok=True)
    # Of what is loaded now, whatever happens to the files in the meantime.
    if commit().endswith("-dirty"):
        raise click.ClickException("The code differs from the commit that results would name. Commit it first.")
    while True:
        results = Results(path)
        wanted = list({cell.key: cell for cell in cells(results)}.values())
        missing = [cell for cell in wanted if results.of(cell) is None]
        for cell in missing:
            with _claimed(path, cell) as mine:
                # Another process may have finished it since.
                if not mine or Results(path).of(cell) is not None:
                    continue
                # Cells that repeat a choice are known once its trials are finished.
                click.echo(f"{len(wanted) - len(missing)} finished, {len(missing)} known to be missing", err=True)
                found = _train(cell, datasets[cell.dataset], caches, threads)
                results.add(cell, found)
            named = " ".join([found["dataset_name"], cell.method, *cell.llms, str(cell.changed)])
            click.echo(
                f"{named}: valid NDCG@10 {found['valid'][CRITERION]:.4f}, {found['epochs']} epochs, "
                f"{found['total_seconds']:.0f} s",
                err=True,
            )
            break
        else:
            others = f", {len(missing)} in the hands of other processes" if missing else ", none missing"
            click.echo(f"{len(wanted) - len(missing)} finished{others}", err=True)
            return


@contextmanager
def _claimed(path: Path, cell: Cell) -> Iterator[bool]:
    """Whether no other process on this machine is at the cell; a killed one is not at it any more."""
    folder = path.parent / ".claims"
    folder.mkdir(exist_ok=True)
    with (folder / hashlib.sha256(f"{path.name}{cell.key}".encode()).hexdigest()[:16]).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _train(cell: Cell, dataset: Path, caches: Mapping[str, Path], threads: int | None) -> dict[str, Any]:
    """What a finished cell's line says."""
    method, options = METHODS[cell.method], AdaptOptions(**cell.options)
    with tempfile.TemporaryDirectory() as folder, _side_network(method):
        run = Path(folder) / "run"
        found = adapt(dataset, run, cache=[caches[name] for name in cell.llms], options=options, threads=threads)
        epochs = read_lines(run / METRICS_FILE)
        opened = open_run(run, torch.device("cpu"))
        test, _ = evaluate_run(opened, torch.device("cpu"))
        _, targets = targets_of(opened.sequences, cases_of(opened.sequences, opened.split, "test"))
        counts = training_counts(opened.sequences, opened.split, len(opened.items))
    ranks = np.where(test.ranks.rank <= DEEPEST, test.ranks.rank, 0).astype(np.uint8)
    kept = ("valid", "test", "test_by_popularity", "users", "candidates", "best_epoch", "epochs", "epoch_seconds")
    return {
        "dataset_name": dataset.name,
        **{name: found[name] for name in (*kept, "trainable_parameters", "peak_memory_bytes", "total_seconds")},
        "curve": [round(epoch["valid"].get(CRITERION, 0.0), 5) for epoch in epochs],
        "ranks": pack(ranks),
        "rarity": pack(rarity_of(counts)[targets]),
        "commit": commit(),
    }


def rarity_of(counts: np.ndarray) -> np.ndarray:
    """Of each item, by its training interactions, its position in `RARITY`; of equals, the first are more popular."""
    trained = counts > 0
    place = np.empty(len(counts), np.int64)
    place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    share = place / max(1, int(trained.sum()))
    return np.where(trained, (share >= 0.2).astype(np.uint8) + (share >= 0.5), 3).astype(np.uint8)


@contextmanager
def _side_network(method: Method) -> Iterator[None]:
    """The item encoder with this method's side network."""
    before = item_encoder.SideNetwork
    item_encoder.SideNetwork = method.side_network  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        item_encoder.SideNetwork = before  # type: ignore[misc]


def pack(values: np.ndarray) -> str:
    """Small numbers as text."""
    return base64.b85encode(zlib.compress(values.tobytes(), 9)).decode()


def unpack(text: str) -> np.ndarray:
    """What `pack` was given, as numbers up to 255."""
    return np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8)
