"""`ssna.adapt`: stage two for a dataset, from a cache of layer states."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ssna
from ssna.api.evaluate import evaluate_model
from ssna.api.resume import check_resumable
from ssna.devices import free_memory_bytes, peak_memory_bytes, reset_peak_memory, resolve_device
from ssna.errors import RunError
from ssna.extras import check_installed
from ssna.folders import check_output
from ssna.inputs import Inputs, Source, distinct_training_items, read_inputs
from ssna.runs import (
    ADDED_FILE,
    CHECKPOINT_FILE,
    CONFIG_FILE,
    HISTORIES_FILE,
    ITEMS_FILE,
    METRICS_FILE,
    MODEL_FILE,
    RESULTS_FILE,
    TENSORBOARD_FOLDER,
    append_epoch,
    clear_leftovers,
    clear_run,
    histories_frame,
    is_finished,
    is_run,
    options_as_json,
    read_config,
    read_json,
    tensors_of_model,
    write_json,
    write_metrics,
    write_parquet,
)
from ssna.stage2_adapt import (
    AdaptOptions,
    Epoch,
    ItemStates,
    OptionError,
    Popularity,
    Preparation,
    Processes,
    ResidentStates,
    SequenceRecommender,
    StreamedStates,
    Training,
    TrainingData,
    blocks_of,
    bytes_of_states,
    cases_of,
    count_popularity,
    dtype_of_products,
    fit_preparation,
    processes_of_torchrun,
    save_tensors,
)
from ssna.tensorboard import event_writer
from ssna.terminal import counted

_FITTED_ON = 2**15  # Texts: more would say nothing new, and of wide states the products of all take long.


def adapt(
    dataset: Path | str,
    output: Path | str,
    *,
    llm: str | Sequence[str] | None = None,
    cache: Path | str | Sequence[Path | str] | None = None,
    options: AdaptOptions | None = None,
    cache_root: Path | str | None = None,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    time_limit: float | None = None,
    memory_budget: int | None = None,
    tensorboard: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Mapping[str, Any]:
    """Train a recommender from cached layer states, and write its run folder. The LLM is never loaded.

    The processes that `torchrun` starts train together, as one process with the same options would; the first of them
    writes.

    Args:
        dataset: a dataset folder.
        output: the run folder to write.
        llm: whose states to adapt: the name of a cache, or the path or hub id it was extracted from. Several are fused.
        cache: folders of caches, instead of `llm` or beside it.
        options: the model, its training and its evaluation.
        cache_root: the folder of all caches; None means `$SSNA_CACHE`, else the user's cache folder.
        device: a PyTorch device, or `auto`.
        threads: of the CPU; None leaves PyTorch's choice. The same seed and thread count give the same metrics.
        overwrite: replace a run folder that is there.
        resume: go on with a run folder that is there; one that is finished is left as it is.
        time_limit: seconds of training after which no further epoch begins; the best one so far is taken.
        memory_budget: bytes that the layer states may take on the device; if they are more, they are read from the
            cache whenever they are needed, with the same results. None means half of what is free.
        tensorboard: write what metrics.jsonl has as events for TensorBoard too, in the run folder.
        on_epoch: called after each epoch.
        on_step: called with the steps done in an epoch and their number.
        on_note: called with a sentence about what is going on.

    Returns:
        What results.json holds: metrics of the test and validation part, counts, times and memory.

    Raises:
        SsnaError: of a kind that says what is wrong: with the dataset, the cache, the options or the output folder.
    """
    started = time.perf_counter()
    output, options = Path(output), options or AdaptOptions()
    if not isinstance(options, AdaptOptions):
        raise OptionError(f"options is a {type(options).__name__}; expected ssna.AdaptOptions(…).")
    if overwrite and resume:
        raise OptionError("--overwrite and --resume exclude each other. Give one of them.")
    if tensorboard:
        instead = "or leave the option out: metrics.jsonl has the same figures"
        check_installed("tensorboard", "tensorboard", "--tensorboard", instead)
    where = resolve_device(device)
    reset_peak_memory(where)
    if threads is not None:
        torch.set_num_threads(threads)
    with processes_of_torchrun(where) as processes:
        if not resume:
            processes.checked_by_first(lambda: _check_new(output, overwrite))
        inputs = read_inputs(Path(dataset), listed(llm), listed(cache), cache_root, options)
        config = _config(inputs, options, where)
        _check_same_in_every(processes, config)
        if resume:
            processes.checked_by_first(lambda: check_resumable(output, config))
            if on_note is not None and processes.leads:
                _note_on_resuming(output, config, on_note)
        if processes.first(resume and is_finished(output)):
            return read_json(output / RESULTS_FILE)
        # All that can be wrong with the inputs has been found by the time the folder is made.
        prepared = None
        if options.model != "popularity":
            prepared = _prepare_training(inputs, options, where, processes, memory_budget, on_note)
        inputs = replace(inputs, sources=[])  # Training has its own view of them.
        if processes.leads:
            output.mkdir(parents=True, exist_ok=True)
            if overwrite:
                if on_note is not None and (output / ADDED_FILE).exists():
                    on_note(
                        f"{output}: the items of `ssna add-items` go with the run that is replaced. Add them again."
                    )
                clear_run(output)
            clear_leftovers(output)
            if not (output / CONFIG_FILE).exists():  # A resumed run keeps what it was started with.
                write_json(output / CONFIG_FILE, config)
        if prepared is not None:
            reporters = _Reporters(on_epoch, on_step, tensorboard)
            started -= _train(output, prepared.training, processes, config, time_limit, reporters)
        results = _finish(output, inputs, prepared, where, started) if processes.leads else {}
        return processes.first(results)


def _check_new(output: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something that nobody asked to replace."""
    if is_run(output) and not is_finished(output) and not overwrite:
        raise RunError(f"{output} holds an unfinished run. Go on with --resume, or replace it with --overwrite.")
    check_output(output, overwrite, is_run, "run folder")


