"""The side network from a cache against the LLM in the training loop (docs/efficiency.md).

    python benchmarks/efficiency.py measure DATASET --llm LLM_FOLDER --cache minilm --cache-root CACHES --threads 1
    python benchmarks/efficiency.py curve DATASET --llm LLM_FOLDER --cache minilm --cache-root CACHES --row lora
    python benchmarks/efficiency.py table
    python benchmarks/efficiency.py plot

The dataset must be prepared and its texts extracted with all layers, under the name that `--cache` gives. Every
finished measurement is a line of benchmarks/results/efficiency.jsonl, so the script can be stopped and goes on.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from backbone_in_loop.methods import TRAINED, UNCACHED
from backbone_in_loop.training import Problem, start
from documents import DOCS, write_tables
from efficiency_tables import tables
from lines import Lines
from measuring import Budget, device_memory, in_a_fork, time_steps, time_validation

from ssna import AdaptOptions, ExtractOptions, estimate, extract
from ssna.api.adapt import _prepare_training
from ssna.cache import find_cache
from ssna.corpus import load_corpus
from ssna.dataset import open_dataset
from ssna.inputs import read_inputs
from ssna.stage2_adapt import PRECISIONS, Epoch, Processes, Training, evaluate_fully
from ssna.stage2_adapt.metrics import CUTOFFS
from ssna.stage2_adapt.options import Precision

RESULTS = Path(__file__).parent / "results" / "efficiency.jsonl"
DOCUMENT = DOCS / "efficiency.md"
CHECKPOINTS = RESULTS.parent / ".curves"
STREAMED_BUDGET = 32 * 2**20
_CONSTANTS_OF = 512  # Texts, where only time and memory are measured.


@dataclass(frozen=True)
class Row:
    """A way to train the recommender."""

    method: str
    """`cached`, or one of `backbone_in_loop.METHODS`"""
    checkpointing: bool = False
    dropout: bool = True
    """Whether the LLM's own acts while it learns"""
    loss: str = "in-batch"
    budget: int | None = None
    """Bytes that cached states may take; None holds all of them"""

    def options(self, **more: Any) -> AdaptOptions:
        """Of its training; nobody averages parameters, which would hold all of an LLM's once more."""
        return AdaptOptions(loss=self.loss, averaging=0.0, **more)  # type: ignore[arg-type]


ROWS: dict[str, Row] = {
    "ssna": Row("cached"),
    "ssna-default": Row("cached", loss=AdaptOptions().loss),
    "ssna-streamed": Row("cached", budget=STREAMED_BUDGET),
    UNCACHED: Row(UNCACHED),
    **{method: Row(method) for method in reversed(TRAINED)},
    **{f"{method}-checkpointing": Row(method, checkpointing=True) for method in reversed(TRAINED)},
    **{f"{method}-no-dropout": Row(method, dropout=False) for method in ("lora", "full")},
}
VALIDATED = ("ssna", "ssna-default", "ssna-streamed", UNCACHED, "lora", "full")
"""Rows whose validation is measured; that of BitFit and adapters hardly differs, since all of them read all texts"""


@dataclass(frozen=True)
class Setting:
    """What all rows share."""

    dataset: Path
    llm: str
    """Folder or hub id"""
    cache: str
    """Name of the cache"""
    cache_root: Path
    device: str
    threads: int
    precision: Precision
    """Of the training and of the LLM"""
    learning_rate: float | None = None
    """Of the LLM's parameters; None takes each method's"""

    def of(self, kind: str, **more: Any) -> dict[str, Any]:
        """What tells a measurement from all others."""
        about = {"dataset": self.dataset.name, "fingerprint": open_dataset(self.dataset).fingerprint[:12]}
        how = {"device": self.device, "threads": self.threads, "precision": self.precision}
        return {"kind": kind, **about, "llm": self.cache, **how, **more}

    def training(self, row: Row, constants_of: int | None = None) -> tuple[Training, Problem]:
        """A training that has not begun, and what it is trained on."""
        torch.set_num_threads(self.threads)
        options, device = row.options(precision=self.precision), torch.device(self.device)
        if row.method == "cached":
            inputs = read_inputs(self.dataset, [], [find_cache(self.cache_root, self.cache)], None, options)
            budget = 2**62 if row.budget is None else row.budget
            prepared = _prepare_training(inputs, options, device, Processes(), budget, None)
            return prepared.training, Problem.of(inputs.corpus)
        problem = Problem.of(load_corpus(open_dataset(self.dataset), options))
        training = start(
            problem,
            self.llm,
            row.method,
            options,
            device,
            checkpointing=row.checkpointing,
            dropout=row.dropout,
            learning_rate=self.learning_rate,
            constants_of=constants_of,
        )
        return training, problem


