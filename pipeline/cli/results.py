"""Metrics of runs as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssna.terminal import print_table


def print_results(results: Mapping[str, Mapping[str, Any]]) -> None:
    """One row a run with its test metrics; `results` is what results.json says, by run folder."""
    names = list(dict.fromkeys(name for result in results.values() for name in result["test"]))
    if not names:  # No user could be evaluated; the line below the table says so.
        return
    rows = [
        [run, *(f"{result['test'].get(name, float('nan')):.4f}" for name in names)] for run, result in results.items()
    ]
    print_table(["run (test)", *(_label(name) for name in names)], rows)


def _label(metric: str) -> str:
    name, _, cutoff = metric.partition("@")
    return f"{ {'recall': 'Recall', 'ndcg': 'NDCG'}.get(name, name) }@{cutoff}"
