"""How the efficiency benchmark measures, keeps and shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from efficiency_tables import tables, title_of, tpme
from lines import Lines, append_line
from measuring import _forked, in_a_fork

MEBIBYTE = 2**20


def test_a_fork_gives_back_what_it_found_and_its_peak() -> None:
    def work(mebibytes: int) -> dict[str, int]:
        held = np.ones(mebibytes * MEBIBYTE, np.uint8)
        return {"sum": int(held[::MEBIBYTE].sum())}

    found, small = _forked(lambda: work(1))
    assert found == {"sum": 1}
    found, large = _forked(lambda: work(201))
    assert found == {"sum": 201}
    assert 190 < (large - small) / MEBIBYTE < 215


def test_a_fork_that_fails_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> dict[str, int]:
        raise ValueError("no such thing")

    with pytest.raises(RuntimeError, match="the measured process ended with status"):
        _forked(fail)
    assert "no such thing" in capfd.readouterr().err


def test_on_a_gpu_the_allocators_peak_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("measuring._wake_libraries", lambda: None)
    assert in_a_fork(lambda: {"device_memory": 77})["memory"] == 77


def test_finished_lines_are_found_again_whatever_the_order_of_their_fields(tmp_path: Path) -> None:
    path = tmp_path / "results" / "lines.jsonl"
    lines = Lines(path)
    of = {"kind": "epoch", "row": "lora", "threads": 1}
    assert of not in lines
    lines.add(of, {"epoch_seconds": 2.5})
    again = Lines(path)
    assert dict(reversed(of.items())) in again
    assert again[of]["epoch_seconds"] == 2.5
    assert again.where(kind="epoch", threads=1) == [again[of]]
    assert again.where(kind="epoch", threads=2) == []
    assert set(json.loads(path.read_text())) == {"of", "epoch_seconds", "commit"}


def test_the_tables_hold_every_row_against_ours(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    shared = {"dataset": "d", "llm": "m", "device": "cpu", "threads": 1, "precision": "auto"}

    def note(kind: str, found: dict[str, object], **more: object) -> None:
        append_line(path, {"of": {"kind": kind, **shared, **more}, **found, "commit": "c"})

    for row, seconds, memory in (("ssna", 2.0, 100), ("lora-checkpointing", 30.0, 250)):
        steps = {"steps_an_epoch": 10, "steps": [10, 10] if row == "ssna" else [3, 4]}
        a_step = [seconds / 10 * 0.9, seconds / 10]
        found = {
            "seconds_a_step": a_step,
            "epoch_seconds": seconds,
            "memory": memory * MEBIBYTE,
            "trainable_parameters": 1234,
        }
        note("epoch", {**steps, **found}, row=row)
    note("extraction", {"seconds": 14.0, "texts": 5, "tokens": 50, "bytes": 2 * MEBIBYTE, "memory": 9 * MEBIBYTE})
    note("second extraction", {"seconds": 0.25, "seconds_of_one_layer": 0.125})
    note("validation", {"seconds": 3.0, "memory": 90 * MEBIBYTE}, row="ssna")
    note("validation", {"seconds": 20.0, "memory": 300 * MEBIBYTE}, row="lora-checkpointing")
    for case, of, estimated, measured in (
        ("50 texts", "extraction", 3.0, 2.0), ("9 items", "training", 1234 * MEBIBYTE, 617 * MEBIBYTE),
    ):  # fmt: skip
        check = {"kind": "estimate check", "of": of, "case": case, "device": "cpu", "threads": 1}
        append_line(path, {"of": check, "estimated": estimated, "measured": measured, "commit": "c"})
    note("estimate", {"extraction_seconds": 7.0, "cache_bytes": 2 * MEBIBYTE, "ssna": 150 * MEBIBYTE})
    curve = {
        "curve": [[2, 1, 0.1, 0.05], [2, 1, 0.3, 0.1], [2, 1, 0.2, 0.1]],
        "test": {"recall@10": 0.25, "ndcg@10": 0.125},
    }
    note("curve", {"best_epoch": 3, **curve}, row="ssna", learning_rate=None, time_limit=5.0)
    note("curve", {"best_epoch": 3, **curve}, row="ssna", learning_rate=1e-3)
    note("curve", {"best_epoch": 2, **curve}, row="ssna", learning_rate=None)
    note("curve", {"best_epoch": 2, **curve}, row="ssna", learning_rate=None, dataset="another")
    note("curve", {"best_epoch": 3, **curve}, row="lora", learning_rate=1e-3)
    note("curve", {"best_epoch": 2, **curve}, row="full", learning_rate=None, time_limit=5.0)
    step = {"steps_an_epoch": 10, "epoch_seconds": 20.0, "memory": 3 * MEBIBYTE}
    note("growth", step, study="depth", value="6 blocks", row="ssna")
    note(
        "growth",
        {**step, "counted_flop": 4e9, "counted_bytes": 2 * MEBIBYTE},
        study="depth",
        value="6 blocks",
        row="full",
    )
    note("growth", {**step, "epoch_seconds": 1.0}, study="depth", value="6 blocks", row="ssna", device="cuda")
    found = tables(Lines(path))
    assert found.pop("another, m, cpu, 1 thread") == "", "without the extraction's time nothing can be said"
    here = "cpu, 1 thread"
    of_machine = [f"extractions estimated, {here}", f"trainings estimated, {here}", f"by depth, {here}"]
    assert list(found) == [f"d, m, {here}", *of_machine, "by depth, cuda, 1 thread"]
    assert "| 50 texts | 3.0 | 2.0 | 1.50 |" in found[f"extractions estimated, {here}"]
    assert "| 9 items | 1,234 | 617 | 2.00 |" in found[f"trainings estimated, {here}"]
    shown = found["d, m, cpu, 1 thread"]
    assert "| ssna, in-batch | 2.0 | 1.8 to 2.0 | whole epochs | 1.00 | 100 | 1.00 | 1,234 | 0.000 |" in shown
    measured = "30.0 | 27.0 to 30.0 | 7 steps of 10 an epoch | 15 | 250 | 2.50"
    assert f"| LoRA, gradient checkpointing | {measured} | 1,234 | 0.900 |" in shown
    assert "| LoRA, gradient checkpointing | 0.50 | 0.47 |" in shown, "14 s are paid back in half of 28 s"
    assert "To its best epoch ssna takes 20 s, extraction included, and 23 s until it is known to be the best." in shown
    assert "Another seed or option: no extraction. A second dataset of the same texts: 0.25 s" in shown
    assert "to see that none is new; a smaller a: 0.12 s." in shown
    assert "| ssna, in-batch | 3.0 | 5.0 | 1.00 | 100 |" in shown, "validation took less memory than steps"
    assert "| LoRA, gradient checkpointing | 20.0 | 50.0 | 10 | 300 |" in shown
    assert "| ssna, in-batch | 0.2500 | 0.1250 | 2 of 3 | 20 | 0.3000 |" in shown
    assert "| LoRA, learning rate 0.001 | 0.2500 | 0.1250 | 3 of 3 | 9 | 0.3000 |" in shown
    assert "| full fine-tuning, stopped after 9 s | 0.2500 | 0.1250 | 2 of 3 | 6 | 0.3000 |" in shown
    assert "| extraction, s | 7 | 14 | 0.50 |" in shown
    assert "| ssna, in-batch: training, MiB | 150 | 100 | 1.50 |" in shown
    depth = found[f"by depth, {here}"]
    assert depth.startswith("|  | 6 blocks |\n| --- | --- |\n| ssna, in-batch | 20.00 s, 3 MiB |")
    assert "| full fine-tuning | 2; 1.50 |" in depth


def test_tpme_goes_from_the_least_to_the_greatest_of_each_measure() -> None:
    lines = [
        {"epoch_seconds": seconds, "trainable_parameters": parameters, "memory": memory}
        for seconds, parameters, memory in ((2.0, 300, 50), (4.0, 100, 90), (10.0, 500, 130))
    ]
    expected = [0.1 * 200 / 400, 0.45 * 2 / 8 + 0.45 * 40 / 80, 1.0]
    assert tpme(lines) == pytest.approx(expected)


def test_rows_have_titles() -> None:
    from efficiency import ROWS

    assert [title_of(row) for row in ("full", "full-checkpointing", "full-no-dropout")] == [
        "full fine-tuning", "full fine-tuning, gradient checkpointing", "full fine-tuning, without the LLM's dropout",
    ]  # fmt: skip
    assert len({title_of(row) for row in ROWS}) == len(ROWS)
