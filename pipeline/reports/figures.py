"""The charts of a report, each with its caption."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from markupsafe import Markup

from ssna.reports.charts import Line, Point, chart, ticks
from ssna.reports.contents import RunReport

CUTOFFS = (5, 10, 20)
METRICS = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}
CURVES: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "Training loss": lambda epoch: epoch["loss"],
    "Validation NDCG@10": lambda epoch: epoch["valid"].get("ndcg@10"),
}
"""What is drawn by epoch, of a line of metrics.jsonl"""
_CHARTED = ("ndcg", "recall")


def curves(runs: Sequence[RunReport]) -> list[tuple[str, Markup]]:
    """Captions and charts of `CURVES`."""
    drawn = list[tuple[str, Markup]]()
    for caption, value_of in CURVES.items():
        lines, points = list[Line](), list[Point]()
        for number, run in enumerate(runs):
            curve = [(epoch["epoch"], value_of(epoch)) for epoch in run.epochs]
            finite = [(epoch, value) for epoch, value in curve if value is not None and math.isfinite(value)]
            if not finite:
                continue
            lines.append(Line(number, finite))
            best = run.results["best_epoch"]
            points += [
                Point(number, epoch, value, f"{run.name}, best epoch {epoch}: {value:.4f}")
                for epoch, value in finite
                if epoch == best
            ]
        if lines:
            last = max(epoch for line in lines for epoch, _ in line.points)
            marks = [
                (tick, f"{tick:.0f}") for tick in ticks(1, max(last, 2), 5) if tick == int(tick) and 1 <= tick <= last
            ]
            drawn.append((caption, chart(f"{caption} by epoch", lines, points, marks, "epoch")))
    return drawn


def best_and_last(runs: Sequence[RunReport]) -> list[tuple[int, str, list[float | None]]]:
    """Of each run's best and last epoch, or of the one that is both: number of the run, epoch, values of `CURVES`."""
    found = list[tuple[int, str, list[float | None]]]()
    for number, run in enumerate(runs):
        for epoch in run.epochs:
            roles = {"best": run.results["best_epoch"], "last": run.epochs[-1]["epoch"]}
            mine = [role for role, which in roles.items() if which == epoch["epoch"]]
            if mine:
                label = f"{epoch['epoch']} ({' and '.join(mine)})"
                found.append((number, label, [value_of(epoch) for value_of in CURVES.values()]))
    return found


def _apart(number: int, count: int) -> float:
    """How far from the middle of its category a run's point stands."""
    return (number - (count - 1) / 2) * min(0.16, 0.7 / max(1, count))


def by_cutoff(runs: Sequence[RunReport]) -> list[tuple[str, Markup]]:
    """Charts of accuracy by k with intervals; none if there were no users to test on."""
    drawn = list[tuple[str, Markup]]()
    for metric in _CHARTED:
        label = METRICS[metric]
        points = [
            Point(
                number,
                place + _apart(number, len(runs)),
                run.test[f"{metric}@{k}"],
                _with_interval(run, f"{metric}@{k}", f"{label}@{k}"),
                run.intervals[f"{metric}@{k}"],
            )
            for number, run in enumerate(runs)
            for place, k in enumerate(CUTOFFS)
            if run.test
        ]
        if points:
            marks = [(float(place), str(k)) for place, k in enumerate(CUTOFFS)]
            across = (-0.5, len(CUTOFFS) - 0.5)
            drawn.append((f"{label}@k", chart(f"{label} by k", [], points, marks, "k", x_range=across, from_zero=True)))
    return drawn


def _with_interval(run: RunReport, metric: str, label: str) -> str:
    return _labelled(run, label, run.test[metric], run.intervals[metric])


def _labelled(run: RunReport, label: str, value: float, interval: tuple[float, float]) -> str:
    return f"{run.name}, {label} {value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"


def by_layers(runs: Sequence[RunReport]) -> list[tuple[str, Markup]]:
    """Charts of accuracy against a; none unless runs differ in it. Runs that differ in nothing else are joined."""
    known = [(run.layers, number, run) for number, run in enumerate(runs) if run.layers is not None and run.test]
    depths = sorted({layers for layers, _, _ in known})
    if len(depths) < 2:
        return []
    width, places = depths[-1] - depths[0], dict[int, float]()
    for depth in depths:  # Runs of the same depth stand beside each other.
        same = [number for layers, number, _ in known if layers == depth]
        places |= {number: depth + width * 0.2 * _apart(i, len(same)) for i, number in enumerate(same)}
    alike = dict[str, list[tuple[int, RunReport]]]()
    for _, number, run in sorted(known, key=lambda each: each[:2]):
        others = {name: value for name, value in asdict(run.options).items() if name != "layers"}
        alike.setdefault(str((run.llms, others)), []).append((number, run))
    drawn = list[tuple[str, Markup]]()
    for metric in _CHARTED:
        key, label = f"{metric}@10", f"{METRICS[metric]}@10"
        points = [
            Point(
                number, places[number], run.test[key], _with_interval(run, key, f"a = {a}: {label}"), run.intervals[key]
            )
            for a, number, run in known
        ]
        lines = [Line(None, [(places[number], run.test[key]) for number, run in joined]) for joined in alike.values()]
        marks = [(float(layers), str(layers)) for layers in depths]
        across = (depths[0] - width * 0.1, depths[-1] + width * 0.1)
        drawn.append((label, chart(f"{label} by number of layers", lines, points, marks, "layers a", x_range=across)))
    return drawn


def by_popularity(runs: Sequence[RunReport]) -> list[tuple[str, Markup]]:
    """Charts of accuracy by popularity of the held-out item; none if there were no users to test on."""
    names = list(runs[0].by_popularity)
    drawn = list[tuple[str, Markup]]()
    for metric in _CHARTED:
        key, label = f"{metric}@10", f"{METRICS[metric]}@10"
        points = [
            Point(
                number,
                place + _apart(number, len(runs)),
                run.by_popularity[name][key],
                _labelled(
                    run, f"{name}: {label}", run.by_popularity[name][key], run.intervals_by_popularity[name][key]
                ),
                run.intervals_by_popularity[name][key],
            )
            for number, run in enumerate(runs)
            for place, name in enumerate(names)
            if key in run.by_popularity.get(name, {})
        ]
        if points:
            marks = [(float(place), name) for place, name in enumerate(names)]
            across = (-0.5, len(names) - 0.5)
            drawn.append(
                (
                    label,
                    chart(f"{label} by popularity", [], points, marks, "held-out item", x_range=across, from_zero=True),
                )
            )
    return drawn
