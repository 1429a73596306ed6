"""What `ssna.terminal` says about work under way."""

from __future__ import annotations

import pytest

from ssna.terminal import duration, work_progress


def test_durations_are_in_units_that_people_read() -> None:
    assert [duration(seconds) for seconds in (5.25, 300, 9000, 400_000)] == [
        "5.2 seconds", "5.0 minutes", "2.5 hours", "4.6 days",
    ]  # fmt: skip


def test_what_comes_before_the_first_text_is_not_in_the_pace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 80.0, 85.0, 90.0, 95.0, 100.0])
    monkeypatch.setattr("ssna.terminal.time.monotonic", lambda: next(clock))
    with work_progress("extracting", "texts") as show:
        for done in (0, 10, 20, 30, 40):
            show(done, 3000)
    assert capsys.readouterr().err.splitlines() == [
        "extracting: 20 of 3,000 texts, 2 texts/s, 24.8 minutes left",
        "extracting: 40 of 3,000 texts, 2 texts/s, 24.7 minutes left",
    ]


def test_work_without_such_a_beginning_is_timed_from_where_it_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 20.0, 25.0, 40.0])
    monkeypatch.setattr("ssna.terminal.time.monotonic", lambda: next(clock))
    with work_progress("ranking", "runs") as show:
        for done in (1, 2, 3):
            show(done, 4)
    assert capsys.readouterr().err.splitlines() == [
        "ranking: 1 of 4 runs, 20 s each, 60.0 seconds left",
        "ranking: 3 of 4 runs, 13 s each, 13.3 seconds left",
    ]
