"""`ssna.adapt`: stage two for a dataset, from a cache of layer states."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import ssna
from ssna.devices import peak_memory_bytes, resolve_device
from ssna.errors import RunError
from ssna.folders import check_output
from ssna.inputs import Inputs, read_inputs, standardization_of
from ssna.runs import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    HISTORIES_FILE,
    ITEMS_FILE,
    METRICS_FILE,
    MODEL_FILE,
    RESULTS_FILE,
    append_epoch,
    clear_run,
    histories_frame,
    is_finished,
    is_run,
    read_json,
    recommender_tensors,
    trim_metrics,
    write_json,
    write_parquet,
)
from ssna.stage2_adapt import (
    AdaptOptions,
    Epoch,
    OptionError,
    Popularity,
    SequenceRecommender,
    Training,
    TrainingData,
    cases_of,
    count_popularity,
    evaluate,
    lowest_first,
    save_tensors,
)


def adapt(
    dataset: Path | str,
    output: Path | str,
    *,
    llm: str | None = None,
    cache: Path | str | None = None,
    options: AdaptOptions | None = None,
    cache_root: Path | str | None = None,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Mapping[str, Any]:
    """Train a recommender from cached layer states, and write its run folder. The LLM is never loaded.

    Args:
        dataset: a dataset folder.
        output: the run folder to write.
        llm: whose states to adapt: the name of a cache, or the path or hub id it was extracted from.
        cache: folder of one cache, instead of `llm`.
        options: the model, its training and its evaluation.
        cache_root: the folder of all caches; None means `$SSNA_CACHE`, else the user's cache folder.
        device: a PyTorch device, or `auto`.
        threads: of the CPU; None leaves PyTorch's choice. The same seed and thread count give the same metrics.
        overwrite: replace a run folder that is there.
        resume: go on with a run folder that is there; one that is finished is left as it is.
        on_epoch: called after each epoch.
        on_step: called with the steps done in an epoch and their number.

    Returns:
        What results.json holds: metrics of the test and validation part, counts, times and memory.

    Raises:
        SsnaError: of a kind that says what is wrong: with the dataset, the cache, the options or the output folder.
    """
    started = time.perf_counter()
    output, options = Path(output), options or AdaptOptions()
    if overwrite and resume:
        raise OptionError("--overwrite and --resume exclude each other. Give one of them.")
    if not resume:
        if is_run(output) and not is_finished(output) and not overwrite:
            raise RunError(f"{output} holds an unfinished run. Go on with --resume, or replace it with --overwrite.")
        check_output(output, overwrite, is_run, "run folder")
    where = resolve_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    inputs = read_inputs(Path(dataset), llm, cache, cache_root, options)
    config = _config(inputs, options, where)
    if resume and (output / CONFIG_FILE).exists():
        _check_same_run(output, read_json(output / CONFIG_FILE), config)
        if is_finished(output):
            return read_json(output / RESULTS_FILE)
    elif resume and output.is_dir() and any(output.iterdir()):
        raise RunError(f"{output} holds no run to resume. Give the folder of a run, or a new one.")
    # All that can be wrong with the inputs has been found by the time the folder is made.
    prepared = None if options.model == "popularity" else _prepare_training(inputs, options, where)
    inputs = replace(inputs, states=None)  # Training has its own copy, in its own order.
    output.mkdir(parents=True, exist_ok=True)
    if overwrite:
        clear_run(output)
    write_json(output / CONFIG_FILE, config)
    if prepared is None:
        return _finish_popularity(output, inputs, where, started)
    return _train(output, inputs, prepared, where, started, on_epoch, on_step)


def _config(inputs: Inputs, options: AdaptOptions, device: torch.device) -> dict[str, Any]:
    """What config.json says: everything that the run was made from."""
    cache = None
    if inputs.cache is not None and inputs.states is not None:
        manifest = inputs.cache.manifest
        cache = {
            "name": manifest.name,
            "fingerprint": manifest.fingerprint,
            "layers": list(inputs.states.layers),
            "rows_digest": inputs.states.digest,
            "path": str(inputs.cache.path.resolve()),
            "llm": manifest.llm["source"],
        }
    libraries = ("torch", "numpy", "polars", "h5py", "safetensors")
    return {
        "ssna": ssna.__version__,
        "options": asdict(options),
        "dataset": {
            "name": inputs.dataset.name,
            "fingerprint": inputs.dataset.fingerprint,
            "path": str(inputs.dataset.path.resolve()),
        },
        "cache": cache,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in libraries},
        },
    }


def _check_same_run(output: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run of other options or data, naming the difference."""
    for part, names in (
        ("options", list(now["options"])),
        ("dataset", ["fingerprint"]),
        ("cache", ["fingerprint", "layers", "rows_digest"]),
    ):
        for name in names:
            old, new = ((config.get(part) or {}).get(name) for config in (before, now))
            if old != new:
                raise RunError(
                    f"{output} cannot be resumed: its {part} had {name} = {old}, now it is {new}. Give what it was "
                    "started with, or another --output."
                )


