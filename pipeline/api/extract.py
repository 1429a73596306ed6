"""`ssna.extract`: stage one for the items of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import polars as pl

from ssna.cache import StoredDtype, resolve_cache_root
from ssna.columns import ITEM, TEXT
from ssna.dataset import read_items
from ssna.devices import resolve_device
from ssna.errors import DatasetError
from ssna.stage1_extract import Extraction, ExtractOptions, extract_texts


def extract(
    dataset: Path | str,
    llm: Path | str,
    *,
    layers: int | None = None,
    name: str | None = None,
    max_tokens: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    store: StoredDtype = "float16",
    batch_tokens: int | None = None,
    device: str = "auto",
    cache_root: Path | str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """Run the frozen LLM over the item texts that its cache lacks, and keep the top layers' pooled states.

    Interrupted at any moment, it goes on where it stood when called again.

    Args:
        dataset: a dataset folder; only its items.parquet is read.
        llm: folder of an encoder LLM (config.json, safetensors weights, tokenizer), or its id on the model hub.
        layers: the top layers to keep; None keeps all blocks, without the embedding layer.
        name: of the cache; None derives it from `llm`.
        max_tokens: longer texts are cut; None means 512, or what the LLM can read if that is less.
        dtype: of the computation; `auto` is float32 on a CPU and bfloat16 on a GPU.
        store: dtype of the cached states.
        batch_tokens: tokens that the LLM reads at once; None means 2,048 on a CPU and 16,384 on a GPU.
        device: a PyTorch device, or `auto`.
        cache_root: the folder of all caches; None means `$SSNA_CACHE`, else the user's cache folder.
        on_progress: called with the texts done and the texts to do.

    Returns:
        What was cached before and computed now, and where.

    Raises:
        DatasetError: if the folder has no item texts.
        LLMError: if the LLM cannot be used.
        NonFiniteStatesError: if the LLM gave inf or NaN for some texts; the others are cached.
    """
    items = read_items(Path(dataset)).filter(pl.col(TEXT) != "").unique(TEXT, keep="first", maintain_order=True)
    if not len(items):
        raise DatasetError(f"{dataset} has no item with a text; there is nothing to extract.")
    where = resolve_device(device)
    options = ExtractOptions(
        layers=layers,
        max_tokens=max_tokens,
        dtype=dtype,
        store=store,
        batch_tokens=batch_tokens or (2048 if where.type == "cpu" else 16_384),
        device=str(where),
    )
    root = resolve_cache_root(cache_root)
    progress = on_progress or (lambda done, total: None)
    return extract_texts(items[TEXT].to_list(), items[ITEM].to_list(), str(llm), root, name, options, progress)
