"""The finished cells as the tables of docs/accuracy.md."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from grid.cells import RARITY, Results, unpack
from grid.methods import EQUAL, METHODS, ONE_LAYER_OF_STUDIED, SEARCH, STUDIED
from grid.statistics import RESAMPLES, Comparison, compare, excess, holm, per_user

METRICS = ("recall@10", "ndcg@10")
LEAST_SEEDS = 3
_LEAST_TARGETS = 30  # Of fewer, no interval is printed.
ID_MODELS = ("ids", "ids-gru4rec")
SEQUENTIAL = ("gru", "residual")
SEQUENTIAL_WITH_IDS = ("gru-ids", "residual-ids", "residual-ids-always")


@dataclass(frozen=True)
class Outcome:
    """All seeds of a method's chosen trial."""

    method: str
    llms: tuple[str, ...]
    layers: int | None
    lines: Sequence[Mapping[str, Any]]
    trials: int
    """Points of the search space that the first seed was trained with"""

    @property
    def valid(self) -> float:
        """By which the best is chosen."""
        return statistics.mean(line["valid"]["ndcg@10"] for line in self.lines)

    def metric(self, name: str) -> str:
        """Mean over seeds and, of several, their standard deviation."""
        values = [line["test"][name] for line in self.lines]
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.4f}{spread}".replace("0.", ".")

    @property
    def finished(self) -> bool:
        """Whether all trials and enough seeds are there; before, nothing is chosen yet that a test could be of."""
        trials, seeds = (len(SEARCH), LEAST_SEEDS) if METHODS[self.method].searched else (1, 1)
        return self.trials >= trials and len(self.lines) >= seeds

    def users(self, metric: str, group: int | None = None) -> np.ndarray:
        """The metric of each seed and user ``(S, U)``, or of those whose target is of a group."""
        values = np.stack([per_user(unpack(line["ranks"]), metric) for line in self.lines])
        return values if group is None else values[:, unpack(self.lines[0]["rarity"]) == group]

    @property
    def title(self) -> str:
        """Of its row."""
        layers = "" if self.layers is None else f", a = {self.layers}"
        return METHODS[self.method].title + layers + ("" if not self.llms else f" ({' + '.join(self.llms)})")


def outcomes_of(lines: Iterable[Mapping[str, Any]]) -> list[Outcome]:
    """Of each method, LLM and number of layers, the best trial of the first seed with all seeds it has.

    Where layers were studied, the single adapter is there twice: as itself, and as the studied method's a = 1.
    """
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
        chosen = sorted(by_options[best], key=lambda line: line["options"]["seed"])
        found.append(Outcome(method, llms, layers, chosen, sum(value > 0 for value in first.values())))
    studied = {each.llms for each in found if each.layers is not None}
    ones = [each for each in found if each.method == ONE_LAYER_OF_STUDIED and each.llms in studied]
    return [*found, *(replace(each, method=STUDIED, layers=1) for each in ones)]


def tables(results: Results) -> str:
    """Of each dataset: all rows, how much text is worth, rare items, and layers."""
    parts = []
    names = {line["dataset"]: line["dataset_name"] for line in results.lines.values()}
    for dataset, name in names.items():
        outcomes = outcomes_of(line for line in results.lines.values() if line["dataset"] == dataset)
        whole = [outcome for outcome in outcomes if outcome.layers is None]
        pairs = _pairs([outcome for outcome in whole if outcome.finished])
        compared = [(ours.lines, theirs.lines) for ours, theirs in pairs]
        by_layers = _pairs_of_layers([outcome for outcome in outcomes if outcome.finished])
        # The single adapter may be the best single layer too.
        pairs += [(ours, theirs) for ours, theirs in by_layers if (ours.lines, theirs.lines) not in compared]
        parts += [
            f"## {name}",
            _all_rows(whole),
            _comparisons(pairs),
            _rare(whole),
            _either([outcome for outcome in whole if outcome.finished]),
            _by_layers(outcomes),
        ]
    return "\n\n".join(part for part in parts if part)


