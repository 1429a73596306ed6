"""Killed at any moment and resumed, a training ends bit for bit as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ssna.dataset import Dataset
from tests.helpers import ssna

OPTIONS = [
    "--llm", "tiny-bert", "--item-id", "--width", "16", "--length", "6", "--batch-size", "16", "--dropout", "0.3",
    "--learning-rate", "0.01", "--device", "cpu", "--threads", "1",
]  # fmt: skip
TIMES = {"seconds", "valid_seconds", "epoch_seconds", "total_seconds", "peak_memory_bytes"}


def outcome(run: Path) -> tuple[list[dict[str, Any]], dict[str, Any], bytes]:
    """All that a run found out: its epochs and results but for times and memory, and its parameters."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines.append(json.loads((run / "results.json").read_text()))
    *epochs, results = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    return epochs, results, (run / "model.safetensors").read_bytes()


def test_killed_at_the_worst_moments_it_resumes_exactly(
    tmp_path: Path, dataset: Dataset, shared_cache_root: Path
) -> None:
    arguments = [str(dataset.path), *OPTIONS, "--cache-root", str(shared_cache_root), "--epochs", "6"]
    command = [sys.executable, "-m", "tests.end_to_end.adapt_kills", str(tmp_path), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    # Lines of metrics.jsonl, and epochs of the checkpoint. What has a line and no checkpoint is trained again.
    assert json.loads(done.stdout) == {
        "the folder is there, but empty": [0, 0],
        "config.json has not its name yet": [0, 0],
        "in the middle of an epoch": [0, 0],
        "before an epoch's line": [0, 0],
        "between a line and its checkpoint": [1, 0],
        "a checkpoint has not its name yet": [1, 0],
        "after two checkpoints, in the third epoch": [2, 2],
        "half a line": [3, 2],
        "between a later line and its checkpoint": [4, 3],
        "the last line without a checkpoint": [6, 5],
        "the model written, no results": [6, 6],
        "everything but the results": [6, 6],
    }
    killed, unbroken = (outcome(tmp_path / name) for name in ("killed", "unbroken"))
    assert killed == unbroken
    assert [epoch["epoch"] for epoch in killed[0]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_resumes_exactly(
    tmp_path: Path, dataset: Dataset, shared_cache_root: Path
) -> None:
    arguments = [str(dataset.path), *OPTIONS, "--cache-root", str(shared_cache_root)]
    arguments += ["--epochs", "600", "--patience", "600"]
    run, rng, epochs = tmp_path / "killed", random.Random(0), [0]
    command = [str(Path(sys.executable).parent / "ssna"), "adapt", *arguments, "--output", str(run), "--resume"]
    for _ in range(20):
        before = size_of(run / "metrics.jsonl")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and size_of(run / "metrics.jsonl") <= before:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.3))
            assert process.poll() is None, "it had ended before it was killed"
            process.kill()
        epochs.append(len((run / "metrics.jsonl").read_text().splitlines()))
    assert epochs == sorted(epochs)
    assert len(set(epochs)) > 15, "the kills fell into the work"
    for folder in ("killed", "unbroken"):
        done = ssna("adapt", *arguments, "--output", tmp_path / folder, "--resume")
        assert done.returncode == 0, done.stderr
    assert outcome(run) == outcome(tmp_path / "unbroken")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
