"""`ssna.estimate`: what stage one and stage two take, before one spends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssna.cache import row_bytes
from ssna.devices import named_device, resolve_device
from ssna.errors import SsnaError
from ssna.stage1_extract import (
    ExtractOptions,
    find_config,
    llm_size,
    loading_seconds,
    measured_seconds_a_token,
    resolve_batch_tokens,
    resolve_dtype,
    resolve_layers,
    resolve_max_tokens,
)
from ssna.stage2_adapt import AdaptOptions, SequenceRecommender
from ssna.stage2_adapt.item_encoder import CPU_BLOCK_ITEMS, GPU_BLOCK_ITEMS, RECOMPUTE_FROM_ITEMS, ItemEncoder
from ssna.stage2_adapt.losses import CHUNK_SCORES, CHUNK_SCORES_ELSEWHERE, FEWEST_ROWS
from ssna.stage2_adapt.states import items_within, prepared_width
from ssna.stage2_adapt.training import dtype_of_products, mixes_all_products

TOKENS = 20.0
_PROBED = 64  # Items whose intermediate values are weighed, against twice as many.
_COPIES_OF_PARAMETERS = 5  # Values, gradients, AdamW's two moments, and the best epoch's values.
_COPIES_OF_SCORES = 3
_WIDEST_GRADIENTS = 8  # Widths of a position's gradients in the backward pass: two of the feed-forward part's four.
# Batches differ in size, and what one has left the next one cannot always use; measured (docs/efficiency.md).
_ALLOCATED = 1.5
_DATASET_BYTES, _DATASET_BYTES_AN_ITEM = 8 * 2**20, 700  # Tables while they are read, and the index of the cache.
_READING_BYTES = 64 * 2**20  # Blocks of states while they are read and prepared, at most.
_COPIES_OF_CANDIDATES = 4  # Vectors and their factors, and the gradients of both.


class EstimateError(SsnaError):
    """What was asked about cannot be."""


@dataclass(frozen=True)
class Estimate:
    """What to expect; `ssna estimate --json` prints these fields."""

    llm: str
    parameters: int
    """Of the LLM without its head"""
    blocks: int
    layers: int
    """A, that are kept and adapted"""
    width: int
    """D"""
    items: int
    tokens: float
    """That the LLM reads in all"""
    device: str
    """Of this machine; if the speed was given, the kind of the one elsewhere"""
    compute_dtype: str
    """Of the extraction"""
    precision: str
    """Of training's matrix products, and of the states in its memory"""
    flop: float
    """Floating-point operations of the extraction"""
    extraction_seconds: float
    """Loading the LLM from the disk included"""
    extraction_measured: bool
    """Whether a part of the LLM was timed on the device, or the speed was given"""
    llm_bytes: int
    """That the LLM's weights take on the device while it is extracted from"""
    cache_bytes: int
    """On disk"""
    state_bytes: int
    """On the device in training: of all items or, if these are more than the memory budget, what is held of them"""
    model_bytes: int
    """On the device in training: parameters, their gradients and moments, and item vectors"""
    step_bytes: int
    """On the device in training: what a step holds besides, or reading the data"""
    training_bytes: int
    """The sum of the last three"""

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def estimate(
    llm: Path | str,
    items: int,
    *,
    tokens: float = TOKENS,
    history: int | None = None,
    layers: int | None = None,
    extract_options: ExtractOptions | None = None,
    adapt_options: AdaptOptions | None = None,
    memory_budget: int | None = None,
    device: str = "auto",
    tflops: float | None = None,
) -> Estimate:
    """Time and memory of extraction, size of the cache, and memory of training. Neither weights nor data are read.

    The extraction's time is that of loading the LLM, which is counted, and of reading: a block or two with random
    weights are timed on the device, which takes a few seconds. Memory of training is counted beyond that of a process
    with the libraries loaded.

    Args:
        llm: folder or GGUF file of an LLM, or its hub id, of which only the configuration is downloaded.
        items: N, with distinct texts.
        tokens: of a text on average, special tokens included.
        history: interactions of a user on average; None means as many as the sequence model reads.
        layers: A, the top layers to keep and to adapt; None means all.
        extract_options: dtype, stored dtype, cut and batch of the extraction.
        adapt_options: the model and its training.
        memory_budget: bytes that the layer states may take on the device; None counts them all.
        device: a PyTorch device, or `auto`. With `tflops` it need not be on this machine, and `auto` is a GPU that
            has bfloat16.
        tflops: the speed of a device elsewhere, in 10^12 floating-point operations a second that it really reaches on
            such an LLM; then nothing is timed.

    Raises:
        EstimateError: if there are no items, tokens or interactions to count.
        OptionError: if the memory budget is too small for the states of two items.
        LLMError: if there is no such LLM, or it has not that many layers.
        DeviceError: if the device is not there, or with `tflops` if there is no such kind.
    """
    for name, value in (("items", items), ("tokens", tokens), ("history", history)):
        if value is not None and value < 1:
            raise EstimateError(f"--{name} {value:g}: expected at least 1.")
    extracting, adapting = extract_options or ExtractOptions(), adapt_options or AdaptOptions()
    if tflops is None:
        where = resolve_device(device)
    else:
        where = named_device("cuda" if device == "auto" else device)
        if where.type == "cuda" and adapting.precision == "auto":  # PyTorch knows only the GPUs that are here.
            adapting = replace(adapting, precision="bfloat16")
    started = time.perf_counter()
    files = find_config(str(llm), extracting.revision)
    header_seconds = time.perf_counter() - started
    kept = resolve_layers(files, layers)
    dtype: Any = resolve_dtype(extracting.dtype, where.type)
    read = min(tokens, resolve_max_tokens(files, extracting.max_tokens))
    size = llm_size(files)
    flop = items * size.flop(read)
    if tflops is None:
        batch_tokens = resolve_batch_tokens(extracting.batch_tokens, where.type)
        seconds = items * read * measured_seconds_a_token(files, size, round(read), batch_tokens, dtype, where)
    else:
        seconds = flop / (tflops * 1e12)
    seconds += loading_seconds(files, size, dtype, header_seconds)
    adapting = replace(adapting, layers=kept) if adapting.needs_states else adapting
    width = prepared_width(files.state_width, adapting.preparation, adapting.for_each_llm("components", 1)[0])
    state, model, step = _training_bytes(adapting, items, kept, width, history, where)
    if memory_budget is not None and state > memory_budget:
        items_within(memory_budget, kept * files.state_width * torch.float32.itemsize)
        state = memory_budget
    return Estimate(
        llm=files.source,
        parameters=size.parameters,
        blocks=size.blocks,
        layers=kept,
        width=files.state_width,
        items=items,
        tokens=items * read,
        device=str(where),
        compute_dtype=dtype,
        precision=str(dtype_of_products(adapting, where)).removeprefix("torch."),
        flop=flop,
        extraction_seconds=round(seconds, 3),
        extraction_measured=tflops is None,
        llm_bytes=size.parameters * getattr(torch, dtype).itemsize,
        cache_bytes=items * row_bytes(kept, files.state_width, extracting.store),
        state_bytes=state,
        model_bytes=model,
        step_bytes=step,
        training_bytes=state + model + step,
    )


