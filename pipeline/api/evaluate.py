"""`ssna.evaluate`: the metrics of a finished run, computed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from ssna.devices import resolve_device
from ssna.errors import RunError
from ssna.runs import Run, open_run
from ssna.stage2_adapt import Evaluation, Recommender, Sequences, Split, cases_of, evaluate_fully, intervals_of

FEWEST_RESAMPLES = 100
_PARTS: tuple[Literal["test"], Literal["valid"]] = ("test", "valid")


def evaluate(
    run: Path | str,
    *,
    filter_history: bool = False,
    bootstrap: int = 0,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Mapping[str, Any]:
    """Rank all candidates for every user's held-out items, from the run folder alone.

    Args:
        run: a run folder.
        filter_history: whether items of a user's history are ranked last, as `recommend` does.
        bootstrap: how often users are resampled for 95 % intervals of the test metrics; 0 for none.
        device: a PyTorch device, or `auto`.
        on_progress: called with the users that are ranked, in both parts, and their number.

    Returns:
        `test`, `valid`, `test_by_popularity`, `users`, `candidates` and `history_filtered`, as in results.json;
        `split`; and `intervals` (low and high by metric) if they were asked for.

    Raises:
        RunError: if the folder is no finished run.
    """
    if bootstrap:
        check_resamples(bootstrap)
    where = resolve_device(device)
    opened = open_run(Path(run), where)
    test, results = evaluate_run(opened, where, filter_history, on_progress)
    results["split"] = opened.options.split
    if bootstrap and (intervals := intervals_of(test.ranks, bootstrap)):
        results["intervals"] = intervals
    return results


def check_resamples(count: int) -> None:
    """Refuse so few resamples that 95 % of them are all.

    Raises:
        RunError: if they are fewer than `FEWEST_RESAMPLES`.
    """
    if count < FEWEST_RESAMPLES:
        raise RunError(f"--bootstrap {count}: expected at least {FEWEST_RESAMPLES} resamples for a 95 % interval.")


def evaluate_run(
    run: Run,
    device: torch.device,
    filter_history: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Evaluation, dict[str, Any]]:
    """Of a finished run; see `evaluate_model`."""
    return evaluate_model(run.recommender, run.sequences, run.split, device, filter_history, on_progress)


def evaluate_model(
    model: Recommender,
    sequences: Sequences,
    split: Split,
    device: torch.device,
    filter_history: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Evaluation, dict[str, Any]]:
    """What ranking the test part says, and what results.json says of the metrics of both parts."""
    counts = [len(cases_of(sequences, split, part)) for part in _PARTS]

    def ranked(number: int) -> Evaluation:
        def progress(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(sum(counts[:number]) + done, sum(counts))

        return evaluate_fully(model, sequences, split, _PARTS[number], device, filter_history, progress)

    test, valid = ranked(0), ranked(1)
    return test, {
        "test": test.metrics,
        "valid": valid.metrics,
        "test_by_popularity": test.by_popularity,
        "users": test.ranks.num_cases,
        "candidates": model.num_items,
        "history_filtered": filter_history,
    }