@click.group()
def main() -> None:
    """Measure, or print what was measured."""


def _setting(command: Callable[..., None]) -> Callable[..., None]:
    """The argument and options of a setting."""
    for decorate in (
        click.argument("dataset", type=click.Path(path_type=Path, exists=True)),
        click.option("--llm", required=True, help="Folder or hub id."),
        click.option("--cache", required=True, help="Name of its cache, with the dataset's texts."),
        click.option("--cache-root", type=click.Path(path_type=Path), required=True),
        click.option("--device", default="cpu", show_default=True),
        click.option("--threads", default=1, show_default=True),
        click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True),
    ):
        command = decorate(command)
    return command


@main.command()
@_setting
@click.option("--row", "rows", multiple=True, type=click.Choice(list(ROWS)), default=list(ROWS))
@click.option("--stretches", default=Budget.stretches, show_default=True)
@click.option("--seconds", default=Budget.seconds, show_default=True, help="Of a stretch, at most.")
def measure(rows: tuple[str, ...], stretches: int, seconds: float, **given: Any) -> None:
    """Seconds an epoch, memory and trainable parameters of every row, the one extraction, and what was estimated."""
    setting, results = Setting(**given), Lines(RESULTS)
    budget, validated = Budget(stretches, seconds), [name for name in rows if name in VALIDATED]
    fill_in(
        results,
        [
            (setting.of("extraction"), partial(extraction, setting)),
            (setting.of("second extraction"), partial(second_extraction, setting)),
            (setting.of("estimate"), partial(estimated, setting)),
            *((setting.of("epoch", row=name), partial(epoch, setting, ROWS[name], budget)) for name in rows),
            *((setting.of("validation", row=name), partial(validation, setting, ROWS[name])) for name in validated),
        ],
    )


def fill_in(results: Lines, wanted: Sequence[tuple[dict[str, Any], Callable[[], Mapping[str, Any]]]]) -> None:
    """Measure what is missing, each in a process of its own, one after the other."""
    for of, work in wanted:
        if of in results:
            click.echo(f"Measured before: {json.dumps(of)}", err=True)
            continue
        line = results.add(of, in_a_fork(work))
        click.echo(json.dumps({name: value for name, value in line.items() if name != "curve"}), err=True)


def extraction(setting: Setting) -> dict[str, Any]:
    """Stage one for all texts of the dataset, into a new cache, with the LLM's loading."""
    torch.set_num_threads(setting.threads)
    with tempfile.TemporaryDirectory() as root:
        options = ExtractOptions(dtype=setting.precision)
        done = extract(
            setting.dataset, setting.llm, name="measured", cache_root=root, options=options, device=setting.device
        )
    found = {name: getattr(done, name) for name in ("texts", "tokens", "padding", "seconds", "bytes")}
    return {**found, "layers": len(done.layers), **device_memory(torch.device(setting.device))}


def second_extraction(setting: Setting) -> dict[str, Any]:
    """Stage one where the cache has all texts already: for a second dataset of the same items, or a smaller a."""
    torch.set_num_threads(setting.threads)
    found, of_cache = {}, {"name": setting.cache, "cache_root": setting.cache_root, "device": setting.device}
    for name, layers in (("seconds", None), ("seconds_of_one_layer", 1)):
        started, options = time.perf_counter(), ExtractOptions(layers=layers)
        done = extract(setting.dataset, setting.llm, options=options, **of_cache)
        if done.extracted:
            raise click.ClickException(
                f"The cache {setting.cache} lacked {done.extracted} texts. It has them now: run it again."
            )
        found[name] = round(time.perf_counter() - started, 3)
    return found


