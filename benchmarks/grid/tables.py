"""The finished cells as the tables of docs/accuracy.md."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from grid.cells import RARITY, Results, Row, cell_of, unpack
from grid.methods import EQUAL, FORMS, FUSED, METHODS, ONE_LAYER_OF_STUDIED, SEARCH, SEARCHED, STUDIED
from grid.statistics import RESAMPLES, compare, excess, holm, per_user

METRICS = ("recall@10", "ndcg@10")
LEAST_SEEDS = 3
_LEAST_TARGETS = 30  # Of fewer, no interval is printed.
_DIFFERS = ("seed", "side", "layers", "side_width")
"""Options in which methods differ that are alike otherwise"""
ID_MODELS = ("ids", "ids-gru4rec")
SEQUENTIAL = ("gru", "residual")
"""From which the best SSNA is taken. Whitened states are a remedy that was tried afterwards: a row, and no more"""
SEQUENTIAL_WITH_IDS = ("gru-ids", "residual-ids", "residual-ids-always")


@dataclass(frozen=True)
class Outcome:
    """All seeds of a method's chosen trial, or of what another method has chosen."""

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
        """Whether all trials and enough seeds are there."""
        return self.chosen and len(self.lines) >= (LEAST_SEEDS if METHODS[self.method].searched else 1)

    @property
    def chosen(self) -> bool:
        """Whether all trials are there; before, nothing is chosen yet that a test could be of."""
        return self.trials >= (len(SEARCH) if METHODS[self.method].searched else 1)

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
    """Of each method with all layers and each LLM, the best trial of the first seed with all seeds it has."""
    trials = dict[tuple[Any, ...], dict[str, list[Mapping[str, Any]]]]()
    for line in lines:
        if _of_search(line):
            row = trials.setdefault((line["method"], tuple(line["llms"])), {})
            row.setdefault(_options(line, ("seed",)), []).append(line)
    found = []
    for (method, llms), by_options in trials.items():
        first = {
            name: next((line["valid"]["ndcg@10"] for line in each if line["options"]["seed"] == 0), -1.0)
            for name, each in by_options.items()
        }
        best = max(first, key=lambda name: first[name])
        number = sum(value > 0 for value in first.values())
        found.append(Outcome(method, llms, None, _by_seed(by_options[best]), number))
    return sorted(found, key=lambda each: (each.llms, list(METHODS).index(each.method)))


def _of_search(line: Mapping[str, Any]) -> bool:
    """Whether its options are a point of the search space; those of studies, and of other searches, are not."""
    cell = cell_of(line)
    trials = Row(cell.dataset, cell.llms, cell.method, {}, 0).trials()
    return cell.method not in EQUAL and replace(cell, options={**cell.options, "seed": 0}) in trials


def alike(lines: Iterable[Mapping[str, Any]], ours: Outcome) -> list[Outcome]:
    """The studied method, fewer layers of it, and other forms of integration, with the options that ours has chosen.

    The single adapter is the studied method's a = 1.
    """
    wanted, rows = _options(ours.lines[0], _DIFFERS), dict[tuple[str, int | None], list[Mapping[str, Any]]]()
    for line in lines:
        method, layers = line["method"], _layers_of(line)
        if tuple(line["llms"]) == ours.llms and _options(line, _DIFFERS) == wanted:
            if method == ONE_LAYER_OF_STUDIED:
                rows.setdefault((STUDIED, 1), []).append(line)
            elif method in (STUDIED, FUSED, *FORMS):
                rows.setdefault((method, layers), []).append(line)
    found = [Outcome(method, ours.llms, layers, _by_seed(each), ours.trials) for (method, layers), each in rows.items()]
    places = [STUDIED, FUSED, *FORMS]
    return sorted(found, key=lambda each: (places.index(each.method), each.layers or math.inf))


def studied_of(lines: Sequence[Mapping[str, Any]], outcomes: Sequence[Outcome]) -> dict[tuple[str, ...], list[Outcome]]:
    """What is `alike` the studied method of each LLM, and of two."""
    return {each.llms: alike(lines, each) for each in outcomes if each.method in (STUDIED, FUSED)}


