"""`ssna.extract`: stage one for the items of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ssna.cache import resolve_cache_root
from ssna.dataset import item_texts
from ssna.devices import resolve_device
from ssna.stage1_extract import Extraction, ExtractOptions, Plan, extract_texts, plan_texts


def extract(
    dataset: Path | str,
    llm: Path | str,
    *,
    name: str | None = None,
    text: str | None = None,
    options: ExtractOptions | None = None,
    cache_root: Path | str | None = None,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """Run the frozen LLM over the item texts that its cache lacks, and keep the top layers' pooled states.

    Interrupted at any moment, it goes on where it stood when called again. The processes that `torchrun` starts divide
    the texts among them.

    Args:
        dataset: a dataset folder; only its items.parquet is read.
        llm: folder of an LLM (config.json, safetensors weights, tokenizer), a GGUF file, or an id on the model hub.
        name: of the cache; None derives it from `llm`.
        text: template over the fields of items.parquet, such as '{description}', instead of the items' own text; where
            it gives nothing, their own is read.
        options: how to read, pool, compute and store.
        cache_root: the folder of all caches; None means `$SSNA_CACHE`, else the user's cache folder.
        device: a PyTorch device, or `auto`.
        on_progress: called with the texts done and the texts to do.

    Returns:
        What was cached before and computed now, and where.

    Raises:
        DatasetError: if the folder has no item texts.
        SourceError: if `text` does not fit the fields.
        LLMError: if the LLM cannot be used, or a cache of other settings has the name.
        CacheError: if the disk has no room for the states.
        NonFiniteStatesError: if the LLM gave inf or NaN for some texts; the others are cached.
    """
    progress = on_progress or (lambda done, total: None)
    texts, root, where = item_texts(Path(dataset), text), resolve_cache_root(cache_root), str(resolve_device(device))
    return extract_texts(texts, str(llm), root, name, options or ExtractOptions(), where, progress)


def plan_extraction(
    dataset: Path | str,
    llm: Path | str,
    *,
    name: str | None = None,
    text: str | None = None,
    options: ExtractOptions | None = None,
    cache_root: Path | str | None = None,
    device: str = "auto",
) -> Plan:
    """What `extract` would do with these arguments: texts, tokens, and bytes on disk. Nothing is computed or written.

    Raises:
        DatasetError: if the folder has no item texts.
        LLMError: if the LLM cannot be used, or a cache of other settings has the name.
    """
    texts, root, where = item_texts(Path(dataset), text), resolve_cache_root(cache_root), str(resolve_device(device))
    return plan_texts(texts, str(llm), root, name, options or ExtractOptions(), where)
