"""Speed and memory of stage two (docs/performance.md).

    python benchmarks/train.py epoch DATASET --rectools rectools-env/bin/python --recbole recbole-env/bin/python
    python benchmarks/train.py profile DATASET
    python benchmarks/train.py softmax
    python benchmarks/train.py streaming

How long training takes does not depend on what the states are, so made-up ones stand in for an LLM's. The scripts in
benchmarks/peers/ say how the peers' environments are made; without one, that peer is left out.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssna import AdaptOptions
from ssna.cache import Cache, SegmentWriter, keys_of_texts
from ssna.corpus import Corpus, load_corpus
from ssna.dataset import open_dataset
from ssna.stage2_adapt import (
    Epoch,
    ItemStates,
    Preparation,
    ResidentStates,
    Sequences,
    StreamedStates,
    Training,
    TrainingData,
    evaluate_fully,
    leave_last,
)

LAYERS, STATE_WIDTH = 6, 384
_ROWS_AT_ONCE, _EVALUATIONS = 10_000, 3
_AS_IS: dict[str, Any] = {"prefix": "", "suffix": "", "remote_code": None}
PEERS = Path(__file__).parent / "peers"
CPU = torch.device("cpu")


@click.group()
def main() -> None:
    """Measure."""


def made_up_cache(folder: Path, items: int, layers: int = LAYERS, width: int = STATE_WIDTH) -> Cache:
    """A cache of so many random rows, the texts "0", "1", …"""
    llm = {"source": "made-up", "blocks": layers, "state_width": width}
    settings = {"max_tokens": 512, "compute_dtype": "float32", "stored_dtype": "float16", "pooling": "mean", **_AS_IS}
    settings |= {"made up": [layers, width]}
    cache, rng = Cache.create(folder, "made-up", settings, llm), np.random.default_rng(0)
    if len(cache) == items:
        return cache
    block = rng.normal(size=(min(items, _ROWS_AT_ONCE), layers, width)).astype(np.float32)
    with SegmentWriter(cache, list(range(layers, 0, -1)), "float16", "made-up") as writer:
        for first in range(0, items, _ROWS_AT_ONCE):
            n = min(_ROWS_AT_ONCE, items - first)
            keys = keys_of_texts(str(number) for number in range(first, first + n))
            writer.add(keys, block[:n] + first / items, np.full(n, 9, np.uint32), np.zeros(n, np.bool_))
    return Cache.open(cache.path)


def made_up_sequences(users: int, length: int, items: int) -> Sequences:
    """Users with as many random items each."""
    rng = np.random.default_rng(0)
    return Sequences(rng.integers(1, items + 1, users * length), np.arange(users + 1) * length)


def as_they_are(layers: int = LAYERS, width: int = STATE_WIDTH) -> Preparation:
    """Constants that change nothing; fitting them is no part of an epoch."""
    return Preparation(torch.zeros(layers, width), torch.ones(layers, width))


# Linux's own count for this process alone: what `getrusage` says includes the process that started it.
def peak_bytes() -> int:
    """The most memory that this process has taken, mapped files included."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def in_a_process(command: str, **arguments: Any) -> dict[str, Any]:
    """What a command of this script prints, run in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, command, json.dumps(arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def train_epochs(data: TrainingData, options: AdaptOptions) -> tuple[Training, list[Epoch]]:
    """A training that has ended, and its epochs."""
    training, epochs = Training(data, options, CPU), list[Epoch]()
    with tempfile.TemporaryDirectory() as folder:
        training.run(Path(folder) / "checkpoint", epochs.append)
    return training, epochs


# ---- seconds an epoch ------------------------------------------------------------------------------------------------


@main.command()
@click.argument("dataset", type=click.Path(exists=True, path_type=Path))
@click.option("--rectools", type=click.Path(exists=True), help="Python of RecTools' environment.")
@click.option("--recbole", type=click.Path(exists=True), help="Python of RecBole's environment.")
@click.option("--epochs", default=4, show_default=True, help="The first is not counted.")
@click.option("--threads", default=2, show_default=True)
@click.option("--loss", default="softmax", show_default=True)
@click.option("--rounds", default=2, show_default=True, help="Of all contestants, one after the other.")
def epoch(
    dataset: Path, rectools: str | None, recbole: str | None, epochs: int, threads: int, loss: str, rounds: int
) -> None:
    """Seconds an epoch, and to rank all items for all test users; of ours also the part of the arithmetic limit."""
    ours = {"dataset": str(dataset), "threads": threads, "loss": loss, "epochs": epochs}
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, PEERS / "export.py", dataset, folder], check=True)
        budget = ["--epochs", str(epochs), "--threads", str(threads), "--evaluations", str(_EVALUATIONS)]
        peers = {}
        if rectools:
            peers["RecTools"] = [rectools, PEERS / "rectools_sasrec.py", folder, *budget]
        if recbole:
            peers["RecBole"] = [recbole, PEERS / "recbole_sasrec.py", folder, *budget]

        def note(name: str, result: dict[str, Any]) -> None:
            click.echo(f"{name}: {json.dumps(result)}", err=True)
            found.setdefault(name, []).append(result)

        for _ in range(rounds):
            for side in ("none", "gru", "residual", "mean"):
                name = "ssna, IDs" if side == "none" else f"ssna, {side} of 6 layers"
                note(name, in_a_process("one-epoch", side=side, **ours))
            for name, command in peers.items():
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                note(name, json.loads(done.stdout))
    medians = {
        name: {
            "train": statistics.median(seconds for result in results for seconds in result["train"][1:]),
            "evaluate": statistics.median(seconds for result in results for seconds in result["evaluate"]),
            "limit": statistics.median(result.get("limit", float("nan")) for result in results),
        }
        for name, results in found.items()
    }
    reference = medians["ssna, IDs"]
    for name, result in medians.items():
        click.echo(
            f"{name:32s} training {result['train'] / reference['train']:6.2f} ×   "
            f"evaluation {result['evaluate'] / reference['evaluate']:6.2f} ×   "
            + (f"{result['limit']:.0%} of the arithmetic limit" if result["limit"] > 0 else "")
        )
    click.echo(f"1.00 × is {reference['train']:.2f} s of training and {reference['evaluate']:.2f} s of evaluation")


def training_lengths(corpus: Corpus) -> np.ndarray:
    """Of each user with any, the number of targets in training."""
    lengths = corpus.split.train_end - corpus.sequences.starts[:-1] - 1
    return lengths[lengths > 0]


def training_data(corpus: Corpus, options: AdaptOptions) -> TrainingData:
    """A dataset's sequences with made-up states, if any are wanted."""
    num_items, states, sizes = len(corpus.items), ResidentStates(), []
    if options.needs_states:
        states = ResidentStates([torch.randn(LAYERS, num_items, STATE_WIDTH)])
        sizes = [(LAYERS, STATE_WIDTH)]
    return TrainingData(corpus.sequences, corpus.split, num_items, corpus.num_trained, states, sizes)