def _all_rows(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "| | seeds | dropout, blocks | valid NDCG@10 | Recall@10 | NDCG@10 | best epochs | parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in sorted(outcomes, key=lambda each: (each.llms, list(METHODS).index(each.method))):
        epochs = ", ".join(str(line["best_epoch"]) for line in each.lines)
        seeds = f"{len(each.lines)}{'' if each.finished else ' (unfinished)'}"
        options = each.lines[0]["options"]
        trial = f"{options['dropout']:g}, {options['blocks']}" if METHODS[each.method].searched else ""
        cells = [seeds, trial, _short(each.valid), *map(each.metric, METRICS), epochs]
        lines.append(f"| {each.title} | {' | '.join(cells)} | {each.lines[0]['trainable_parameters']:,} |")
    return "\n".join(lines)


def best(outcomes: Iterable[Outcome]) -> Outcome | None:
    """By validation."""
    return max(outcomes, key=lambda each: each.valid, default=None)


def _pairs(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The best SSNA and the best single layer, it and IDs, with IDs and IDs, and of each LLM it and other forms."""
    ids = best(each for each in outcomes if each.method in ID_MODELS)
    pairs = list[tuple[Outcome | None, Outcome | None]]()
    ours = best(each for each in outcomes if each.method in SEQUENTIAL)
    pairs += [(ours, best(each for each in outcomes if METHODS[each.method].one_layer)), (ours, ids)]
    pairs.append((best(each for each in outcomes if each.method in SEQUENTIAL_WITH_IDS), ids))
    for llms in dict.fromkeys(each.llms for each in outcomes if len(each.llms) == 1):
        mine = [each for each in outcomes if each.llms == llms]
        sequential = best(each for each in mine if each.method in SEQUENTIAL)
        pairs += [(sequential, each) for each in mine if each.method in ("mean", "iisan", *EQUAL)]
    pairs.append((best(each for each in outcomes if each.method == "two-llms"), ours))
    return [(first, second) for first, second in pairs if first is not None and second is not None]


def _pairs_of_layers(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """Of each LLM and method whose layers were studied, the best number of layers and one."""
    ones = [each for each in outcomes if each.layers == 1]
    pairs = []
    for one in ones:
        same = [each for each in outcomes if (each.method, each.llms) == (one.method, one.llms)]
        deepest = best(each for each in same if each is not one)  # Below one, if one is best.
        pairs += [] if deepest is None else [(deepest, one)]
    return pairs


def _comparisons(pairs: Sequence[tuple[Outcome, Outcome]]) -> str:
    found = list[Comparison]()
    for ours, theirs in pairs:
        found += [compare(ours.users(metric), theirs.users(metric)) for metric in METRICS]
    if not found:
        return ""
    corrected = holm([each.p_value for each in found])
    lines = [
        "| | against | metric | relative | 95 % interval: users | users and seeds | p (Holm) |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [(ours, theirs, metric) for ours, theirs in pairs for metric in METRICS]
    for (ours, theirs, metric), each, p_value in zip(rows, found, corrected, strict=True):
        lines.append(
            f"| {ours.title} | {theirs.title} | {metric} | {_share(each.difference)} | {_between(each.interval)} | "
            f"{_between(each.with_seeds)} | {_p_value(p_value, len(found))} |"
        )
    return "\n".join(lines)


def _p_value(value: float, comparisons: int) -> str:
    """A corrected one; the least that the resamples can tell is a bound."""
    least = comparisons * 2 / (1 + RESAMPLES)
    return f"< {least:.4f}" if value <= least else f"{value:.4f}"


def _between(interval: tuple[float, float]) -> str:
    return " to ".join(map(_share, interval))


def _share(value: float) -> str:
    return f"{100 * value:+.1f} %".replace("-", "−")


def _rare(outcomes: Sequence[Outcome]) -> str:
    """Recall@10 by how popular the target was in training, beside chance, and by how much text is above others."""
    if not outcomes:
        return ""
    lines = [f"| Recall@10 of targets | {' | '.join(RARITY)} |", f"|---|{'---|' * len(RARITY)}"]
    for each in outcomes:
        lines.append(f"| {each.title} | {' | '.join(_recall(each, group) for group in range(len(RARITY)))} |")
    rarity = unpack(outcomes[0].lines[0]["rarity"])
    chance = _short(10 / outcomes[0].lines[0]["candidates"])
    lines.append(f"| chance | {' | '.join([chance] * len(RARITY))} |")
    lines.append(f"| targets | {' | '.join(f'{int((rarity == group).sum()):,}' for group in range(len(RARITY)))} |")
    finished = [each for each in outcomes if each.finished]
    ours = best(each for each in finished if each.method in SEQUENTIAL)
    ids = best(each for each in finished if each.method in ID_MODELS)
    one_layer = best(each for each in finished if METHODS[each.method].one_layer)
    for theirs in (ids, one_layer):
        if ours is not None and theirs is not None:
            lines += _excess_by_rarity(ours, theirs)
    return "\n".join(lines)


def _excess_by_rarity(ours: Outcome, theirs: Outcome) -> list[str]:
    lines = ["", f"{ours.title} less {theirs.title}, Recall@10, 95 % interval:", ""]
    lines += ["| targets | difference | interval | times chance, at least |", "|---|---|---|---|"]
    for group, name in enumerate(RARITY):
        mine, others = ours.users("recall@10", group), theirs.users("recall@10", group)
        if mine.shape[1] >= _LEAST_TARGETS:
            difference, (low, high) = excess(mine, others)
            lowest = excess(mine, 0 * mine)[1][0] * ours.lines[0]["candidates"] / 10
            shown = math.floor(10 * lowest) / 10
            lines.append(f"| {name} | {_signed(difference)} | {_signed(low)} to {_signed(high)} | {shown:g} |")
    return lines


def _either(outcomes: Sequence[Outcome]) -> str:
    """Of two models the hits that both have, and those of one alone: what one could add to the other at most.

    Two seeds of one method stand beside them, for how much of that is chance.
    """
    ours = best(each for each in outcomes if each.method in SEQUENTIAL)
    if ours is None:
        return ""
    first, *further = ours.lines
    beside = [best(each for each in outcomes if each.method == "mean" and each.llms == ours.llms)]
    beside.append(best(each for each in outcomes if each.method in ID_MODELS))
    pairs = [(f"{ours.title}, another seed", line) for line in further[:1]]
    pairs += [(each.title, each.lines[0]) for each in beside if each is not None]
    lines = [f"| Recall@10: {ours.title} and | both | first alone | second alone | either |", "|---|---|---|---|---|"]
    for title, other in pairs:
        mine, theirs = (per_user(unpack(line["ranks"]), "recall@10") > 0 for line in (first, other))
        shares = (mine & theirs, mine & ~theirs, ~mine & theirs, mine | theirs)
        lines.append(f"| {title} | {' | '.join(_short(float(share.mean())) for share in shares)} |")
    return "\n".join(lines)


def _recall(outcome: Outcome, group: int) -> str:
    found = outcome.users("recall@10", group)
    return _short(float(found.mean())) if found.size else ""


def _short(value: float) -> str:
    return f"{value:.4f}".replace("0.", ".")


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("0.", ".").replace("-", "−")


def _by_layers(outcomes: Sequence[Outcome]) -> str:
    studied = [each for each in outcomes if each.layers is not None]
    if not studied:
        return ""
    methods = {(each.method, each.llms) for each in studied}
    whole = [each for each in outcomes if each.layers is None and (each.method, each.llms) in methods]
    lines = ["| | seeds | valid NDCG@10 | Recall@10 | NDCG@10 |", "|---|---|---|---|---|"]
    for each in sorted([*studied, *whole], key=lambda each: (each.llms, each.layers or 1_000)):
        cells = [str(len(each.lines)), _short(each.valid), *map(each.metric, METRICS)]
        lines.append(f"| {each.title} | {' | '.join(cells)} |")
    return "\n".join(lines)
