"""The page: what the template needs of groups of runs, and the file that comes of it."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

import numpy as np
from markupsafe import Markup

import ssna
from ssna.reports.charts import Line, Point, chart, marker, ticks
from ssna.reports.contents import MAPPED_ITEMS, RESAMPLES, SHOWN_HISTORY, TOP, Group, RunReport
from ssna.terminal import size

GENERATOR = '<meta name="generator" content="ssna report'
"""By this a report of ours is known"""

_METRICS = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}
_CUTOFFS = (5, 10, 20)
_CHARTED = ("ndcg", "recall")
_MISSING = "-"
_ALWAYS = ("model", "side", "llm", "layers")
# Classes of popularity on the map: items unseen in training, and quarters of the others.
_QUARTERS = 4


def render(groups: Sequence[Group]) -> str:
    """The whole page as HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssna.reports", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"size": size, "number": _number}
    environment.globals |= {"marker": marker, "missing": _MISSING}
    script = _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        generator=Markup(GENERATOR),
        version=ssna.__version__,
        style=Markup(_file("page.css")),
        script=Markup(script),
        script_digest=digest,
        groups=[_view(group) for group in groups],
        data=[_data(group) for group in groups],
        resamples=RESAMPLES,
        shown_history=SHOWN_HISTORY,
        top=TOP,
    )


def _file(name: str) -> str:
    return resources.files("ssna.reports").joinpath(name).read_text(encoding="utf-8")


def _number(value: float | None, digits: int = 4) -> str:
    return _MISSING if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def _view(group: Group) -> dict[str, Any]:
    runs = group.runs
    return {
        "group": group,
        "options": _differing_options(runs),
        "curves": _curves(runs),
        "untrained": [run.name for run in runs if not run.epochs],
        "losses": sorted({run.options.loss for run in runs if run.epochs}),
        "by_cutoff": _by_cutoff(runs),
        "metrics": [(f"{name}@{k}", f"{label}@{k}") for name, label in _METRICS.items() for k in _CUTOFFS],
        "by_layers": _by_layers(runs),
        "by_popularity": _by_popularity(runs),
        "popularity_groups": list(runs[0].by_popularity.items()),
        "meanings": _by_sentence(runs),
        "map_classes": _map_classes(group),
        "all_mapped": group.num_items <= MAPPED_ITEMS,
        "users": [_user(group, number) for number in range(len(group.users))],
    }


def _differing_options(runs: Sequence[RunReport]) -> list[tuple[str, list[str]]]:
    """Options, LLMs and layers in which runs differ, with each run's; model and side network always."""
    rows = [
        {
            "model": run.options.model,
            "side": run.options.side if run.options.model != "popularity" else "none",
            "llm": run.llms or "none",
            "layers": ", ".join(str(len(cache["layers"])) for cache in run.config["caches"]) or "none",
            **{name: value for name, value in asdict(run.options).items() if name not in ("model", "side", "layers")},
        }
        for run in runs
    ]
    for run, row in zip(runs, rows, strict=True):
        if run.options.model == "popularity":  # It has no other options, whatever their defaults.
            row |= {name: _MISSING for name in row if name not in (*_ALWAYS, "split", "candidates")}
    return [
        (name, values)
        for name in rows[0]
        if len(set(values := [str(row[name]) for row in rows]) - {_MISSING}) > 1 or name in _ALWAYS
    ]


def _legend_of(run: RunReport, what: str) -> str:
    return f"{run.name}, {what}"