def _note_on_resuming(output: Path, config: Mapping[str, Any], on_note: Callable[[str], None]) -> None:
    """Say what somebody who resumes a run may not know."""
    if not (output / CONFIG_FILE).exists():
        on_note(f"{output} holds no run yet: one is started.")
    elif not is_finished(output):
        before, now = read_config(output)["threads"], config["threads"]
        if before != now:
            on_note(f"{output} was started with {before} threads, now there are {now}: sums will be rounded otherwise.")


def listed(given: Path | str | Sequence[Path | str] | None) -> list[Any]:
    """One, several or none as a list."""
    if given is None:
        return []
    return [given] if isinstance(given, (str, Path)) else list(given)


def _config(inputs: Inputs, options: AdaptOptions, device: torch.device) -> dict[str, Any]:
    """What config.json says: everything that the run was made from."""
    libraries = ("torch", "numpy", "polars", "h5py", "safetensors")
    return {
        "ssna": ssna.__version__,
        "options": options_as_json(options),
        "dataset": {
            "name": inputs.dataset.name,
            "fingerprint": inputs.dataset.fingerprint,
            "path": str(inputs.dataset.path.resolve()),
            "template": inputs.dataset.description.get("template"),
        },
        "caches": [_described(source) for source in inputs.sources],
        "device": str(device),
        "precision": str(dtype_of_products(options, device)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in libraries},
        },
    }


def _described(source: Source) -> dict[str, Any]:
    manifest = source.cache.manifest
    return {
        "name": manifest.name,
        "fingerprint": manifest.fingerprint,
        "layers": list(source.rows.layers),
        "rows_digest": source.rows.digest,
        "path": str(source.cache.path.resolve()),
        "llm": manifest.llm["source"],
        "text": source.template,
    }


def _check_same_in_every(processes: Processes, config: Mapping[str, Any]) -> None:
    """Refuse to train together on other data or options."""
    compared = {
        "options": config["options"],
        "dataset": config["dataset"]["fingerprint"],
        "rows of caches": [cache["rows_digest"] for cache in config["caches"]],
    }
    for rank, other in enumerate(processes.every(compared)):
        for name, value in compared.items():
            if other[name] != value:
                raise RunError(
                    f"process {rank} has other {name} than process {processes.rank}: {other[name]} instead of "
                    f"{value}. Give all processes the same dataset, caches and options."
                )


@dataclass(frozen=True)
class _Prepared:
    """A training that has not begun, and the constants by which its states were prepared."""

    training: Training
    constants: Mapping[str, torch.Tensor]


def _prepare_training(
    inputs: Inputs,
    options: AdaptOptions,
    device: torch.device,
    processes: Processes,
    memory_budget: int | None,
    on_note: Callable[[str], None] | None,
) -> _Prepared:
    corpus, selections = inputs.corpus, [source.rows for source in inputs.sources]
    if on_note is not None and not len(cases_of(corpus.sequences, corpus.split, "valid")):
        on_note(
            f"Nobody can be validated with --split {options.split} (no user has interactions both before and in the "
            f"period that validates): training lasts {counted(options.epochs, 'epoch')}, and the last one counts as "
            "the best."
        )
    preparations = processes.first(_fit_preparations(inputs, options) if processes.leads else [])
    budget = free_memory_bytes(device) // 2 if memory_budget is None else memory_budget
    dtype = dtype_of_products(options, device)
    states: ItemStates
    if (wanted := bytes_of_states(selections, preparations, dtype)) > budget:
        states = StreamedStates.within(budget, selections, preparations, device, dtype)
        if on_note is not None:
            on_note(
                f"the layer states take {wanted / 1e6:,.0f} MB, more than the memory budget of {budget / 1e6:,.0f} MB: "
                "they are streamed from the cache."
            )
    else:
        states = ResidentStates.read(selections, preparations, device, dtype)
    data = TrainingData(
        corpus.sequences,
        corpus.split,
        len(corpus.items),
        corpus.num_trained,
        states,
        [(len(rows.layers), preparation.width) for rows, preparation in zip(selections, preparations, strict=True)],
    )
    training = Training(data, options, device, processes)
    if on_note is not None and options.warmup >= options.epochs * training.steps:
        on_note(
            f"The warm-up of {options.warmup:,} steps is longer than the training ({options.epochs:,} epochs of "
            f"{training.steps:,}): the learning rate never reaches {options.learning_rate:g}."
        )
    return _Prepared(training, _constants(preparations))


