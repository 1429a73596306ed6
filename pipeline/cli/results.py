"""Metrics of runs as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssna.terminal import count, print_table

Results = Mapping[str, Mapping[str, Any]]
"""What results.json says, by run folder"""

_NAMES = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR", "coverage": "Coverage"}
_SHOWN_FOR_GROUPS = ("recall@10", "ndcg@10")


def print_results(results: Results) -> None:
    """One row a run with its test metrics at 10, and Recall and NDCG at the other cut-offs."""
    names = list(dict.fromkeys(name for result in results.values() for name in result["test"]))
    shown = [name for name in names if name.startswith(("recall", "ndcg")) or name.endswith("@10")]
    if not shown:  # No user could be evaluated; the line below the table says so.
        return
    rows = [[run, *(_value(result["test"], name) for name in shown)] for run, result in results.items()]
    print_table(["run (test)", *map(metric_label, shown)], rows)


def print_intervals(results: Results) -> None:
    """A row a run with the 95 % intervals of its test metrics at 10, if they were computed."""
    found = {run: result["intervals"] for run, result in results.items() if "intervals" in result}
    if not found:
        return
    names = [name for name in next(iter(found.values())) if name.endswith("@10")]
    rows = [
        [run, *(f"{low:.4f} to {high:.4f}" for low, high in (intervals[name] for name in names))]
        for run, intervals in found.items()
    ]
    print_table(["run (95 % interval)", *map(metric_label, names)], rows)


def print_popularity(results: Results) -> None:
    """Rows for the targets of each run by their popularity in training."""
    rows = [
        [run, group, count(int(found["targets"])), *(_value(found, name) for name in _SHOWN_FOR_GROUPS)]
        for run, result in results.items()
        for group, found in result.get("test_by_popularity", {}).items()
    ]
    if rows:
        print_table(["run (test)", "targets", "number", *map(metric_label, _SHOWN_FOR_GROUPS)], rows)


def _value(found: Mapping[str, float], name: str) -> str:
    return f"{found[name]:.4f}" if name in found else "-"


def metric_label(metric: str) -> str:
    """As papers write it."""
    name, _, cutoff = metric.partition("@")
    return f"{_NAMES.get(name, name)}@{cutoff}"
