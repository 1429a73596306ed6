"""The plots of docs/efficiency.md, from the lines of benchmarks/results/efficiency.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from documents import save_plot
from efficiency_tables import TITLES, machines_of, name_of, points_of, range_of, settings_of, title_of, title_of_curve
from lines import Lines
from matplotlib import pyplot as plt


def plots(results: Lines, folder: Path) -> list[Path]:
    """Draw what there is to draw; returns the files."""
    drawn = {"efficiency.svg": curves(results)}
    for machine in machines_of(results):
        drawn["-".join(["efficiency-growth", *map(str, machine.values())]) + ".svg"] = growth(results, machine)
    written = []
    for name, figure in drawn.items():
        if figure is not None:
            save_plot(figure, folder / name)
            plt.close(figure)
            written.append(folder / name)
    return written


def curves(results: Lines) -> plt.Figure | None:
    """Validation Recall@10 so far over seconds, on a logarithmic axis: a panel a setting with an LLM in the loop."""
    in_the_loop = [line["of"] for line in results.where(kind="curve") if not line["of"]["row"].startswith("ssna")]
    read = [
        (each, extraction["seconds"])
        for each in settings_of(results)
        if any(each.items() <= of.items() for of in in_the_loop)
        and (extraction := results.last(kind="extraction", **each)) is not None
    ]
    if not read:
        return None
    figure, panels = plt.subplots(1, len(read), figsize=(6.4 * len(read), 4.2), squeeze=False)
    for panel, (setting, once) in zip(panels[0], read, strict=True):
        for line in results.where(kind="curve", **setting):
            points = points_of(line, once if line["of"]["row"].startswith("ssna") else 0.0)
            panel.step(*zip(*points, strict=True), where="post", label=title_of_curve(line))
        panel.set(xscale="log", xlabel="seconds, extraction included", ylabel="validation Recall@10, best so far")
        panel.set_title(name_of(setting))
        panel.legend()
    figure.tight_layout()
    return figure


def growth(results: Lines, machine: Mapping[str, Any]) -> plt.Figure | None:
    """Time, with the range of its stretches, and memory of each row: a column a study of what grows."""
    lines = results.where(kind="growth", **machine)
    studies = list(dict.fromkeys(line["of"]["study"] for line in lines))
    seen = {(line["of"]["study"], line["of"]["row"]) for line in lines}
    rows = [row for row in TITLES if all((study, row) in seen for study in studies)]
    if not studies:
        return None
    size = 2.8 * len(studies), 6.0
    figure, panels = plt.subplots(2, len(studies), figsize=size, squeeze=False, sharex="col", sharey="row")
    for (above, below), study in zip(panels.T, studies, strict=True):
        of_study = [line for line in lines if line["of"]["study"] == study]
        places = {value: place for place, value in enumerate(dict.fromkeys(line["of"]["value"] for line in of_study))}
        for number, row in enumerate(rows):
            found = [line for line in of_study if line["of"]["row"] == row]
            x = [places[line["of"]["value"]] for line in found]
            y = [line["epoch_seconds"] for line in found]
            ends = [[abs(y[place] - end) for end in range_of(line)] for place, line in enumerate(found)]
            above.errorbar(
                x, y, list(zip(*ends, strict=True)), marker="o", capsize=3, color=f"C{number}", label=title_of(row)
            )
            below.plot(x, [line["memory"] / 2**20 for line in found], marker="o", color=f"C{number}")
        above.set(yscale="log", title=f"by {study}")
        below.set(yscale="log", xticks=list(places.values()), xticklabels=list(places))
        for panel in (above, below):
            panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel("seconds an epoch")
    panels[1, 0].set_ylabel("memory, MiB")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="upper center", ncols=len(rows), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    return figure