@main.command("one-epoch", hidden=True)
@click.argument("arguments", type=json.loads)
def one_epoch(arguments: dict[str, Any]) -> None:
    """One of our contestants of `epoch`."""
    torch.set_num_threads(arguments["threads"])
    options = AdaptOptions(
        side=arguments["side"], loss=arguments["loss"], epochs=arguments["epochs"], patience=arguments["epochs"]
    )
    corpus = load_corpus(open_dataset(Path(arguments["dataset"])), options)
    training, epochs = train_epochs(training_data(corpus, options), options)
    evaluate = []
    for _ in range(_EVALUATIONS):
        started = time.perf_counter()
        evaluate_fully(training.recommender(), corpus.sequences, corpus.split, "test", CPU)
        evaluate.append(time.perf_counter() - started)
    train = [epoch.seconds for epoch in epochs]
    limit = useful_flops(corpus, options) / matrix_flops_a_second() / statistics.median(train[1:])
    click.echo(json.dumps({"train": train, "evaluate": evaluate, "limit": limit}))


def useful_flops(corpus: Corpus, options: AdaptOptions) -> float:
    """Of matrix products that an epoch under the full softmax needs, without padding; 2 a multiply-add.

    Of attention only one window a user is counted, so it is a little low for users with more.

    A product whose inputs are trained as well takes three times its forward pass, one of fixed inputs twice.
    """
    d, length, items = options.width, options.length, corpus.num_trained
    lengths = training_lengths(corpus)
    positions = int(lengths.sum())
    windows = int((-(-lengths // length)).sum())
    blocks = options.blocks * positions * 12 * d * d
    attention = (
        options.blocks * float((np.minimum(lengths, length).astype(float) ** 2).sum()) * d
    )  # Causal: half of 2 L²d.
    total = 3 * (blocks + attention + positions * items * d)
    if options.needs_states:
        fixed = (LAYERS + 1) * STATE_WIDTH * d  # Down-projections and the skip
        # Products of d × d: the adapters', and the integration's; its state is nothing before the first layer.
        inside = {"gru": 3 * LAYERS + 3 * (LAYERS - 1), "residual": 2 * (LAYERS - 1), "mean": 0}[options.side]
        trained = d * d * (LAYERS + inside)
        total += -(-windows // options.batch_size) * items * (2 * fixed + 3 * trained)
    return 2 * total


def matrix_flops_a_second() -> float:
    """The rate of a large product, best of several."""
    one, other = torch.randn(2048, 2048), torch.randn(2048, 2048)
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        torch.mm(one, other)
        seconds.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(seconds)


# ---- where the time goes ---------------------------------------------------------------------------------------------


@main.command()
@click.argument("dataset", type=click.Path(exists=True, path_type=Path))
@click.option("--side", default=AdaptOptions.side, show_default=True)
@click.option("--loss", default=AdaptOptions.loss, show_default=True)
@click.option("--rows", default=12, show_default=True, help="Operators to print.")
def profile(dataset: Path, side: str, loss: str, rows: int) -> None:
    """The operators of an epoch's training that take most of the time, each without those that it calls."""
    torch.set_num_threads(1)
    options = AdaptOptions(side=side, loss=loss)  # type: ignore[arg-type]
    corpus = load_corpus(open_dataset(dataset), options)
    training = Training(training_data(corpus, options), options, CPU)
    training._train_epoch(None)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        training._train_epoch(None)
    averages = profiler.key_averages()
    total = sum(each.self_cpu_time_total for each in averages)
    for each in sorted(averages, key=lambda each: -each.self_cpu_time_total)[:rows]:
        click.echo(f"{each.key:48s} {each.self_cpu_time_total / total:6.1%}   {each.count:,} calls")


# ---- memory of the full softmax --------------------------------------------------------------------------------------


@main.command()
@click.option("--items", default="20000,60000,200000", show_default=True, help="Catalogue sizes.")
def softmax(items: str) -> None:
    """Peak memory that the full softmax adds to its inputs and their gradients, and that training steps take."""
    for count in map(int, items.split(",")):
        loss = in_a_process("one-softmax", items=count)["loss"]
        steps = {side: in_a_process("one-step", items=count, side=side) for side in (AdaptOptions.side, "none")}
        text, ids = (steps[side]["peak"] / 2**20 for side in (AdaptOptions.side, "none"))
        click.echo(
            f"{count:>8,} items   loss {loss / 2**20:6.0f} MiB   a step: text {text:6.0f} MiB, IDs {ids:6.0f} MiB"
        )


@main.command("one-softmax", hidden=True)
@click.argument("arguments", type=json.loads)
def one_softmax(arguments: dict[str, Any]) -> None:
    """Memory of the loss, beyond inputs and gradients."""
    from ssna.stage2_adapt.losses import softmax_loss

    def run(count: int) -> None:
        states = (14 * functional.normalize(torch.randn(6400, 64))).requires_grad_()
        vectors = functional.normalize(torch.randn(count, 64)).requires_grad_()
        softmax_loss(states, vectors, torch.randint(0, count, (6400,))).backward()

    torch.set_num_threads(2)
    run(100)
    before = peak_bytes()
    run(arguments["items"])
    # Vectors, those at length one and their gradient, and the gradient of the vectors themselves.
    click.echo(json.dumps({"loss": peak_bytes() - before - 4 * arguments["items"] * 64 * 4}))


@main.command("one-step", hidden=True)
@click.argument("arguments", type=json.loads)
def one_step(arguments: dict[str, Any]) -> None:
    """Memory of a few training steps, beyond libraries and states."""
    torch.set_num_threads(2)
    count = arguments["items"]
    options = AdaptOptions(side=arguments["side"], loss="softmax", epochs=1, patience=1)
    sequences = made_up_sequences(3 * options.batch_size, 50, count)
    states, sizes = ResidentStates(), []
    if options.needs_states:
        states = ResidentStates([torch.randn(LAYERS, count, STATE_WIDTH)])
        sizes = [(LAYERS, STATE_WIDTH)]
    before = peak_bytes()
    train_epochs(TrainingData(sequences, leave_last(sequences), count, count, states, sizes), options)
    click.echo(json.dumps({"peak": peak_bytes() - before}))


# ---- streaming -------------------------------------------------------------------------------------------------------


@main.command()
@click.option("--items", default=1_000_000, show_default=True)
@click.option("--users", default=5_000, show_default=True, help="Of ten interactions each.")
@click.option("--loss", default="sampled", show_default=True)
@click.option("--budget", default=200_000_000, show_default=True, help="Bytes that streamed states may take.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the made-up cache is or goes, and stays.")
def streaming(items: int, users: int, loss: str, budget: int, folder: Path | None) -> None:
    """Seconds an epoch from streamed and from resident states, and the memory that they take.

    That is the peak of the process, less that of a third one, whose states are one number and take none.
    """
    arguments = {"items": items, "users": users, "loss": loss, "budget": budget}
    with tempfile.TemporaryDirectory() as temporary:
        cache = made_up_cache(folder or Path(temporary), items)
        found = {
            mode: in_a_process("one-stream", mode=mode, cache=str(cache.path), **arguments)
            for mode in ("none", "streamed", "resident")
        }
        on_disk = cache.size_on_disk()
    states = 4 * items * LAYERS * STATE_WIDTH
    click.echo(
        f"states {states / 2**20:,.0f} MiB in float32, {on_disk / 2**20:,.0f} MiB on disk; "
        f"budget {budget / 2**20:.0f} MiB"
    )
    for mode in ("streamed", "resident"):
        times = [found[mode][part] / found["resident"][part] for part in ("train", "valid")]
        held = found[mode]["peak"] - found["none"]["peak"]
        click.echo(
            f"{mode:9s} training {times[0]:.2f} ×   embedding and ranking all items {times[1]:.2f} ×   "
            f"memory of the states {held / 2**20:,.0f} MiB   of the process {found[mode]['peak'] / 2**20:,.0f} MiB"
        )
    click.echo(f"same losses and metrics: {found['streamed']['outcome'] == found['resident']['outcome']}")


@dataclass(frozen=True)
class NoStates:
    """Stands in for states that take no memory."""

    items_at_once: int | None = None

    def between(self, first: int, last: int) -> list[Tensor]:
        """Zeros, all of them the same one."""
        return [torch.zeros(1).expand(LAYERS, last - first, STATE_WIDTH)]

    def of(self, items: Tensor) -> list[Tensor]:
        """Likewise."""
        return self.between(0, len(items))


@main.command("one-stream", hidden=True)
@click.argument("arguments", type=json.loads)
def one_stream(arguments: dict[str, Any]) -> None:
    """One of the modes of `streaming`."""
    torch.set_num_threads(2)
    items, mode = arguments["items"], arguments["mode"]
    rows = Cache.open(Path(arguments["cache"])).select(keys_of_texts(str(number) for number in range(items)), LAYERS)
    options = AdaptOptions(loss=arguments["loss"], epochs=2, patience=2)
    states: ItemStates = NoStates()
    if mode == "streamed":
        states = StreamedStates.within(arguments["budget"], [rows], [as_they_are()], CPU)
    elif mode == "resident":
        states = ResidentStates.read([rows], [as_they_are()], CPU)
    sequences = made_up_sequences(arguments["users"], 10, items)
    data = TrainingData(sequences, leave_last(sequences), items, items, states, [(LAYERS, STATE_WIDTH)])
    _, epochs = train_epochs(data, options)
    last = epochs[-1]
    outcome = [[epoch.loss, epoch.valid] for epoch in epochs]
    click.echo(
        json.dumps({"train": last.seconds, "valid": last.valid_seconds, "peak": peak_bytes(), "outcome": outcome})
    )


if __name__ == "__main__":
    main()