def _curves(runs: Sequence[RunReport]) -> list[tuple[str, Markup]]:
    """Captions and charts of the loss and of NDCG@10 in validation, by epoch."""
    values: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
        "Training loss": lambda epoch: epoch["loss"],
        "Validation NDCG@10": lambda epoch: epoch["valid"].get("ndcg@10"),
    }
    drawn = list[tuple[str, Markup]]()
    for caption, value_of in values.items():
        lines, points = list[Line](), list[Point]()
        for number, run in enumerate(runs):
            curve = [(epoch["epoch"], value_of(epoch)) for epoch in run.epochs]
            finite = [(epoch, value) for epoch, value in curve if value is not None and math.isfinite(value)]
            if not finite:
                continue
            lines.append(Line(number, finite))
            best = run.results["best_epoch"]
            points += [
                Point(number, epoch, value, _legend_of(run, f"best epoch {epoch}: {value:.4f}"))
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


def _apart(number: int, count: int) -> float:
    """How far from the middle of its category a run's point stands."""
    return (number - (count - 1) / 2) * min(0.16, 0.7 / max(1, count))


def _by_cutoff(runs: Sequence[RunReport]) -> list[tuple[str, Markup]]:
    drawn = list[tuple[str, Markup]]()
    for metric in _CHARTED:
        label = _METRICS[metric]
        points = [
            Point(
                number,
                place + _apart(number, len(runs)),
                run.test[f"{metric}@{k}"],
                _with_interval(run, f"{metric}@{k}", f"{label}@{k}"),
                run.intervals[f"{metric}@{k}"],
            )
            for number, run in enumerate(runs)
            for place, k in enumerate(_CUTOFFS)
            if run.test
        ]
        if points:
            marks = [(float(place), str(k)) for place, k in enumerate(_CUTOFFS)]
            across = (-0.5, len(_CUTOFFS) - 0.5)
            drawn.append((f"{label}@k", chart(f"{label} by k", [], points, marks, "k", x_range=across, from_zero=True)))
    return drawn


def _with_interval(run: RunReport, metric: str, label: str) -> str:
    low, high = run.intervals[metric]
    return _legend_of(run, f"{label} {run.test[metric]:.4f} ({low:.4f} to {high:.4f})")


def _by_layers(runs: Sequence[RunReport]) -> list[tuple[str, Markup]]:
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
        key, label = f"{metric}@10", f"{_METRICS[metric]}@10"
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


def _by_popularity(runs: Sequence[RunReport]) -> list[tuple[str, Markup]]:
    names = list(runs[0].by_popularity)
    drawn = list[tuple[str, Markup]]()
    for metric in _CHARTED:
        key, label = f"{metric}@10", f"{_METRICS[metric]}@10"
        points = [
            Point(
                number,
                place + _apart(number, len(runs)),
                run.by_popularity[name][key],
                _legend_of(run, f"{name}: {label} {run.by_popularity[name][key]:.4f}"),
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


def _by_sentence(runs: Sequence[RunReport]) -> list[tuple[str, list[str]]]:
    """What runs say of their layers' shares, each sentence once with the runs that it is about."""
    found = dict[str, list[str]]()
    for run in runs:
        found.setdefault(run.meaning, []).append(run.name)
    return list(found.items())


def _class_bounds(group: Group) -> list[int]:
    """The most training interactions of an item of each class but the last: 0, and quartiles of the training items."""
    trained = group.counts[group.counts > 0]
    if not len(trained):
        return [0]
    quartiles = np.quantile(trained, np.arange(1, _QUARTERS) / _QUARTERS, method="lower")
    return [0, *(int(bound) for bound in quartiles)]


def _map_classes(group: Group) -> list[tuple[int, str]]:
    """Number and label of each class of popularity that items are in."""
    bounds, most = _class_bounds(group), int(group.counts.max())
    classes = [(0, "0")] if (group.counts == 0).any() else []
    for number, (before, last) in enumerate(zip(bounds, [*bounds[1:], most], strict=True), 1):
        if last > before:
            classes.append((number, str(last) if last == before + 1 else f"{before + 1} to {last}"))
    return classes


def _data(group: Group) -> dict[str, Any]:
    """What the script draws the maps from."""
    places = group.mapped - 1
    counts = group.counts[places]
    return {
        "titles": [group.titles[place] for place in places.tolist()],
        "counts": counts.tolist(),
        # The class of an item is the number of bounds that it is above.
        "classes": np.searchsorted(np.asarray(_class_bounds(group)), counts, side="left").tolist(),
        "maps": [None if run.map is None else {"x": run.map.x, "y": run.map.y} for run in group.runs],
    }


def _user(group: Group, number: int) -> dict[str, Any]:
    user = group.users[number]

    def titles(items: Sequence[int]) -> list[str]:
        return [group.titles[item - 1] for item in items]

    return {
        "user_id": user.user_id,
        "history": titles(user.history[-SHOWN_HISTORY:]),
        "length": len(user.history),
        "targets": titles(user.targets),
        "runs": [
            {
                "name": run.name,
                "rank": run.recommended[number].rank,
                "top": [(group.titles[item - 1], item in user.targets) for item in run.recommended[number].top],
            }
            for run in group.runs
        ],
    }
