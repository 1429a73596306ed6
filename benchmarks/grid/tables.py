"""The finished cells as the tables of docs/accuracy.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from grid.cells import Results, unpack
from grid.methods import METHODS
from grid.statistics import Comparison, compare, holm, per_user

METRICS = ("recall@10", "ndcg@10")
GROUPS = ("head", "tail", "unseen")


@dataclass(frozen=True)
class Outcome:
    """All seeds of a method's chosen trial."""

    method: str
    llms: tuple[str, ...]
    layers: int | None
    lines: Sequence[Mapping[str, Any]]

    @property
    def valid(self) -> float:
        """By which the best is chosen."""
        return statistics.mean(line["valid"]["ndcg@10"] for line in self.lines)

    def metric(self, name: str) -> str:
        """Mean over seeds and, of several, their standard deviation."""
        values = [line["test"][name] for line in self.lines]
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.4f}{spread}".replace("0.", ".")

    def users(self, metric: str, group: int | None = None) -> np.ndarray:
        """The metric of each user, or of those whose target is of a group, averaged over seeds."""
        mean: np.ndarray = np.mean([per_user(unpack(line["ranks"]), metric) for line in self.lines], axis=0)
        return mean if group is None else mean[unpack(self.lines[0]["groups"]) == group]

    @property
    def title(self) -> str:
        """Of its row."""
        return METHODS[self.method].title + ("" if not self.llms else f" ({' + '.join(self.llms)})")


def outcomes_of(lines: Iterable[Mapping[str, Any]]) -> list[Outcome]:
    """Of each method, LLM and number of layers, the best trial of the first seed with all seeds it has."""
    trials = dict[tuple[Any, ...], dict[str, list[Mapping[str, Any]]]]()
    for line in lines:
        options = {name: value for name, value in line["options"].items() if name != "seed"}
        layers = options.get("layers") if METHODS[line["method"]].options.get("layers") is None else None
        row = trials.setdefault((line["method"], tuple(line["llms"]), layers), {})
        row.setdefault(repr(sorted(options.items())), []).append(line)
    found = []
    for (method, llms, layers), by_options in trials.items():
        first = {
            name: next((line["valid"]["ndcg@10"] for line in each if line["options"]["seed"] == 0), -1.0)
            for name, each in by_options.items()
        }
        best = max(first, key=lambda name: first[name])
        found.append(Outcome(method, llms, layers, sorted(by_options[best], key=lambda line: line["options"]["seed"])))
    return found


def tables(results: Results) -> str:
    """Of each dataset: all rows, how much text is worth, rare items, and layers."""
    parts = []
    names = {line["dataset"]: line["dataset_name"] for line in results.lines.values()}
    for dataset, name in names.items():
        outcomes = outcomes_of(line for line in results.lines.values() if line["dataset"] == dataset)
        whole = [outcome for outcome in outcomes if outcome.layers is None]
        parts += [f"## {name}", _all_rows(whole), _comparisons(whole), _rare(whole), _by_layers(outcomes)]
    return "\n\n".join(part for part in parts if part)


def _all_rows(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "| | seeds | valid NDCG@10 | Recall@10 | NDCG@10 | best epochs | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in outcomes:
        epochs = ", ".join(str(line["best_epoch"]) for line in each.lines)
        valid = f"{each.valid:.4f}".replace("0.", ".")
        cells = [str(len(each.lines)), valid, *map(each.metric, METRICS), epochs]
        lines.append(f"| {each.title} | {' | '.join(cells)} | {each.lines[0]['trainable_parameters']:,} |")
    return "\n".join(lines)


def best(outcomes: Iterable[Outcome]) -> Outcome | None:
    """By validation."""
    return max(outcomes, key=lambda each: each.valid, default=None)


def _pairs(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The best SSNA and the best single layer, it and IDs, with IDs and IDs, and of each LLM it and the mean."""
    ids = best(each for each in outcomes if each.method in ("ids", "ids-gru4rec"))
    pairs = list[tuple[Outcome | None, Outcome | None]]()
    ours = best(each for each in outcomes if each.method in ("gru", "residual"))
    pairs += [(ours, best(each for each in outcomes if METHODS[each.method].one_layer)), (ours, ids)]
    pairs.append((best(each for each in outcomes if each.method in ("gru-ids", "residual-ids")), ids))
    for llms in dict.fromkeys(each.llms for each in outcomes if len(each.llms) == 1):
        mine = [each for each in outcomes if each.llms == llms]
        sequential = best(each for each in mine if each.method in ("gru", "residual"))
        pairs.append((sequential, next((each for each in mine if each.method == "mean"), None)))
    pairs.append((best(each for each in outcomes if each.method == "two-llms"), ours))
    return [(first, second) for first, second in pairs if first is not None and second is not None]


def _comparisons(outcomes: Sequence[Outcome]) -> str:
    pairs, found = _pairs(outcomes), list[Comparison]()
    for ours, theirs in pairs:
        found += [compare(ours.users(metric), theirs.users(metric)) for metric in METRICS]
    if not found:
        return ""
    corrected = holm([each.p_value for each in found])
    lines = ["| | against | metric | relative | 95 % interval | p (Holm) |", "|---|---|---|---|---|---|"]
    rows = [(ours, theirs, metric) for ours, theirs in pairs for metric in METRICS]
    for (ours, theirs, metric), each, p_value in zip(rows, found, corrected, strict=True):
        lines.append(
            f"| {ours.title} | {theirs.title} | {metric} | {_share(each.difference)} | {_share(each.low)} to "
            f"{_share(each.high)} | {p_value:.4f} |"
        )
    return "\n".join(lines)


def _share(value: float) -> str:
    return f"{100 * value:+.1f} %".replace("-", "−")


def _rare(outcomes: Sequence[Outcome]) -> str:
    """Recall@10 by how popular the target was in training, beside what chance would find."""
    lines = [
        "| Recall@10 of targets that are | popular (the head) | the rest | never seen in training |",
        "|---|---|---|---|",
    ]
    for each in outcomes:
        found = [each.users("recall@10", group) for group in range(len(GROUPS))]
        shares = [f"{values.mean():.4f}".replace("0.", ".") if len(values) else "" for values in found]
        lines.append(f"| {each.title} | {' | '.join(shares)} |")
    if outcomes:
        groups = unpack(outcomes[0].lines[0]["groups"])
        counts = [f"{int((groups == group).sum()):,}" for group in range(len(GROUPS))]
        chance = f"{10 / outcomes[0].lines[0]['candidates']:.4f}".replace("0.", ".")
        lines += [f"| chance | {chance} | {chance} | {chance} |", f"| targets | {' | '.join(counts)} |"]
    return "\n".join(lines)


def _by_layers(outcomes: Sequence[Outcome]) -> str:
    studied = [each for each in outcomes if each.layers is not None]
    if not studied:
        return ""
    methods = {(each.method, each.llms) for each in studied}
    whole = [each for each in outcomes if each.layers is None and (each.method, each.llms) in methods]
    lines = ["| | layers | seeds | valid NDCG@10 | Recall@10 | NDCG@10 |", "|---|---|---|---|---|---|"]
    for each in sorted([*studied, *whole], key=lambda each: (each.llms, each.layers or 1_000)):
        valid = f"{each.valid:.4f}".replace("0.", ".")
        lines.append(
            f"| {each.title} | {each.layers or 'all'} | {len(each.lines)} | {valid} | {each.metric('recall@10')} | "
            f"{each.metric('ndcg@10')} |"
        )
    return "\n".join(lines)
