"""What is counted stands in the singular where there is one of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssna.terminal import counted
from tests.helpers import make_tiny_llm, ssna_in_process


def test_one_is_singular() -> None:
    assert [counted(number, "item") for number in (0, 1, 2, 1234)] == ["0 items", "1 item", "2 items", "1,234 items"]
    assert [counted(number, "box", "boxes") for number in (1, 2)] == ["1 box", "2 boxes"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """One item and two users, of whom one is too short to be evaluated."""
    (tmp_path / "users.tsv").write_text("u\ta a a a\nv\ta\n")
    (tmp_path / "items.tsv").write_text("a\tboot\n")
    (tmp_path / "new.csv").write_text("item_id,title\nb,lamp\n")
    make_tiny_llm(tmp_path / "llm", layers=1)
    return tmp_path


def test_commands_count_one_in_the_singular(place: Path) -> None:
    for command, said in (
        ("prepare users.tsv items.tsv data --format sequences", "1 item described, text from"),
        (
            "extract data --llm llm --cache-root caches --dry-run",
            "1 distinct text: 0 cached, 1 to extract with 1 layer (mean pooling), ",
        ),
        ("extract data --llm llm --cache-root caches", "1 distinct text: 0 cached before, 1 extracted, "),
        ("extract data --llm llm --cache-root caches --name llm", ", 1 layer (mean pooling), "),
        ("cache verify llm --cache-root caches", ": 1 segment, 1 row, sound"),
        ("cache compact llm --cache-root caches", ": 1 segment is now 1, 0 repeated rows dropped"),
        (
            "adapt data --llm llm --cache-root caches --output run --epochs 1 --width 8",
            "run: best epoch 1 of 1 (ended by --epochs), "
            "1 user evaluated (1 too short to be, it only trains), 1 candidate, ",
        ),
        (
            "adapt data --llm llm --cache-root caches --output other --epochs 9 --patience 1 --width 8",
            "other: best epoch 1 of 2, 1 user evaluated",
        ),
        ("evaluate run", "run: 1 user, 1 candidate, split"),
        ("compare run run", "1 user, all of whom both runs were tested on"),
        ("report run --output page.html", "page.html: 1 run, "),
        ("export run out --format npy", "1 item, vectors of 9 dimensions"),
        ("add-items run new.csv --cache-root caches", "run: 1 item added; 1 text read; 2 items can be recommended"),
        (
            "add-items run new.csv --cache-root caches",
            "run: 0 items added, 1 added before and replaced; 0 texts read; ",
        ),
        ("estimate llm --items 1 --tokens 1", "1 layer of width 16, all kept; 1 text, 1 token\n"),
    ):
        done = ssna_in_process(*command.split(), cwd=place)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
