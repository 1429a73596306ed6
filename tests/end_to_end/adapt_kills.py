"""Kills a training at the moments that matter, one after the other. Run by test_adapt_kills.py as a process.

    python adapt_kills.py FOLDER ARGUMENT…

The arguments are those of `ssna adapt` but for `--output` and `--resume`. The run that is killed and resumed is
`FOLDER/killed`, the one that is left alone `FOLDER/unbroken`. Each command runs in a child that is forked from this
process, in which everything is imported already. Prints one JSON object: by moment, the lines of metrics.jsonl and the
epochs of the checkpoint that the kill left.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # The first optimiser imports it, which takes longer than the training here.
from safetensors import safe_open

import ssna.cli.adapt  # noqa: F401 (so that the children need not)
from ssna.cli import main as ssna_main
from ssna.stage2_adapt import checkpoint

adapt = importlib.import_module("ssna.api.adapt")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, call: int = 1) -> Callable[[], None]:
    """Makes the process die when something is called for the n-th time."""
    return lambda: _die_around(owner, name, call, die, lambda: None)


def after(owner: Any, name: str, call: int = 1) -> Callable[[], None]:
    """Makes the process die when something has been called for the n-th time."""
    return lambda: _die_around(owner, name, call, lambda: None, die)


def _die_around(owner: Any, name: str, call: int, first: Callable[[], None], last: Callable[[], None]) -> None:
    real, calls = getattr(owner, name), itertools.count(1)

    def around(*arguments: Any, **named: Any) -> Any:
        is_the_one = next(calls) == call
        if is_the_one:
            first()
        result = real(*arguments, **named)
        if is_the_one:
            last()
        return result

    setattr(owner, name, around)


def in_a_line() -> None:
    """Makes the process die with the first half of an epoch's line written."""

    def half(path: Path, epoch: object) -> None:
        with path.open("a") as file:
            file.write('{"epoch": 2, "lo')
        die()

    adapt.append_epoch = half  # type: ignore[attr-defined]


MOMENTS = {
    "the folder is there, but empty": before(adapt, "write_json"),
    "config.json has not its name yet": before(Path, "replace"),
    "in the middle of an epoch": after(torch.optim.AdamW, "step", 2),
    "before an epoch's line": before(adapt, "append_epoch"),
    "between a line and its checkpoint": after(adapt, "append_epoch"),
    "a checkpoint has not its name yet": after(checkpoint, "save_file"),
    "after two checkpoints, in the third epoch": before(adapt, "append_epoch", 3),
    "half a line": in_a_line,
    "between a later line and its checkpoint": after(adapt, "append_epoch", 2),
    "the last line without a checkpoint": after(adapt, "append_epoch", 3),
    "the model written, no results": after(adapt, "save_tensors"),
    "everything but the results": before(adapt, "write_json"),  # config.json is there since the run began.
}


def run_forked(arguments: list[str], spoil: Callable[[], None] = lambda: None) -> int:
    """The command's exit status, negative if a signal ended it."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    status = 1
    try:
        spoil()
        sys.argv = ["ssna", *arguments]
        sys.stdout = sys.stderr  # The parent's stdout is for its JSON.
        ssna_main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(status)


def left_by_a_kill(run: Path) -> tuple[int, int]:
    """The lines of metrics.jsonl, and the epochs that the checkpoint knows of."""
    metrics, saved = run / "metrics.jsonl", run / "checkpoint.safetensors"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    if not saved.exists():
        return len(lines), 0
    with safe_open(saved, "pt") as file:
        return len(lines), len(json.loads(file.metadata()["about"])["history"]["epochs"])


def main() -> None:
    folder, options = Path(sys.argv[1]), sys.argv[2:]
    assert run_forked(["adapt", *options, "--output", str(folder / "unbroken")]) == 0
    run, left = folder / "killed", {}
    arguments = ["adapt", *options, "--output", str(run), "--resume"]
    for moment, spoil in MOMENTS.items():
        assert run_forked(arguments, spoil) == -signal.SIGKILL, f"{moment}: the command was not killed"
        assert not (run / "results.json").exists()
        left[moment] = left_by_a_kill(run)
    assert run_forked(arguments) == 0
    print(json.dumps(left))


if __name__ == "__main__":
    main()
