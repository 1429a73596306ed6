"""Stage one: run the frozen LLM once over every text that the cache lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssna.cache import (
    Cache,
    Keys,
    SegmentWriter,
    SsnaError,
    StoredDtype,
    clean_name,
    default_name,
    fingerprint_of,
    keys_of_texts,
    manifests_below,
)
from ssna.stage1_extract.batching import batches_by_length
from ssna.stage1_extract.llm_files import CONFIG, LLMError, LLMFiles, find_llm, hash_files

_HASH_MEMORY = "file-hashes.json"
# Texts tokenised and sorted by length together: enough that batches hold texts of equal length, few enough that
# their tokens take some ten megabytes.
_WINDOW = 32_768

Progress = Callable[[int, int], None]
"""Called with the number of texts done and the number to do."""


class NonFiniteStatesError(SsnaError):
    """The LLM gave inf or NaN for some texts; the rows of all others are committed."""


@dataclass(frozen=True)
class ExtractOptions:
    """How states are computed and stored; a field marked F changes them and so is part of the fingerprint."""

    layers: int | None
    """The top layers to keep; None keeps all blocks"""
    max_tokens: int | None
    """F: longer texts are cut to this many tokens; None means 512 or, if that is less, what the LLM can read"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    """F: of the computation; auto is float32 on a CPU and bfloat16 on a GPU"""
    store: StoredDtype
    """F: of the states in the cache"""
    batch_tokens: int
    """Tokens the LLM reads at once, padding included"""
    device: str
    """A PyTorch device"""


@dataclass(frozen=True)
class Extraction:
    """What an extraction did; `ssna extract --json` prints these fields."""

    cache: str
    """Folder of the cache"""
    name: str
    fingerprint: str
    layers: list[int]
    """Block numbers, top first"""
    texts: int
    """Distinct texts asked for"""
    cached: int
    """Of these, already in the cache before"""
    extracted: int
    """Computed now"""
    tokens: int
    """Tokens the LLM read now, padding not counted"""
    truncated: int
    """Texts computed now that were cut"""
    seconds: float
    bytes: int
    """Size of the cache's segments on disk"""

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def extract_texts(
    texts: Sequence[str],
    item_ids: Sequence[str],
    llm: str,
    root: Path,
    name: str | None,
    options: ExtractOptions,
    progress: Progress,
) -> Extraction:
    """Bring the pooled states of these distinct, non-empty texts into the LLM's cache below `root`.

    Args:
        texts: distinct texts.
        item_ids: an item of each text, for error messages.
        llm: folder or hub id of the LLM.
        root: the folder of all caches.
        name: of the cache; None derives it from `llm`.
        options: how to compute and store.
        progress: told how far the extraction is.

    Raises:
        LLMError: if the LLM cannot be used, or has not that many layers.
        NonFiniteStatesError: if states of some texts are not finite; all others are committed.
    """
    started = time.monotonic()
    files = find_llm(llm)
    layers = _resolve_layers(files, options.layers)
    root.mkdir(parents=True, exist_ok=True)
    settings = _settings(files, options, root)
    cache = _find_cache(root, name, settings)
    keys = keys_of_texts(texts)
    missing = list(range(len(texts))) if cache is None else np.flatnonzero(~cache.has(keys, layers)).tolist()
    done = _Done()
    if cache is None or missing:
        run = _Run(files, layers, options, settings)
        # Only an LLM that could be loaded gets a cache.
        cache = cache or _create_cache(files, root, name, settings)
        done = run.extract(cache, [texts[i] for i in missing], keys[missing], [item_ids[i] for i in missing], progress)
        cache.refresh()
    return Extraction(
        cache=str(cache.path),
        name=cache.manifest.name,
        fingerprint=cache.manifest.fingerprint,
        layers=_block_numbers(files, layers),
        texts=len(texts),
        cached=len(texts) - len(missing),
        extracted=len(missing),
        tokens=done.tokens,
        truncated=done.truncated,
        seconds=round(time.monotonic() - started, 3),
        bytes=cache.size_on_disk(),
    )


@dataclass
class _Done:
    texts: int = 0
    tokens: int = 0
    truncated: int = 0


