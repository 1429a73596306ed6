"""The finished cells as the plots of docs/accuracy.md: learning curves, and accuracy by the number of layers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from documents import save_plot
from grid.cells import Results
from grid.tables import Outcome, by_dataset, outcomes_of, series_of, studied_of
from matplotlib import pyplot as plt

CURVES = ("ids", "ids-gru4rec", "last-whitened", "mean", "residual", "residual-ids")


def plots(results: Results, folder: Path, depths: Mapping[str, int]) -> list[Path]:
    """Write them, of each dataset, that of layers if they were studied; returns their paths.

    Args:
        results: the finished cells.
        folder: of the plots.
        depths: layers of each LLM's cache, which is what `all` stands for.
    """
    written = []
    for name, lines in by_dataset(results):
        outcomes = outcomes_of(lines)
        series = [each for study in studied_of(lines, outcomes).values() if len(each := series_of(study)) > 2]
        for kind in ("learning", "layers") if series else ("learning",):
            figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
            if kind == "learning":
                _learning(axes, outcomes)
            else:
                _layers(axes, series, depths)
            axes.set_title(name)
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
            path = folder / f"accuracy-{name}-{kind}.svg"
            save_plot(figure, path)
            plt.close(figure)
            written.append(path)
    return written


def _learning(axes: plt.Axes, outcomes: list[Outcome]) -> None:
    """Validation by epoch, of the first seed."""
    first_llm = next((each.llms for each in outcomes if len(each.llms) == 1), ())
    for each in outcomes:
        if each.method in CURVES and each.llms in ((), first_llm):
            curve = each.lines[0]["curve"]
            axes.plot(range(1, len(curve) + 1), curve, label=each.title)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation NDCG@10")


def _layers(axes: plt.Axes, series: list[list[Outcome]], depths: Mapping[str, int]) -> None:
    """Test Recall@10 by a, the number of top layers, with one standard deviation of the seeds."""
    for each in series:
        layers = [outcome.layers or depths[outcome.llms[0]] for outcome in each]
        values = [[line["test"]["recall@10"] for line in outcome.lines] for outcome in each]
        spread = [statistics.stdev(of) if len(of) > 1 else 0.0 for of in values]
        axes.errorbar(
            layers, list(map(statistics.mean, values)), spread, marker="o", capsize=3, label=" + ".join(each[0].llms)
        )
    axes.set_xlabel("top layers that are adapted")
    axes.set_ylabel("Recall@10")
