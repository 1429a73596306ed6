"""`ssna.compare`: two finished runs over the same users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssna.api.evaluate import check_resamples
from ssna.columns import ITEM
from ssna.devices import resolve_device
from ssna.errors import RunError
from ssna.runs import Run, open_run
from ssna.stage2_adapt import (
    bootstrap_interval,
    cases_of,
    evaluate_fully,
    metrics_by_case,
    paired_p_value,
    targets_of,
)

RESAMPLES = 1000
"""Of the users, for intervals, where nobody asks for another number"""
_FLIPS = 9999


@dataclass(frozen=True)
class Difference:
    """Of a metric between two runs, over the same users."""

    first: float
    """Mean of the first run"""
    second: float
    difference: float
    """Second minus first"""
    low: float
    """Of the 95 % interval of the difference, by paired bootstrap over users"""
    high: float
    p_value: float
    """Two-sided, of no difference, by random flips of the users' signs"""
    users: int
    """That were compared"""

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def compare(
    first: Path | str,
    second: Path | str,
    *,
    filter_history: bool = False,
    resamples: int = RESAMPLES,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Difference]:
    """The test metrics of two runs over the same users, targets and candidates, with a paired test.

    Args:
        first: a run folder.
        second: another one.
        filter_history: whether items of a user's history are ranked last.
        resamples: how often users are resampled for the intervals.
        device: a PyTorch device, or `auto`.
        on_progress: called with the metrics that are compared and their number.

    Returns:
        By metric.

    Raises:
        RunError: if a folder is no finished run, or the runs were not tested on the same.
    """
    check_resamples(resamples)
    where = resolve_device(device)
    one, other = (open_run(Path(run), where) for run in (first, second))
    _check_comparable(one, other)
    found = dict[str, Difference]()
    values, other_values = (
        metrics_by_case(evaluate_fully(run.recommender, run.sequences, run.split, "test", where, filter_history).ranks)
        for run in (one, other)
    )
    progress = on_progress or (lambda done, total: None)
    for number, name in enumerate(values):
        progress(number, len(values))
        differences = other_values[name] - values[name]
        low, high = bootstrap_interval(differences, resamples)
        means = float(values[name].mean()), float(other_values[name].mean())
        p_value = paired_p_value(differences, _FLIPS)
        found[name] = Difference(*means, means[1] - means[0], low, high, p_value, len(differences))
    return found


def _check_comparable(one: Run, other: Run) -> None:
    """Refuse runs whose users, targets or candidates differ: their means would compare unlike things."""
    told = [_test_of(run) for run in (one, other)]
    for what, mine, theirs in zip(("candidates", "users", "targets"), *told, strict=True):
        if mine != theirs:
            found = f"{len(mine):,} and {len(theirs):,}" if len(mine) != len(theirs) else "as many, but others"
            raise RunError(
                f"{one.path} and {other.path} were not tested on the same {what} (found {found}). Expected two runs on "
                "the same dataset with the same --split and --candidates."
            )
    if not told[0][1]:
        raise RunError(f"{one.path} has no users to test on; there is nothing to compare.")


def _test_of(run: Run) -> tuple[set[str], list[str], list[tuple[int, str]]]:
    """A run's candidates, test users, and targets by user, in terms of the dataset."""
    cases = cases_of(run.sequences, run.split, "test")
    case, target = targets_of(run.sequences, cases)
    ids = run.items[ITEM].to_list()
    pairs = sorted((int(c), ids[t - 1]) for c, t in zip(case, target, strict=True))
    return set(ids), run.user_ids.gather(np.asarray(cases.user)).to_list(), pairs
