"""What `ssna estimate` says, beside what the commands take (docs/efficiency.md).

    python benchmarks/estimates.py --tokenizer LLM_FOLDER --threads 1
    python benchmarks/estimates.py --tokenizer LLM_FOLDER --case SmolLM

Every case is a process of its own, as a user would start it: `ssna extract` of made-up texts by an LLM with random
weights, or `ssna adapt` on made-up states, three epochs with their validation. Finished cases are lines of
benchmarks/results/efficiency.jsonl, whose tables `efficiency.py table` prints. The folder of the tokenizer is that of a
BERT with the uncased English vocabulary, such as all-MiniLM-L6-v2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
from efficiency import RESULTS
from growth import WORDS, random_llm
from lines import Lines
from train import made_up_cache

HISTORY, _SHORTEST = 10, 3
EPOCHS = 3
_NAME = "made-up"
_SEED, _USERS = 0, 2_000


@dataclass(frozen=True)
class Reading:
    """An extraction."""

    shape: str
    """Key of `growth.SHAPES` or `growth.DECODERS`"""
    texts: int
    tokens: int
    """Of each text, the two special ones included"""
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.shape}, {self.texts:,} texts of {self.tokens} tokens, {self.dtype}"


@dataclass(frozen=True)
class Adapting:
    """A training."""

    items: int
    layers: int = 6
    width: int = 384
    """Of the layer states"""
    options: tuple[str, ...] = ()
    """Of `ssna adapt` and of `ssna estimate`"""

    def __str__(self) -> str:
        return f"{self.items:,} items, {self.layers} × {self.width}{''.join(f' {each}' for each in self.options)}"


EXTRACTIONS = (
    Reading("MiniLM", 50, 16),
    Reading("MiniLM", 4_000, 16),
    Reading("MiniLM", 500, 128),
    Reading("MiniLM", 4_000, 16, "bfloat16"),
    Reading("BERT-base", 1_000, 16),
    Reading("BERT-base", 500, 64, "bfloat16"),
    Reading("BERT-large", 500, 16),
    Reading("BERT-large", 500, 32, "bfloat16"),
    Reading("SmolLM-135M", 500, 32),
    Reading("SmolLM-135M", 1_000, 32, "bfloat16"),
)
TRAININGS = (
    Adapting(1_000),
    Adapting(10_000),
    Adapting(100_000),
    Adapting(100_000, options=("--memory-budget", "100MB")),
    Adapting(10_000, 1),
    Adapting(10_000, 3),
    Adapting(10_000, 12, 768),
    Adapting(5_000, 8, 4096),
    Adapting(10_000, options=("--loss", "softmax")),
    Adapting(10_000, options=("--loss", "in-batch")),
    Adapting(10_000, options=("--precision", "bfloat16")),
    Adapting(10_000, options=("--item-id",)),
    Adapting(10_000, options=("--width", "256")),
    Adapting(10_000, options=("--batch-size", "512")),
)

NOTHING = Adapting(2 * HISTORY, 1, 8, ("--width", "8", "--heads", "1", "--batch-size", "1", "--negatives", "1"))
"""Whose memory is that of the libraries"""


@click.command()
@click.option("--tokenizer", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of an LLM.")
@click.option("--case", "part", default="", help="Only cases with this in their name.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(tokenizer: Path, part: str, device: str, threads: int) -> None:
    """Measure the cases that are missing."""
    results = Lines(RESULTS)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    for case in (*EXTRACTIONS, *TRAININGS):
        if isinstance(case, Reading):
            what, work = "extraction", partial(extraction, case, tokenizer)
        else:
            what, work = "training", partial(training, case)
        of = {"kind": "estimate check", "of": what, "case": str(case), "device": device, "threads": threads}
        if of in results or part not in str(case):
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = work(Path(folder), device)
        results.add(of, found)
        click.echo(f"{case}: {json.dumps(found)}", err=True)


def extraction(case: Reading, tokenizer: Path, folder: Path, device: str) -> dict[str, Any]:
    """Seconds, estimated and measured."""
    llm = random_llm(case.shape, None, tokenizer, folder)
    rng = np.random.default_rng(_SEED)
    texts = [" ".join(rng.choice(WORDS, case.tokens - 2)) for _ in range(case.texts)]
    dataset = made_up_dataset(folder, texts)
    shared = ("--device", device, "--dtype", case.dtype, "--json")
    said = ssna("estimate", llm, "--items", len(set(texts)), "--tokens", case.tokens, *shared)
    done = ssna("extract", dataset, "--llm", llm, "--name", _NAME, "--cache-root", folder / "caches", *shared)
    return {"estimated": said["extraction_seconds"], "measured": done["seconds"]}


def training(case: Adapting, folder: Path, device: str) -> dict[str, Any]:
    """Bytes beyond those of the command on next to nothing, estimated and measured."""
    peak, idle = (peak_of(each, folder / name, device) for name, each in (("case", case), ("nothing", NOTHING)))
    config = {"model_type": "bert", "hidden_size": case.width, "num_hidden_layers": case.layers}
    heads = {"num_attention_heads": case.width // 64, "intermediate_size": 4 * case.width, "vocab_size": 30_522}
    (folder / "config.json").write_text(json.dumps({**config, **heads, "architectures": ["BertModel"]}))
    said = ssna(
        "estimate", folder, "--items", case.items, "--history", HISTORY, "--device", device, "--json", "--tflops", 1,
        *case.options,
    )  # fmt: skip
    return {"estimated": said["training_bytes"], "measured": peak - idle}


def peak_of(case: Adapting, place: Path, device: str) -> int:
    """Bytes of `ssna adapt`; on a CPU with all its libraries."""
    place.mkdir()
    cache = made_up_cache(place, case.items, case.layers, case.width)
    dataset = made_up_dataset(place, [str(number) for number in range(case.items)], 1 if case is NOTHING else _USERS)
    budget = () if "--memory-budget" in case.options else ("--memory-budget", "1TB")  # Nothing is streamed unasked.
    peak: int = ssna(
        "adapt", dataset, "--cache", cache.path, "--output", place / "run", "--epochs", EPOCHS, "--device", device,
        "--json", *budget, *case.options,
    )["peak_memory_bytes"]  # fmt: skip
    return peak


def made_up_dataset(folder: Path, titles: Sequence[str], users: int = 1) -> Path:
    """A prepared dataset in which each item occurs at least twice; users have `HISTORY` interactions on average.

    Args:
        folder: where it goes.
        titles: of the items.
        users: at least so many.
    """
    rng, items = np.random.default_rng(_SEED), len(titles)
    rounds = max(2, -(-users * HISTORY // items))
    order = np.concatenate([rng.permutation(items) for _ in range(rounds)])
    # As uneven as those of real users, since batches of one shape leave an allocator nothing to lose.
    histories = _SHORTEST - 1 + rng.geometric(1 / (HISTORY + 1 - _SHORTEST), len(order) // _SHORTEST)
    owners = np.repeat(np.arange(len(histories)), histories)[: len(order)]
    pl.DataFrame({"user_id": owners, "item_id": order, "timestamp": 1_600_000_000 + np.arange(len(order))}).write_csv(
        interactions := folder / "interactions.csv"
    )
    pl.DataFrame({"item_id": np.arange(items), "title": titles}).write_csv(described := folder / "items.csv")
    ssna("prepare", interactions, described, folder / "dataset", "--format", "table", "--json")
    return folder / "dataset"


def ssna(*arguments: object) -> dict[str, Any]:
    """What a command prints as JSON."""
    command = [sys.executable, "-m", "ssna", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


if __name__ == "__main__":
    main()
