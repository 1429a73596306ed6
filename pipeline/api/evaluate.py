"""`ssna.evaluate`: the metrics of a finished run, computed again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssna.devices import resolve_device
from ssna.runs import open_run
from ssna.stage2_adapt import cases_of
from ssna.stage2_adapt import evaluate as evaluate_cases


def evaluate(run: Path | str, *, filter_history: bool = False, device: str = "auto") -> Mapping[str, Any]:
    """Rank all candidates for every user's held-out items, from the run folder alone.

    Args:
        run: a run folder.
        filter_history: whether items of a user's history are ranked last, as `recommend` does.
        device: a PyTorch device, or `auto`.

    Returns:
        `test` and `valid` (metrics by name), `users`, `candidates` and `history_filtered`, as in results.json.

    Raises:
        RunError: if the folder is no finished run.
    """
    where = resolve_device(device)
    opened = open_run(Path(run), where)
    valid, test = (cases_of(opened.sequences, opened.split, part) for part in ("valid", "test"))
    metrics = {
        name: evaluate_cases(opened.recommender, opened.sequences, cases, where, filter_history)
        for name, cases in (("test", test), ("valid", valid))
    }
    return {
        **metrics,
        "users": len(test),
        "candidates": len(opened.items),
        "history_filtered": filter_history,
    }