def series_of(study: Sequence[Outcome]) -> list[Outcome]:
    """The studied method with one layer, with more, and last with all."""
    return [each for each in study if each.method in (STUDIED, FUSED)]


def _whole_of(study: Sequence[Outcome]) -> Outcome:
    """The studied method with all layers."""
    return series_of(study)[-1]


def _layers_of(line: Mapping[str, Any]) -> int | None:
    """How many a study has left of them: of a method that reads one anyway, and where all are read, it is no study."""
    return None if METHODS[line["method"]].one_layer else line["options"].get("layers")


def _options(line: Mapping[str, Any], without: Sequence[str]) -> str:
    return repr(sorted((name, value) for name, value in line["options"].items() if name not in without))


def _by_seed(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(lines, key=lambda line: line["options"]["seed"])


def by_dataset(results: Results) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """The name of each dataset, and its finished cells."""
    found = dict[str, list[Mapping[str, Any]]]()
    for line in results.lines.values():
        found.setdefault(line["dataset"], []).append(line)
    return [(lines[-1]["dataset_name"], lines) for lines in found.values()]


def tables(results: Results) -> str:
    """Of each dataset: all rows, what is alike, how much each is worth, and rare items."""
    parts = []
    for name, lines in by_dataset(results):
        outcomes = outcomes_of(lines)
        finished = [outcome for outcome in outcomes if outcome.finished]
        studies = studied_of(lines, outcomes)
        parts += [
            f"## {name}",
            _all_rows(outcomes),
            *map(_all_alike, studies.values()),
            _comparisons(_pairs(finished), [pair for study in studies.values() for pair in _pairs_alike(study)]),
            _rare(outcomes),
            _either(finished),
        ]
    return "\n\n".join(part for part in parts if part)


def series_table(results: Results) -> str:
    """Validation NDCG@10 and seeds by the number of layers, a row each LLM of a dataset; its best one is bold."""
    rows = dict[str, dict[float, Outcome]]()
    for name, cells in by_dataset(results):
        for llms, study in studied_of(cells, outcomes_of(cells)).items():
            series = {each.layers or math.inf: each for each in series_of(study)}
            if len(series) > 1:
                rows[f"{name}, {' + '.join(llms)}"] = series
    depths = sorted({depth for series in rows.values() for depth in series})
    shown = ["all" if depth == math.inf else f"{depth:g}" for depth in depths]
    lines = [f"| | {' | '.join(shown)} |", f"|---|{'---|' * len(depths)}"]
    for title, series in rows.items():
        highest = best(series.values())
        texts = {depth: f"{_short(each.valid)} ({len(each.lines)})" for depth, each in series.items()}
        texts |= {depth: f"**{texts[depth]}**" for depth, each in series.items() if each is highest}
        lines.append(f"| {title} | {' | '.join(texts.get(depth, '') for depth in depths)} |")
    return "\n".join(lines)


def _all_rows(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "| | seeds | dropout, blocks | valid NDCG@10 | Recall@10 | NDCG@10 | best epochs | parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in outcomes:
        seeds = f"{len(each.lines)}{'' if each.finished else ' (unfinished)'}"
        options = each.lines[0]["options"]
        trial = f"{options['dropout']:g}, {options['blocks']}" if METHODS[each.method].searched else ""
        lines.append(f"| {' | '.join([each.title, seeds, trial, *_figures(each)])} |")
    return "\n".join(lines)


def _figures(outcome: Outcome) -> list[str]:
    """Cells of what was found: validation, test, best epochs, and parameters."""
    epochs = ", ".join(str(line["best_epoch"]) for line in outcome.lines)
    parameters = f"{outcome.lines[0]['trainable_parameters']:,}"
    return [_short(outcome.valid), *map(outcome.metric, METRICS), epochs, parameters]


def _all_alike(study: Sequence[Outcome]) -> str:
    if len(study) < 2:
        return ""
    ours = _whole_of(study)
    options = ", ".join(f"{name} {ours.lines[0]['options'][name]:g}" for name in SEARCHED)
    open_choice = "" if ours.chosen else ", the best so far"
    lines = [
        f"| {' + '.join(ours.llms)}, all with SSNA's options ({options}{open_choice}) | seeds | valid NDCG@10 | "
        "Recall@10 | NDCG@10 | best epochs | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join([each.title, str(len(each.lines)), *_figures(each)])} |" for each in study]
    return "\n".join(lines)


def best(outcomes: Iterable[Outcome]) -> Outcome | None:
    """By validation."""
    return max(outcomes, key=lambda each: each.valid, default=None)


def _pairs(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The best SSNA, and two LLMs, against the best single layer; it, and it with IDs, against each model of IDs.

    Of each LLM the best SSNA against other forms, its own adapter of one layer and the best method of one layer, and
    two LLMs against the latter of either.
    """
    ids = [each for each in outcomes if each.method in ID_MODELS]
    ours = best(each for each in outcomes if each.method in SEQUENTIAL)
    with_ids = best(each for each in outcomes if each.method in SEQUENTIAL_WITH_IDS)
    one_layer = best(each for each in outcomes if METHODS[each.method].one_layer)
    fused = best(each for each in outcomes if each.method == FUSED)
    pairs: list[tuple[Outcome | None, Outcome | None]] = [(ours, one_layer)]
    pairs += [(first, each) for first in (ours, with_ids) for each in ids]
    pairs += [(fused, ours), (fused, one_layer)]
    for llms in dict.fromkeys(each.llms for each in outcomes if len(each.llms) == 1):
        mine = [each for each in outcomes if each.llms == llms]
        sequential = best(each for each in mine if each.method in SEQUENTIAL)
        single = best(each for each in mine if METHODS[each.method].one_layer)
        pairs += [(sequential, each) for each in mine if each.method in ("mean", "iisan", ONE_LAYER_OF_STUDIED)]
        pairs.append((sequential, single))
        if fused is not None and set(llms) <= set(fused.llms):
            pairs.append((fused, single))
    return [(first, second) for first, second in pairs if first is not None and second is not None]


def _pairs_alike(study: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The studied method and each other form, and its best number of layers and one, of what has enough seeds."""
    ours = _whole_of(study)
    if not ours.finished:
        return []
    enough = [each for each in study if len(each.lines) >= LEAST_SEEDS]
    series = series_of(enough)
    pairs = [(ours, each) for each in enough if each not in series]
    one = next((each for each in series if each.layers == 1), None)
    deepest = best(each for each in series if each is not one)  # Below one, if one is best.
    return pairs if one is None or deepest is None else [(deepest, one), *pairs]


def _comparisons(chosen: Sequence[tuple[Outcome, Outcome]], same_options: Sequence[tuple[Outcome, Outcome]]) -> str:
    marked = [(*pair, "") for pair in chosen] + [(*pair, ", same options") for pair in same_options]
    # The same trainings are compared once, be they the best of all or of an LLM, or of the same options by choice.
    once = dict[tuple[tuple[int, ...], ...], tuple[Outcome, Outcome, str]]()
    for ours, theirs, mark in marked:
        once.setdefault(tuple(tuple(map(id, each.lines)) for each in (ours, theirs)), (ours, theirs, mark))
    rows = [(*pair, metric) for pair in once.values() for metric in METRICS]
    found = [compare(ours.users(metric), theirs.users(metric)) for ours, theirs, _, metric in rows]
    if not found:
        return ""
    corrected = holm([each.p_value for each in found])
    lines = [
        "| | against | seeds | metric | relative | 95 % interval: users | users and seeds | p (Holm) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (ours, theirs, mark, metric), each, p_value in zip(rows, found, corrected, strict=True):
        seeds = (len(ours.lines), len(theirs.lines))
        lines.append(
            f"| {ours.title} | {theirs.title}{mark} | {', '.join(map(str, seeds))} | {metric} | "
            f"{_share(each.difference)} | {_between(each.interval)} | "
            f"{_between(each.with_seeds) if min(seeds) > 1 else ''} | {_p_value(p_value, len(found))} |"
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
    lines += [f"| targets | difference | interval | {ours.title}: times chance, at least |", "|---|---|---|---|"]
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