class _Run:
    """One extraction of the texts that are missing."""

    def __init__(self, files: LLMFiles, layers: int, options: ExtractOptions, settings: dict[str, Any]) -> None:
        import torch

        from ssna.stage1_extract.frozen_llm import FrozenLLM

        self._llm = FrozenLLM(files, torch.device(options.device), settings["compute_dtype"])
        self._files, self._layers, self._options = files, layers, options
        self._max_tokens: int = settings["max_tokens"]

    def extract(self, cache: Cache, texts: list[str], keys: Keys, item_ids: list[str], progress: Progress) -> _Done:
        done, bad = _Done(), list[str]()
        blocks = _block_numbers(self._files, self._layers)
        with SegmentWriter(cache, blocks, self._options.store, self._files.source) as writer:
            for start in range(0, len(texts), _WINDOW):
                window = slice(start, start + _WINDOW)
                ids, truncated = self._llm.tokenize(texts[window], self._max_tokens)
                lengths = np.array([len(tokens) for tokens in ids], np.uint32)
                for batch in batches_by_length(lengths.tolist(), self._options.batch_tokens):
                    states = self._llm.pooled_states([ids[i] for i in batch], self._layers)
                    taken = writer.add(keys[start + batch], states, lengths[batch], truncated[batch])
                    bad += [item_ids[start + i] for i in batch[~taken]]
                    done.texts += len(batch)
                    progress(done.texts, len(texts))
                done.tokens += int(lengths.sum())
                done.truncated += int(truncated.sum())
        if bad:
            raise NonFiniteStatesError(
                f"the LLM gave inf or NaN for {len(bad)} of {len(texts)} texts (items {', '.join(bad[:5])}); the "
                "others are in the cache. Try --dtype float32, or drop these items from the dataset."
            )
        return done


def _resolve_layers(files: LLMFiles, wanted: int | None) -> int:
    if wanted is None:
        return files.num_blocks
    if not 1 <= wanted <= files.num_blocks:
        raise LLMError(
            f"--layers {wanted}: {files.folder} has {files.num_blocks} layers. Give 1 to {files.num_blocks}, or all."
        )
    return wanted


def _block_numbers(files: LLMFiles, layers: int) -> list[int]:
    return list(range(files.num_blocks, files.num_blocks - layers, -1))


def _settings(files: LLMFiles, options: ExtractOptions, root: Path) -> dict[str, Any]:
    """Everything that changes a state: what the fingerprint is the hash of (docs/cache-format.md)."""
    memory = root / _HASH_MEMORY
    return {
        "weights": hash_files(files.weights, memory),
        "tokenizer": hash_files(files.tokenizer, memory),
        "config": hash_files([files.folder / CONFIG], memory),
        "pooling": "mean",
        "compute_dtype": _resolve_dtype(options),
        "max_tokens": _resolve_max_tokens(files, options.max_tokens),
        "prefix": "",
        "stored_dtype": options.store,
        "remote_code": None,
    }


def _resolve_dtype(options: ExtractOptions) -> str:
    if options.dtype != "auto":
        return options.dtype
    return "bfloat16" if options.device.startswith("cuda") else "float32"


def _resolve_max_tokens(files: LLMFiles, wanted: int | None) -> int:
    limit = files.token_limit
    if wanted is None:
        return 512 if limit is None else min(512, limit)
    if wanted < 3 or (limit is not None and wanted > limit):
        bound = "any number" if limit is None else f"{limit}"
        raise LLMError(f"--max-tokens {wanted}: {files.folder} reads 3 to {bound} of tokens. Give a number in between.")
    return wanted


def _find_cache(root: Path, name: str | None, settings: dict[str, Any]) -> Cache | None:
    """The cache of these settings; one of another name is used on, since its states are the same."""
    fingerprint = fingerprint_of(settings)
    for path, manifest in manifests_below(root):
        if manifest.fingerprint != fingerprint:
            continue
        if name is None or clean_name(name) == manifest.name:
            return Cache.open(path)
        raise LLMError(
            f"--name {name}: the states of this LLM with these settings are in {path}, under the name "
            f"'{manifest.name}'. Leave --name out, or give that one."
        )
    return None


def _create_cache(files: LLMFiles, root: Path, name: str | None, settings: dict[str, Any]) -> Cache:
    about = {
        "source": files.source,
        "architecture": files.architecture,
        "blocks": files.num_blocks,
        "state_width": files.state_width,
        "top_layer": "output of the last block, as transformers gives it in hidden_states[-1]",
    }
    return Cache.create(root, clean_name(name) if name else default_name(files.source), settings, about)