def estimated(setting: Setting) -> dict[str, Any]:
    """What `ssna estimate` says beforehand, with the dataset's real number of texts, tokens and interactions."""
    torch.set_num_threads(setting.threads)
    corpus = load_corpus(open_dataset(setting.dataset), AdaptOptions())
    read = Lines(RESULTS)[setting.of("extraction")]
    texts, tokens = read["texts"], read["tokens"]
    history = round(len(corpus.sequences.items) / corpus.sequences.num_users)
    found: dict[str, Any] = {}
    for name in ("ssna", "ssna-default"):
        one = estimate(
            setting.llm,
            texts,
            tokens=tokens / texts,
            history=history,
            adapt_options=ROWS[name].options(precision=setting.precision),
            extract_options=ExtractOptions(dtype=setting.precision),
            device=setting.device,
        )
        found |= {"extraction_seconds": one.extraction_seconds, "cache_bytes": one.cache_bytes}
        found[name] = one.training_bytes
    return found


def epoch(setting: Setting, row: Row, budget: Budget) -> dict[str, Any]:
    """Of a row, what `time_steps` says."""
    training, _ = setting.training(row, _CONSTANTS_OF)
    return time_steps(training, torch.device(setting.device), budget)


def validation(setting: Setting, row: Row) -> dict[str, Any]:
    """What `time_validation` says."""
    training, _ = setting.training(row, _CONSTANTS_OF)
    return time_validation(training, torch.device(setting.device))


@main.command()
@_setting
@click.option("--row", "name", required=True, type=click.Choice(list(ROWS)))
@click.option("--learning-rate", type=float, help="Of the LLM's parameters, instead of the method's.")
@click.option("--time-limit", type=float, help="Seconds of training after which no further epoch begins.")
def curve(name: str, learning_rate: float | None, time_limit: float | None, **given: Any) -> None:
    """Train to the end; validation metrics over time. Stopped at any time, it goes on from its last epoch."""
    setting, results = Setting(**given, learning_rate=learning_rate), Lines(RESULTS)
    of = setting.of("curve", row=name, learning_rate=learning_rate)
    path = CHECKPOINTS / "-".join(str(value) for value in of.values())
    # What was cut short is another measurement, and goes on from the same checkpoint.
    of |= {} if time_limit is None else {"time_limit": time_limit}
    fill_in(results, [(of, partial(converge, setting, ROWS[name], path, time_limit))])
    if time_limit is None:
        path.unlink(missing_ok=True)


def converge(setting: Setting, row: Row, path: Path, time_limit: float | None) -> dict[str, Any]:
    """Train until validation is no better for as many epochs as the product waits, and test the best epoch."""
    device = torch.device(setting.device)
    training, problem = setting.training(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        training.restore(path)

    def say(epoch: Epoch) -> None:
        click.echo(f"{path.name}: {json.dumps(vars(epoch))}", err=True)

    training.run(path, say, time_limit=time_limit)
    test = evaluate_fully(training.recommender(), problem.sequences, problem.split, "test", device).metrics
    kept = {f"{metric}@{k}" for metric in ("recall", "ndcg") for k in CUTOFFS}
    return {
        "best_epoch": training.history.best_epoch,
        "curve": [
            [e["seconds"], e["valid_seconds"], round(e["valid"]["recall@10"], 5), round(e["valid"]["ndcg@10"], 5)]
            for e in training.history.epochs
        ],
        "test": {metric: value for metric, value in test.items() if metric in kept},
        "trainable_parameters": training.trainable_parameters,
    }


@main.command()
def table() -> None:
    """Print the tables, as Markdown, and put them into docs/efficiency.md."""
    found = tables(Lines(RESULTS))
    for name, text in found.items():
        click.echo(f"### {name}\n\n{text}\n")
    write_tables(DOCUMENT, found)


@main.command()
def plot() -> None:
    """Draw docs/plots/efficiency*.svg: accuracy over time, and cost by what grows."""
    from efficiency_plots import plots

    drawn = plots(Lines(RESULTS), DOCS / "plots")
    for path in drawn:
        click.echo(path)
    if not drawn:
        click.echo("Nothing to draw yet: a curve needs its dataset's extraction, which `measure` adds.", err=True)


if __name__ == "__main__":
    main()