def _training_bytes(
    options: AdaptOptions, items: int, layers: int, state_width: int, history: int | None, device: torch.device
) -> tuple[int, int, int]:
    """Of the states, of the model, and of what a step holds besides."""
    dtype = dtype_of_products(options, device)
    state = items * layers * state_width * dtype.itemsize
    with torch.device("meta"):
        modules = nn.ModuleList(
            [ItemEncoder([(layers, state_width)], items, options), SequenceRecommender(items, options)]
        )
    parameters = sum(parameter.nbytes for parameter in modules.parameters())
    # Validation scores with the factors of all items, which are a copy for cosines.
    table = sum(buffer.nbytes for buffer in modules.buffers())
    copies = _COPIES_OF_PARAMETERS + (1 if options.averaging else 0)
    model = copies * parameters + 2 * table

    length = min(options.length, history or options.length)
    positions = options.batch_size * length
    drawn = options.negatives if options.loss in ("sampled", "gbce") else 0
    in_softmax = items if options.loss == "softmax" else min(items, positions + options.batch_size + drawn)
    # Of more items than this one block's intermediate values are held at a time.
    block = CPU_BLOCK_ITEMS if device.type == "cpu" else GPU_BLOCK_ITEMS
    encoded = in_softmax if in_softmax <= RECOMPUTE_FROM_ITEMS else block
    mixed = dtype != torch.float32 and mixes_all_products(device)
    with torch.autocast("cpu", dtype, enabled=mixed), torch.random.fork_rng(devices=[]):
        of_items = encoded * _held_for_an_item(options, layers, state_width, dtype)
        of_positions = positions * _held_for_a_position(options, length)
    chunk = max(CHUNK_SCORES.get(device.type, CHUNK_SCORES_ELSEWHERE), FEWEST_ROWS * in_softmax)
    scores = min(positions * in_softmax, chunk) * _COPIES_OF_SCORES
    vectors = in_softmax * options.width * _COPIES_OF_CANDIDATES
    gradients = positions * options.width * _WIDEST_GRADIENTS
    # The full softmax reads states where they are; of a sample's items they are copied.
    copied = 0 if options.loss == "softmax" else in_softmax * layers * state_width * dtype.itemsize
    step = of_items + of_positions + 4 * (scores + vectors + gradients) + copied
    reading = _DATASET_BYTES + items * _DATASET_BYTES_AN_ITEM + min(state, _READING_BYTES)
    return state, model, round(step * _ALLOCATED) + reading


def _held_for_an_item(options: AdaptOptions, layers: int, state_width: int, dtype: torch.dtype) -> float:
    """Bytes that the side network holds of an item for the backward pass, weighed in a small one."""
    encoder = ItemEncoder([(layers, state_width)], 2 * _PROBED, options)

    def held(items: int) -> int:
        states = torch.zeros(layers, items, state_width, dtype=dtype)
        return _held(encoder, lambda: encoder([states], torch.arange(1, items + 1)), states)

    return (held(2 * _PROBED) - held(_PROBED)) / _PROBED


def _held_for_a_position(options: AdaptOptions, length: int) -> float:
    """Likewise, what the sequence model holds of a position."""
    network = SequenceRecommender(1, options).network

    def held(sequences: int) -> int:
        vectors = torch.zeros(sequences, length, options.width, requires_grad=True)
        return _held(network, lambda: network(vectors, torch.full((sequences,), length)), vectors)

    return (held(4) - held(2)) / (2 * length)


def _held(module: nn.Module, work: Callable[[], Tensor], given: Tensor) -> int:
    """Bytes that the work keeps for its backward pass, without parameters and what it was given."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (given, *module.parameters())}
    kept: dict[int, tuple[Tensor, int]] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = tensor, storage.nbytes()  # The tensor too, lest its address be used again.
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = work()
    del output
    return sum(size for _, size in kept.values())
