"""The tables of docs/efficiency.md, from the lines of benchmarks/results/efficiency.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lines import Lines

from ssna.terminal import counted

TITLES = {
    "ssna": "ssna, in-batch",
    "ssna-default": "ssna, sampled softmax (its default loss)",
    "ssna-streamed": "ssna, in-batch, states streamed",
    "ssna-extracted": "ssna, in-batch, states that were extracted",
    "uncached": "side network without a cache",
    "bitfit": "BitFit",
    "adapters": "Houlsby adapters",
    "lora": "LoRA",
    "full": "full fine-tuning",
}
VARIANTS = {"": "", "-checkpointing": ", gradient checkpointing", "-no-dropout": ", without the LLM's dropout"}
REFERENCE = "ssna"
STUDY_VALIDATED = "items"
"""What grows where a validation is measured too: it embeds and ranks all of them"""
_MACHINE = ("device", "threads")
_SETTING = ("dataset", "llm", *_MACHINE, "precision")
_TPME = {"epoch_seconds": 0.45, "trainable_parameters": 0.1, "memory": 0.45}


def title_of(row: str) -> str:
    """As people read it."""
    base, variant = _parts_of(row)
    return TITLES[base] + VARIANTS[variant]


def _parts_of(row: str) -> tuple[str, str]:
    """A row of `TITLES`, and its variant."""
    variant = next(each for each in reversed(VARIANTS) if row.endswith(each))
    return row.removesuffix(variant), variant


def tables(results: Lines) -> dict[str, str]:
    """Everything that was measured, as Markdown: of each setting, and of each study of what grows, by its name."""
    found = {}
    for setting in settings_of(results):
        of = (epochs_table, validations_table, costs_table, curves_table, estimates_table)
        parts = [one(results, setting) for one in of]
        found[name_of(setting)] = "\n\n".join(part for part in parts if part)
    for machine in machines_of(results):
        found |= checks_tables(results, machine)
        for study in dict.fromkeys(line["of"]["study"] for line in results.where(kind="growth", **machine)):
            found[f"by {study}, {_name_of_machine(machine)}"] = growth_table(results, study, machine)
    return found


def settings_of(results: Lines) -> list[dict[str, Any]]:
    """Every dataset, LLM, device, number of threads and precision that a training was measured in."""
    return _all_of(results, _SETTING, "epoch", "curve")


def machines_of(results: Lines) -> list[dict[str, Any]]:
    """Every device and number of threads that a growth or an estimate was measured with."""
    return _all_of(results, _MACHINE, "growth", "estimate check")


def _all_of(results: Lines, fields: Sequence[str], *kinds: str) -> list[dict[str, Any]]:
    seen = {tuple(line["of"][field] for field in fields) for kind in kinds for line in results.where(kind=kind)}
    return [dict(zip(fields, values, strict=True)) for values in sorted(seen, key=str)]


def name_of(setting: Mapping[str, Any]) -> str:
    """As the document marks its tables."""
    precision = "" if setting["precision"] == "auto" else f", {setting['precision']}"
    return f"{setting['dataset']}, {setting['llm']}, {_name_of_machine(setting)}{precision}"


def _name_of_machine(of: Mapping[str, Any]) -> str:
    return f"{of['device']}, {counted(of['threads'], 'thread')}"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def times(value: float) -> str:
    """A ratio with two or three digits that mean something."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def mebibytes(value: float) -> str:
    """Of bytes."""
    return f"{value / 2**20:,.0f}"


def epochs_table(results: Lines, setting: Mapping[str, Any]) -> str:
    """Seconds an epoch, memory and trainable parameters of each row, and how many times our own."""
    found = _epochs(results, setting)
    ours = found.get(REFERENCE)
    if ours is None:
        return ""
    rows, combined = [], tpme(list(found.values()))
    for (row, line), of_all in zip(found.items(), combined, strict=True):
        least, most = range_of(line)
        whole = min(line["steps"]) >= line["steps_an_epoch"]
        measured = "whole epochs" if whole else f"{sum(line['steps'])} steps of {line['steps_an_epoch']} an epoch"
        rows.append(
            [
                title_of(row),
                f"{line['epoch_seconds']:,.1f}",
                f"{least:,.1f} to {most:,.1f}",
                measured,
                times(line["epoch_seconds"] / ours["epoch_seconds"]),
                mebibytes(line["memory"]),
                times(line["memory"] / ours["memory"]),
                f"{line['trainable_parameters']:,}",
                f"{of_all:.3f}",
            ]
        )
    columns = ["", "s an epoch", "range", "measured", "× ssna", "memory MiB", "× ssna", "trainable parameters", "TPME"]
    return markdown(columns, rows)


