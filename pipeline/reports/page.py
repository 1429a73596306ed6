"""The page: what the template needs of groups of runs, and the file that comes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

import numpy as np
from markupsafe import Markup

import ssna
from ssna.api.compare import RESAMPLES
from ssna.content_security import source_hash
from ssna.reports.charts import COLOURS, marker
from ssna.reports.contents import BY_POPULARITY, MAPPED_ITEMS, SHOWN_HISTORY, TOP, Group, RunReport
from ssna.reports.figures import CURVES, CUTOFFS, METRICS, best_and_last, by_cutoff, by_layers, by_popularity, curves
from ssna.terminal import size

GENERATOR = '<meta name="generator" content="ssna report'
"""By this a report of ours is known"""

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
    environment.globals |= {"marker": marker, "missing": _MISSING, "colours": COLOURS}
    script = _file("page.js")
    return environment.get_template("page.html.j2").render(
        generator=Markup(GENERATOR),
        version=ssna.__version__,
        style=Markup(_file("page.css")),
        script=Markup(script),
        script_hash=source_hash(script),
        groups=[_view(group) for group in groups],
        data=[_data(group) for group in groups],
        curve_names=list(CURVES),
        resamples=RESAMPLES,
        by_popularity=BY_POPULARITY,
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
        "curves": curves(runs),
        "epochs": best_and_last(runs),
        "untrained": [run.name for run in runs if not run.epochs],
        "losses": sorted({run.options.loss for run in runs if run.epochs}),
        "by_cutoff": by_cutoff(runs),
        "metrics": [(f"{name}@{k}", f"{label}@{k}") for name, label in METRICS.items() for k in CUTOFFS],
        "by_layers": by_layers(runs),
        "by_popularity": by_popularity(runs),
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
            "dataset": run.dataset,
            "llm": run.llms or "none",
            "layers": ", ".join(str(len(cache["layers"])) for cache in run.config["caches"]) or "none",
            **{name: value for name, value in asdict(run.options).items() if name not in ("model", "side", "layers")},
        }
        for run in runs
    ]
    for run, row in zip(runs, rows, strict=True):
        if run.options.model == "popularity":  # It has no other options, whatever their defaults.
            row |= {name: _MISSING for name in row if name not in (*_ALWAYS, "dataset", "split", "candidates")}
    return [
        (name, values)
        for name in rows[0]
        if len(set(values := [str(row[name]) for row in rows]) - {_MISSING}) > 1 or name in _ALWAYS
    ]


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