@dataclass(frozen=True)
class _Prepared:
    """A training that has not begun, and the standardisation constants of the states it trains on."""

    training: Training
    constants: Mapping[str, torch.Tensor]


def _prepare_training(inputs: Inputs, options: AdaptOptions, device: torch.device) -> _Prepared:
    corpus, states, constants = inputs.corpus, None, dict[str, torch.Tensor]()
    if inputs.states is not None:
        states = lowest_first(torch.from_numpy(inputs.states.states))
        standardization = standardization_of(states, corpus)
        standardization.apply(states)
        constants = {"items.mean": standardization.mean, "items.deviation": standardization.deviation}
    data = TrainingData(corpus.sequences, corpus.split, len(corpus.items), corpus.num_trained, states)
    return _Prepared(Training(data, options, device), constants)


def _train(
    output: Path,
    inputs: Inputs,
    prepared: _Prepared,
    device: torch.device,
    started: float,
    on_epoch: Callable[[Epoch], None] | None,
    on_step: Callable[[int, int], None] | None,
) -> Mapping[str, Any]:
    training = prepared.training
    if (output / CHECKPOINT_FILE).exists():
        training.restore(output / CHECKPOINT_FILE)
    trim_metrics(output / METRICS_FILE, len(training.history.epochs))
    earlier = sum(epoch["seconds"] + epoch["valid_seconds"] for epoch in training.history.epochs)

    def record(epoch: Epoch) -> None:
        append_epoch(output / METRICS_FILE, epoch)
        if on_epoch is not None:
            on_epoch(epoch)

    training.run(output / CHECKPOINT_FILE, record, on_step or (lambda done, total: None))
    parameters = {f"items.{name}": value for name, value in training.side_parameters().items()}
    training_results = {
        "best_epoch": training.history.best_epoch,
        "epochs": len(training.history.epochs),
        "epoch_seconds": round(statistics.median(epoch["seconds"] for epoch in training.history.epochs), 4),
        "trainable_parameters": training.trainable_parameters,
    }
    return _finish(
        output,
        inputs,
        training.recommender(),
        {**prepared.constants, **parameters},
        training_results,
        device,
        started - earlier,
    )


def _finish_popularity(output: Path, inputs: Inputs, device: torch.device, started: float) -> Mapping[str, Any]:
    corpus = inputs.corpus
    model = count_popularity(corpus.sequences, corpus.split, len(corpus.items)).to(device)
    trim_metrics(output / METRICS_FILE, 0)
    nothing_trained = {"best_epoch": 0, "epochs": 0, "epoch_seconds": 0.0, "trainable_parameters": 0}
    return _finish(output, inputs, model, {}, nothing_trained, device, started)


def _finish(
    output: Path,
    inputs: Inputs,
    model: Popularity | SequenceRecommender,
    tensors: Mapping[str, torch.Tensor],
    training_results: Mapping[str, Any],
    device: torch.device,
    started: float,
) -> Mapping[str, Any]:
    """Evaluate the model and write the rest of the run folder; results.json comes last and marks the run finished."""
    corpus = inputs.corpus
    valid, test = (cases_of(corpus.sequences, corpus.split, part) for part in ("valid", "test"))
    metrics = {
        name: evaluate(model, corpus.sequences, cases, device) for name, cases in (("test", test), ("valid", valid))
    }
    save_tensors(output / MODEL_FILE, {**tensors, **recommender_tensors(model)}, {"ssna": ssna.__version__})
    write_parquet(output / ITEMS_FILE, corpus.items)
    write_parquet(output / HISTORIES_FILE, histories_frame(corpus.user_ids, corpus.sequences, corpus.split))
    results = {
        **metrics,
        "users": len(test),
        "users_not_evaluated": corpus.sequences.num_users - len(test),
        "candidates": len(corpus.items),
        **training_results,
        "total_seconds": round(time.perf_counter() - started, 3),
        "peak_memory_bytes": peak_memory_bytes(device),
        "history_filtered": False,
    }
    write_json(output / RESULTS_FILE, results)
    return results