def validations_table(results: Lines, setting: Mapping[str, Any]) -> str:
    """What each row's epochs take with their validation."""
    epochs = _epochs(results, setting)
    found = {line["of"]["row"]: line for line in results.where(kind="validation", **setting)}
    whole = {row: epochs[row]["epoch_seconds"] + found[row]["seconds"] for row in epochs if row in found}
    if REFERENCE not in whole:
        return ""
    rows = [
        [
            title_of(row),
            f"{found[row]['seconds']:,.1f}",
            f"{seconds:,.1f}",
            times(seconds / whole[REFERENCE]),
            mebibytes(max(found[row]["memory"], epochs[row]["memory"])),
        ]
        for row, seconds in whole.items()
    ]
    return markdown(["", "s a validation", "s an epoch with it", "× ssna", "memory MiB with it"], rows)


def _epochs(results: Lines, setting: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was measured of each row, in the order of their titles, whenever it was."""
    found = {line["of"]["row"]: line for line in results.where(kind="epoch", **setting)}
    return {row: found[row] for row in sorted(found, key=_place_of)}


def _place_of(row: str) -> tuple[int, int]:
    base, variant = _parts_of(row)
    return list(VARIANTS).index(variant), list(TITLES).index(base)


def range_of(line: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds an epoch by the fastest of the stretches measured, and by the slowest."""
    seconds = [each * line["steps_an_epoch"] for each in line["seconds_a_step"]]
    return min(seconds), max(seconds)


def tpme(lines: Sequence[Mapping[str, Any]]) -> list[float]:
    """IISAN's combined figure of each method (arXiv 2404.02059): less is better.

    TPME = .45 T + .1 P + .45 M, of time, trainable parameters and memory. The weights are the paper's. That each of the
    three goes from 0 at the least of the methods compared to 1 at the greatest is our reading: we know the formula from
    its description alone.
    """
    totals = [0.0] * len(lines)
    for measure, weight in _TPME.items():
        values = [line[measure] for line in lines]
        least, most = min(values), max(values)
        for place, value in enumerate(values):
            totals[place] += weight * (value - least) / ((most - least) or 1)
    return totals


def costs_table(results: Lines, setting: Mapping[str, Any]) -> str:
    """When the one extraction has paid for itself, and what comes after it."""
    read = results.last(kind="extraction", **setting)
    found = {row: line["epoch_seconds"] for row, line in _epochs(results, setting).items()}
    if read is None or REFERENCE not in found:
        return ""
    once, ours = read["seconds"], found[REFERENCE]
    rows = []
    for row, seconds in found.items():
        if not row.startswith("ssna") and seconds > ours:
            rows.append([title_of(row), f"{once / (seconds - ours):.2f}", times(once / seconds)])
    curve, total = _our_curve(results, setting), ""
    if curve is not None:
        to_best, to_end = (_seconds_of(curve, epochs) + once for epochs in (curve["best_epoch"], len(curve["curve"])))
        total = (
            f" To its best epoch ssna takes {to_best:,.0f} s, extraction included, and {to_end:,.0f} s until it is "
            "known to be the best."
        )
    again = results.last(kind="second extraction", **setting)
    second = (
        ""
        if again is None
        else f" A second dataset of the same texts: {again['seconds']:.2f} s to see that none is new; a smaller a: "
        f"{again['seconds_of_one_layer']:.2f} s."
    )
    about = (
        f"Extraction, once: {once:,.0f} s for {read['texts']:,} texts and {read['tokens']:,} tokens, "
        f"{mebibytes(read['bytes'])} MiB on disk, within {mebibytes(read['memory'])} MiB of memory.{total} "
        f"Another seed or option: no extraction.{second}"
    )
    columns = ["", "epochs after which extraction has paid for itself", "extraction / one epoch"]
    return f"{about}\n\n{markdown(columns, rows)}"


def _seconds_of(line: Mapping[str, Any], epochs: int) -> float:
    """Of training and validation, of a curve's first epochs."""
    return float(sum(train + valid for train, valid, *_ in line["curve"][:epochs]))


def curves_table(results: Lines, setting: Mapping[str, Any]) -> str:
    """Accuracy beside cost, and what each method has reached by the time that ours has converged."""
    read, ours = results.last(kind="extraction", **setting), _our_curve(results, setting)
    if read is None:  # Of our own rows no time can be told.
        return ""
    once, rows = read["seconds"], []
    then = None if ours is None else once + _seconds_of(ours, ours["best_epoch"])
    for line in results.where(kind="curve", **setting):
        before = once if line["of"]["row"].startswith("ssna") else 0.0
        by_then = "" if then is None else f"{_reached(line, before, then):.4f}"
        rows.append(
            [
                title_of_curve(line),
                f"{line['test']['recall@10']:.4f}",
                f"{line['test']['ndcg@10']:.4f}",
                f"{line['best_epoch']} of {len(line['curve'])}",
                f"{_seconds_of(line, line['best_epoch']) + before:,.0f}",
                by_then,
            ]
        )
    if not rows:
        return ""
    columns = ["", "Recall@10", "NDCG@10", "best epoch", "s to it, extraction included", "valid Recall@10 by then"]
    return markdown(columns, rows)


def _our_curve(results: Lines, setting: Mapping[str, Any]) -> dict[str, Any] | None:
    """Trained to its end as the product trains."""
    curves = results.where(kind="curve", row=REFERENCE, learning_rate=None, **setting)
    return next((line for line in curves if not _is_cut(line)), None)


def title_of_curve(line: Mapping[str, Any]) -> str:
    """The row, and what makes this curve another than the row's own."""
    rate, seconds = line["of"]["learning_rate"], _seconds_of(line, len(line["curve"]))
    changed = "" if rate is None else f", learning rate {rate:g}"
    return title_of(line["of"]["row"]) + changed + (f", stopped after {seconds:,.0f} s" if _is_cut(line) else "")


def _is_cut(line: Mapping[str, Any]) -> bool:
    return "time_limit" in line["of"]


def points_of(line: Mapping[str, Any], before: float) -> list[tuple[float, float]]:
    """Seconds, and the best validation Recall@10 so far, after each epoch."""
    points, seconds, best = list[tuple[float, float]](), before, 0.0
    for train, valid, recall, _ in line["curve"]:
        seconds, best = seconds + train + valid, max(best, recall)
        points.append((seconds, best))
    return points


def _reached(line: Mapping[str, Any], before: float, seconds: float) -> float:
    """The best validation Recall@10 up to a time."""
    return max((recall for at, recall in points_of(line, before) if at <= seconds), default=0.0)


def estimates_table(results: Lines, setting: Mapping[str, Any]) -> str:
    """What `ssna estimate` said beside what was measured."""
    told, done = (results.last(kind=kind, **setting) for kind in ("estimate", "extraction"))
    if told is None or done is None:
        return ""
    rows = [
        _estimate_row("extraction, s", told["extraction_seconds"], done["seconds"], "{:,.0f}".format),
        _estimate_row("cache, MiB", told["cache_bytes"], done["bytes"], mebibytes),
    ]
    for row, line in _epochs(results, setting).items():
        if row in told:
            rows.append(_estimate_row(f"{title_of(row)}: training, MiB", told[row], line["memory"], mebibytes))
    return markdown(["", "estimated", "measured", "ratio"], rows)


def checks_tables(results: Lines, machine: Mapping[str, Any]) -> dict[str, str]:
    """What `ssna estimate` says of made-up cases, beside what these took: of extractions, and of trainings."""
    found = {}
    for of, unit, shown in (("extraction", "s", "{:,.1f}".format), ("training", "MiB", mebibytes)):
        lines = results.where(kind="estimate check", of=of, **machine)
        rows = [_estimate_row(line["of"]["case"], line["estimated"], line["measured"], shown) for line in lines]
        if rows:
            name = f"{of}s estimated, {_name_of_machine(machine)}"
            found[name] = markdown(["", f"estimated, {unit}", f"measured, {unit}", "ratio"], rows)
    return found


def _estimate_row(name: str, estimated: float, measured: float, shown: Callable[[float], str]) -> list[str]:
    return [name, shown(estimated), shown(measured), f"{estimated / measured:.2f}"]


def growth_table(results: Lines, study: str, machine: Mapping[str, Any]) -> str:
    """Seconds an epoch and memory of each row, by what grows."""
    lines = results.where(kind="growth", study=study, **machine)
    rows = sorted({line["of"]["row"] for line in lines}, key=_place_of)
    values = list(dict.fromkeys(line["of"]["value"] for line in lines))
    found = {(line["of"]["row"], line["of"]["value"]): line for line in lines}
    shown = [[title_of(row), *(_growth_cell(found.get((row, value))) for value in values)] for row in rows]
    validations = results.where(kind="growth validation", study=study, **machine)
    whole = {line["of"]["value"]: f"{line['seconds']:,.2f} s" for line in validations}
    if whole:
        shown.append([f"{TITLES[REFERENCE]}: a validation", *(whole.get(value, "") for value in values)])
    parts = [markdown(["", *map(str, values)], shown)]
    checked = [row for row in rows if any("counted_flop" in line for line in lines if line["of"]["row"] == row)]
    if checked:
        body = [[title_of(row), *(_counted_cell(found.get((row, value))) for value in values)] for row in checked]
        parts.append(markdown(["GFLOP/s; memory measured / counted", *map(str, values)], body))
    return "\n\n".join(parts)


def _growth_cell(line: Mapping[str, Any] | None) -> str:
    return "" if line is None else f"{line['epoch_seconds']:,.2f} s, {mebibytes(line['memory'])} MiB"


def _counted_cell(line: Mapping[str, Any] | None) -> str:
    """If the counts on paper are right, the speed that follows from them is about the same for all sizes."""
    if line is None:
        return ""
    speed = line["counted_flop"] * line["steps_an_epoch"] / line["epoch_seconds"] / 1e9
    return f"{speed:,.0f}; {line['memory'] / line['counted_bytes']:.2f}"
