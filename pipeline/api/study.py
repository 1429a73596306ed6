"""`ssna.study_layers`: accuracy as a function of the number of adapted layers, from one cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssna.api.adapt import adapt, listed
from ssna.api.resume import difference
from ssna.cache.files import TEMPORARY_PREFIX
from ssna.dataset import Dataset, open_dataset
from ssna.devices import leads, resolve_device
from ssna.errors import RunError, no_list
from ssna.folders import check_no_file
from ssna.inputs import read_inputs
from ssna.runs import (
    STUDY_FILE,
    check_fields,
    clear_leftovers,
    clear_run,
    is_finished,
    is_run,
    options_as_json,
    read_config,
    runs_of_study,
    write_json,
)
from ssna.stage2_adapt import AdaptOptions, OptionError, processes_of_torchrun
from ssna.terminal import counted

_OF_A_RUN = re.compile(r"layers-(\d+|all)")
_LINE = {
    "layers": (int, list),
    "results": {"valid": {}, "test": {}, "trainable_parameters": int, "epoch_seconds": (int, float)},
}
"""What is read of a line of study.json, besides the run"""


def study_layers(
    dataset: Path | str,
    output: Path | str,
    layers: Sequence[int | None],
    *,
    options: AdaptOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "auto",
    on_note: Callable[[str], None] | None = None,
    **others: Any,
) -> Mapping[str, Any]:
    """Train a run for each number of layers, all else alike: the paper's parameter study of a (arXiv 2310.01612).

    The runs are in `output/layers-N`, the table in `output/study.json`, which is written anew after each run.

    Args:
        dataset: a dataset folder.
        output: the study's folder.
        layers: the numbers of top layers, ascending or not; None is all that the cache holds.
        options: of all runs; its own `layers` is not used.
        overwrite: replace the study that is there.
        resume: go on with the study that is there; runs that are finished stay as they are, and in its table, whether
            `layers` names them or not.
        device: a PyTorch device, or `auto`.
        on_note: called with a sentence about what is going on.
        others: see `adapt`.

    Returns:
        What study.json holds: of each run, its number of layers, its folder's name, and its results.json.

    Raises:
        SsnaError: see `adapt`; if a number of layers is more than the cache holds, before anything is trained.
    """
    output, options = Path(output), options or AdaptOptions()
    if what := no_list(layers):
        raise OptionError(f"layers is {what}; expected a list of whole numbers, such as [1, 2].")
    chosen = [replace(options, layers=number) for number in layers]  # Each is checked before anything is trained.
    layers = [None if number is None else int(number) for number in layers]
    names = [f"layers-{number or 'all'}" for number in layers]
    if len(set(names)) < len(names):
        raise OptionError("--layers names the same number twice. Give each once.")
    check_no_file(output)
    there = [path.name for path in output.iterdir()] if output.is_dir() else []
    # A study that was killed while it wrote its table has left that file's temporary one.
    there = [name for name in there if not name.startswith(TEMPORARY_PREFIX)]
    if foreign := [name for name in there if name != STUDY_FILE and not _OF_A_RUN.fullmatch(name)]:
        raise RunError(f"{output} holds {foreign[0]}, which is no part of a study of layers. Give another --output.")
    if there and not (overwrite or resume):
        raise RunError(f"{output} holds a study already. Go on with --resume, or replace it with --overwrite.")
    table = _finished_before(output, open_dataset(Path(dataset)), options) if resume else {}
    deepest = replace(options, layers=max((number for number in layers if number is not None), default=None))
    llms, caches = listed(others.get("llm")), listed(others.get("cache"))
    read_inputs(Path(dataset), llms, caches, others.get("cache_root"), deepest)  # Whether there are so many layers.
    # The one that takes most memory first.
    order = sorted(zip(layers, names, chosen, strict=True), key=lambda run: -(run[0] or 10**9))
    with processes_of_torchrun(resolve_device(device)):
        for number, name, its_options in order:
            folder = output / name
            if on_note is not None and not (resume and is_finished(folder)):
                on_note(f"{folder}: {'all layers' if number is None else counted(number, 'layer')}")
            results = adapt(
                dataset,
                folder,
                options=its_options,
                overwrite=overwrite,
                resume=resume,
                on_note=on_note,
                device=device,
                **others,
            )
            if overwrite and not table and leads():  # Nothing goes before the inputs were found good.
                _clear_runs(output, names)
            table[name] = {"layers": _number_of_layers(folder, number), "run": name, "results": results}
            done = {"runs": sorted(table.values(), key=lambda run: np.sum(run["layers"]))}
            if leads():
                write_json(output / STUDY_FILE, done)
    return done


def _clear_runs(output: Path, kept: Sequence[str]) -> None:
    """Remove the runs of an earlier study with other numbers of layers."""
    clear_leftovers(output)
    for folder in output.glob("layers-*"):
        if folder.name not in kept and is_run(folder):
            clear_run(folder)
            if not any(folder.iterdir()):
                folder.rmdir()


def _finished_before(output: Path, dataset: Dataset, options: AdaptOptions) -> dict[str, Any]:
    """Of a study that goes on, perhaps with further numbers of layers, the lines of its table by run.

    Raises:
        RunError: if they are damaged, or of other options or another dataset: such a table would not compare like with
            like.
    """
    lines = {name: line for name, line in runs_of_study(output).items() if is_finished(output / name)}
    for name, line in lines.items():
        check_fields(output / STUDY_FILE, line, _LINE, name)
        before = read_config(output / name)
        asked = {
            **before,
            "options": {**options_as_json(options), "layers": before["options"].get("layers")},
            "dataset": {"fingerprint": dataset.fingerprint, "path": str(dataset.path.resolve())},
        }
        if found := difference(before, asked):
            raise RunError(
                f"the study {output} cannot be resumed {found}. Give what it was started with, or another --output."
            )
    return lines


def _number_of_layers(run: Path, wanted: int | None) -> int | list[int]:
    """Of a run, the layers that it adapted: of each LLM, if they differ."""
    if wanted is not None:
        return wanted
    each = [len(cache["layers"]) for cache in read_config(run)["caches"]]
    return each[0] if len(set(each)) == 1 else each