def _fit_preparations(inputs: Inputs, options: AdaptOptions) -> list[Preparation]:
    """Of each LLM, on the distinct texts of the training items, or as many of them as say enough, evenly taken."""
    preparations = []
    components = options.for_each_llm("components", len(inputs.sources))
    for source, kept in zip(inputs.sources, components, strict=True):
        places = distinct_training_items(source.texts, inputs.corpus.num_trained)
        chosen = np.linspace(0, len(places) - 1, min(len(places), _FITTED_ON)).round().astype(np.int64)
        preparations.append(fit_preparation(blocks_of(source.rows, places[chosen]), options.preparation, kept))
    return preparations


def _constants(preparations: Sequence[Preparation]) -> dict[str, torch.Tensor]:
    """What prepared each LLM's states, by name as `encode_new_items` takes it."""
    constants = dict[str, torch.Tensor]()
    for number, preparation in enumerate(preparations):
        each = {name: value for name, value in vars(preparation).items() if value is not None}
        constants |= {f"sides.{number}.{name}": value for name, value in each.items()}
    return constants


@dataclass(frozen=True)
class _Reporters:
    """Who is told of a training, besides metrics.jsonl."""

    on_epoch: Callable[[Epoch], None] | None
    on_step: Callable[[int, int], None] | None
    tensorboard: bool


def _train(
    output: Path,
    training: Training,
    processes: Processes,
    config: Mapping[str, Any],
    time_limit: float | None,
    reporters: _Reporters,
) -> float:
    """Train to the end, from the checkpoint if there is one; returns the seconds that its epochs had taken before."""
    if processes.first((output / CHECKPOINT_FILE).exists()):
        training.restore(output / CHECKPOINT_FILE)
    earlier = training.history.seconds
    told = [reporters.on_epoch] if reporters.on_epoch is not None else []

    def record(epoch: Epoch) -> None:
        if processes.leads:
            append_epoch(output / METRICS_FILE, epoch)
            for tell in told:
                tell(epoch)

    with ExitStack() as stack:
        if processes.leads:
            write_metrics(output / METRICS_FILE, training.history.epochs)
            if reporters.tensorboard:
                events = event_writer(output / TENSORBOARD_FOLDER, len(training.history.epochs) + 1)
                told.append(stack.enter_context(events))
        on_step = reporters.on_step if processes.leads else None
        training.run(output / CHECKPOINT_FILE, record, on_step, time_limit, config)
    return earlier


def _finish(
    output: Path, inputs: Inputs, prepared: _Prepared | None, device: torch.device, started: float
) -> Mapping[str, Any]:
    """Evaluate the model and write the rest of the run folder; results.json comes last and marks the run finished."""
    model: Popularity | SequenceRecommender
    if prepared is None:
        corpus = inputs.corpus
        model, item_encoder = count_popularity(corpus.sequences, corpus.split, len(corpus.items)).to(device), {}
        training_results = {"best_epoch": 0, "epochs": 0, "epoch_seconds": 0.0, "trainable_parameters": 0}
        write_metrics(output / METRICS_FILE, [])
    else:
        training = prepared.training
        model = training.recommender()
        item_encoder = {**prepared.constants, **training.side_parameters()}
        training_results = {
            "best_epoch": training.history.best_epoch,
            "epochs": len(training.history.epochs),
            "epoch_seconds": round(statistics.median(epoch["seconds"] for epoch in training.history.epochs), 4),
            "trainable_parameters": training.trainable_parameters,
        }
    corpus = inputs.corpus
    _, metrics = evaluate_model(model, corpus.sequences, corpus.split, device)
    save_tensors(output / MODEL_FILE, tensors_of_model(model, item_encoder), {"ssna": ssna.__version__})
    write_parquet(output / ITEMS_FILE, corpus.items)
    write_parquet(output / HISTORIES_FILE, histories_frame(corpus.user_ids, corpus.sequences, corpus.split))
    results = {
        **metrics,
        "users_not_evaluated": corpus.sequences.num_users - metrics["users"],
        **training_results,
        "total_seconds": round(time.perf_counter() - started, 3),
        "peak_memory_bytes": peak_memory_bytes(device),
    }
    write_json(output / RESULTS_FILE, results)
    return results
