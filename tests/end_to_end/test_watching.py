"""What a training tells while it goes on: notes and epochs, or nothing, and events for TensorBoard."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssna import AdaptOptions, adapt, evaluate
from ssna.dataset import Dataset
from ssna.errors import PackageError
from ssna.runs import clear_run
from tests.helpers import ssna_in_process

OPTIONS = AdaptOptions(side="none", width=8, epochs=3)


def events_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def lines_of(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def check_events(run: Path) -> None:
    lines, events = lines_of(run), events_of(run)
    for tag, value_of in (
        ("loss", lambda line: line["loss"]),
        ("valid/ndcg@10", lambda line: line["valid"]["ndcg@10"]),
        ("seconds/training", lambda line: line["seconds"]),
    ):
        expected = [(line["epoch"], pytest.approx(value_of(line), rel=1e-6)) for line in lines]
        assert events[tag] == expected


def test_events_have_what_metrics_jsonl_has(dataset: Dataset, tmp_path: Path) -> None:
    adapt(dataset.path, tmp_path / "run", options=OPTIONS, tensorboard=True)
    assert len(lines_of(tmp_path / "run")) == 3
    check_events(tmp_path / "run")
    adapt(dataset.path, tmp_path / "run", options=OPTIONS, overwrite=True)
    assert not (tmp_path / "run/tensorboard").exists()


def test_events_of_a_resumed_run_go_on(dataset: Dataset, tmp_path: Path) -> None:
    def stop(epoch: object) -> None:
        if len(lines_of(tmp_path / "run")) == 2:  # Its line is written, its checkpoint is not.
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(dataset.path, tmp_path / "run", options=OPTIONS, tensorboard=True, on_epoch=stop)
    adapt(dataset.path, tmp_path / "run", options=OPTIONS, tensorboard=True, resume=True)
    assert [line["epoch"] for line in lines_of(tmp_path / "run")] == [1, 2, 3]
    check_events(tmp_path / "run")


def test_without_tensorboard_nothing_begins(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    with pytest.raises(PackageError, match="--tensorboard needs the package tensorboard"):
        adapt(dataset.path, tmp_path / "run", options=OPTIONS, tensorboard=True)
    assert not (tmp_path / "run").exists()
    clear_run(tmp_path)


def test_quiet_leaves_results_and_errors(dataset: Dataset, tmp_path: Path) -> None:
    command = ["adapt", dataset.path, "--side", "none", "--width", "8", "--epochs", "1", "--negatives", "5"]
    command += ["--loss", "softmax", "--output"]  # --negatives has no effect, which is told.
    loud = ssna_in_process(*command, tmp_path / "loud")
    assert "epoch   1" in loud.stderr
    assert "Without effect" in loud.stderr
    for flag in ("--quiet", "-q"):
        quiet = ssna_in_process(*command, tmp_path / f"quiet{flag}", flag)
        assert quiet.stderr == ""
        assert "NDCG@10" in quiet.stdout
    refused = ssna_in_process(*command, tmp_path / "loud", "--quiet")
    assert refused.stderr.startswith("Error: ")
    assert "epoch   1" in ssna_in_process(*command, tmp_path / "again").stderr


def test_an_evaluation_says_how_many_users_of_both_parts_are_ranked(
    ids_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssna.stage2_adapt.evaluation._MOST_CASES", {"cpu": 25})
    said: list[tuple[int, int]] = []
    found = evaluate(ids_run, on_progress=lambda done, total: said.append((done, total)))
    users = found["users"]
    assert {total for _, total in said} == {2 * users}
    done = [each for each, _ in said]
    assert done == sorted(set(done))
    assert done[:2] == [25, 50]
    assert users in done
    assert done[-1] == 2 * users
