"""The finished cells as the plots of docs/accuracy.md: learning curves, and accuracy by the number of layers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "ssna"  # The same figures give the same file.
matplotlib.rcParams["svg.fonttype"] = "none"  # Words stay words.

from grid.cells import Results  # noqa: E402
from grid.tables import Outcome, outcomes_of  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402

CURVES = ("ids", "ids-gru4rec", "last-whitened", "mean", "residual", "residual-ids")


def plots(results: Results, folder: Path, depths: Mapping[str, int]) -> list[Path]:
    """Write them, of each dataset, that of layers if they were studied; returns their paths.

    Args:
        results: the finished cells.
        folder: of the plots.
        depths: layers of each LLM's cache, which is what `all` stands for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    names = {line["dataset"]: line["dataset_name"] for line in results.lines.values()}
    for dataset, name in names.items():
        outcomes = outcomes_of(line for line in results.lines.values() if line["dataset"] == dataset)
        studied = any(each.layers is not None for each in outcomes)
        for kind in ("learning", "layers") if studied else ("learning",):
            figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
            if kind == "learning":
                _learning(axes, outcomes)
            else:
                _layers(axes, outcomes, depths)
            axes.set_title(name)
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
            path = folder / f"accuracy-{name}-{kind}.svg"
            figure.savefig(path, metadata={"Date": None})
            plt.close(figure)
            written.append(path)
    return written


def _learning(axes: plt.Axes, outcomes: list[Outcome]) -> None:
    """Validation by epoch, of the first seed."""
    first_llm = next((each.llms for each in outcomes if len(each.llms) == 1), ())
    for each in outcomes:
        if each.method in CURVES and each.layers is None and each.llms in ((), first_llm):
            curve = each.lines[0]["curve"]
            axes.plot(range(1, len(curve) + 1), curve, label=each.title)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation NDCG@10")


def _layers(axes: plt.Axes, outcomes: list[Outcome], depths: Mapping[str, int]) -> None:
    """Test Recall@10 by a, the number of top layers."""
    studied = {(each.method, each.llms) for each in outcomes if each.layers is not None}
    for method, llms in sorted(studied):
        points = sorted(
            (each.layers or depths[llms[0]], statistics.mean(line["test"]["recall@10"] for line in each.lines))
            for each in outcomes
            if (each.method, each.llms) == (method, llms)
        )
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{method} ({llms[0]})")
    axes.set_xlabel("top layers that are adapted")
    axes.set_ylabel("Recall@10")
