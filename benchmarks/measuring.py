"""Time and memory of training, each in a process of its own."""

from __future__ import annotations

import io
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

import ssna.cli  # noqa: F401  # What it tells PyTorch's libraries, as every command does.
from ssna.stage2_adapt import AdaptOptions, ResidentStates, Sequences, Training, TrainingData, leave_last
from ssna.stage2_adapt.batches import Batch
from ssna.stage2_adapt.training import _BatchStates

_UNIT = 1 if sys.platform == "darwin" else 1024
_WARM_UP = 2
_STEPS_BEFORE_VALIDATION, _VALIDATIONS, _SECONDS_OF_VALIDATIONS = 4, 3, 20.0


def in_a_fork(work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What the work gives, done in a fork of this process, and the `memory` it took beyond an idle one, in bytes.

    On a CPU that is the fork's resident peak (wait4) less that of a fork which only wakes the libraries, as every fork
    does first: they load much of themselves when they are first used. On a GPU the work says what its allocator's peak
    was, as `device_memory`. This process must not have computed anything: threads do not come along into a fork.

    Raises:
        RuntimeError: if the work fails; its traceback is printed.
    """

    def after_waking() -> Mapping[str, Any]:
        _wake_libraries()
        return work()

    _, idle = _forked(lambda: _wake_libraries() or {})
    found, peak = _forked(after_waking)
    return {**found, "memory": found.get("device_memory", peak - idle)}


def _wake_libraries() -> None:
    """Use everything that a training uses, on next to nothing."""
    import peft
    import transformers

    peft.LoraConfig()
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.AutoModel.from_config(config)(input_ids=torch.ones(2, 3, dtype=torch.long))
    assert transformers.AutoTokenizer
    table = pl.DataFrame({"number": [1, 2], "text": ["a", "b"]})
    table.write_parquet(buffer := io.BytesIO())
    buffer.seek(0)
    table.join(pl.read_parquet(buffer), on="text").sort("number").filter(pl.col("number") > 1)
    sequences = Sequences(np.tile(np.arange(1, 9), 4), np.arange(5) * 8)
    states = ResidentStates([torch.randn(2, 8, 4)])
    options = AdaptOptions(width=8, epochs=1, loss="in-batch")
    training = Training(
        TrainingData(sequences, leave_last(sequences), 8, 8, states, [(2, 4)]), options, torch.device("cpu")
    )
    with tempfile.TemporaryDirectory() as folder:
        training.run(Path(folder) / "checkpoint", lambda epoch: None)


def _forked(work: Callable[[], Mapping[str, Any]]) -> tuple[dict[str, Any], int]:
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                json.dump(work(), pipe)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"the measured process ended with status {status}; its output is above")
    return json.loads(text), usage.ru_maxrss * _UNIT


@dataclass(frozen=True)
class Budget:
    """How long a measurement may take."""

    stretches: int = 5
    """Measured stretches, of which the median counts"""
    seconds: float = 20.0
    """After which a stretch ends at the next step, or earlier with the epoch"""


def time_steps(training: Training, device: torch.device, budget: Budget) -> dict[str, Any]:
    """Seconds of a training's steps once it runs steadily, and what they need besides.

    Every method sees the same batches. What the training loop does between epochs (validation, the copy of the best
    parameters) is not part of it.
    """
    training._best = {}
    training._modules.train()
    an_epoch = training._batches.steps
    batches, items = _endless(training), list[int]()
    seconds, done = list[float](), list[int]()
    for stretch in range(-1, budget.stretches):
        started, steps = time.perf_counter(), 0
        while steps < (_WARM_UP if stretch < 0 else an_epoch):
            batch, states = next(batches)
            loss, _, _ = training._step(batch, states)
            items.append(len(batch.items))
            steps += 1
            if stretch >= 0 and time.perf_counter() - started > budget.seconds:
                break
        _check(loss)
        if stretch >= 0:
            seconds.append((time.perf_counter() - started) / steps)
            done.append(steps)
    return {
        "steps_an_epoch": an_epoch,
        "steps": done,
        "seconds_a_step": [round(value, 6) for value in seconds],
        "epoch_seconds": round(statistics.median(seconds) * an_epoch, 4),
        "items_a_step": round(statistics.mean(items), 1),
        "trainable_parameters": training.trainable_parameters,
        **device_memory(device),
    }


def time_validation(training: Training, device: torch.device) -> dict[str, Any]:
    """Seconds of a validation after a few steps, of one that is short the median of three; and memory of all that."""
    training._best = {}
    training._modules.train()
    for batch, states in itertools.islice(_endless(training), _STEPS_BEFORE_VALIDATION):
        loss, _, _ = training._step(batch, states)
    _check(loss)
    seconds = list[float]()
    while len(seconds) < _VALIDATIONS and sum(seconds) < _SECONDS_OF_VALIDATIONS:
        started = time.perf_counter()
        training._validate()
        seconds.append(time.perf_counter() - started)
    return {"seconds": round(statistics.median(seconds), 3), **device_memory(device)}


def _check(loss: torch.Tensor) -> None:
    """Wait for the device, and see that a training did not break down.

    Raises:
        RuntimeError: if it did.
    """
    if not loss.isfinite():
        raise RuntimeError(f"the loss is {loss.item()}: a training that breaks down is not measured")


def _endless(training: Training) -> Iterator[tuple[Batch, _BatchStates]]:
    for epoch in range(sys.maxsize):
        yield from training._batches_with_states(torch.Generator().manual_seed(epoch))


def device_memory(device: torch.device) -> dict[str, int]:
    """On a GPU its allocator's peak in this process, as `device_memory`; nothing on a CPU."""
    return {"device_memory": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}
