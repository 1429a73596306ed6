"""What a run of stage two is made from: a dataset's corpus, and its items' states out of a cache."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ssna.cache import Cache, Selection, find_cache, keys_of_texts, resolve_cache_root
from ssna.columns import ITEM, TEXT
from ssna.corpus import Corpus, load_corpus
from ssna.dataset import Dataset, open_dataset
from ssna.errors import DatasetError
from ssna.stage1_extract import EXTRACT_OPTIONS
from ssna.stage2_adapt import AdaptOptions, OptionError


@dataclass(frozen=True)
class Source:
    """An LLM's cache, and the rows of the corpus's items in it, in order of their index."""

    cache: Cache
    rows: Selection
    texts: pl.Series
    """Of the items, by which their rows were found"""
    template: str | None
    """Of the texts, if they are not the items' own"""


@dataclass(frozen=True)
class Inputs:
    """All that a run is made from, read and checked."""

    dataset: Dataset
    corpus: Corpus
    sources: Sequence[Source]
    """Of each LLM"""


def read_inputs(
    dataset: Path,
    llms: Sequence[str],
    caches: Sequence[Path | str],
    root: Path | str | None,
    options: AdaptOptions,
) -> Inputs:
    """Read and check everything before a run begins; nothing is written.

    Raises:
        SsnaError: of a kind that says what is wrong with the dataset, the cache or the options.
    """
    if not options.needs_states:
        if llms or caches:
            model = "--model popularity" if options.model == "popularity" else "--side none"
            raise OptionError(f"{model} reads no LLM states. Leave --llm and --cache out, or choose a side network.")
    elif not llms and not caches:
        raise OptionError(
            "a side network needs the states of an LLM: expected --llm or --cache, found neither. "
            "(--side none and --model popularity need no LLM.)"
        )
    options.check_for(len(llms) + len(caches))
    opened = open_dataset(dataset)
    if not options.needs_states:
        return Inputs(opened, load_corpus(opened, options), [])
    paths = [*(find_cache(resolve_cache_root(root), llm) for llm in llms), *map(Path, caches)]
    stores = [Cache.open(path) for path in paths]
    layers, templates = (options.for_each_llm(name, len(stores)) for name in ("layers", "text"))
    if len({(store.manifest.fingerprint, text) for store, text in zip(stores, templates, strict=True)}) < len(stores):
        raise OptionError(
            f"--llm and --cache name the same cache more than once ({', '.join(map(str, paths))}). Name each once, by "
            "either of them, or give each its own --text."
        )
    corpus = load_corpus(opened, options)
    sources = []
    for store, number, template in zip(stores, layers, templates, strict=True):
        texts = _texts_of(corpus, opened, template)
        sources.append(Source(store, _rows_of_items(store, corpus, texts, opened, number, template), texts, template))
    return Inputs(opened, corpus, sources)


def _texts_of(corpus: Corpus, dataset: Dataset, template: str | None) -> pl.Series:
    """The texts of the corpus's items, in their order."""
    if template is None:
        return corpus.items[TEXT]
    return corpus.items.select(ITEM).join(dataset.texts(template), on=ITEM, how="left", maintain_order="left")[TEXT]


def _rows_of_items(
    cache: Cache, corpus: Corpus, texts: pl.Series, dataset: Dataset, wanted: int | None, template: str | None
) -> Selection:
    keys = keys_of_texts(texts)
    command = _extract_command(cache, dataset, template)
    if wanted is not None and wanted > cache.max_layers > 0:
        blocks = cache.manifest.llm["blocks"]
        more = f", or extract more with `{command} --layers all` (the LLM has {blocks})"
        raise OptionError(
            f"--layers {wanted}: the cache {cache.path} has {cache.max_layers} layers. Give at most that many"
            f"{more if blocks > cache.max_layers else ', which is all that the LLM has'}."
        )
    layers = wanted or 1
    if not (present := cache.has(keys, layers)).all():
        missing = corpus.items[ITEM].filter(pl.Series(~present))
        depth = "" if wanted is None else f" with {wanted} layers"
        raise DatasetError(
            f"the cache {cache.path} lacks {len(missing)} of the {len(keys)} items of {dataset.path} "
            f"({', '.join(missing.head(5))}){depth}. Run `{command}` first."
        )
    return cache.select(keys, wanted or cache.common_layers(keys))


def _extract_command(cache: Cache, dataset: Dataset, template: str | None) -> str:
    """The command that brings the dataset's missing texts into this very cache."""
    manifest, root = cache.manifest, cache.path.parent
    command = ["ssna", "extract", str(dataset.path), "--llm", manifest.llm["source"], "--name", manifest.name]
    if template is not None:
        command += ["--text", template]
    if revision := manifest.llm.get("revision"):
        command += ["--revision", revision]
    settings = manifest.settings
    for option, setting in EXTRACT_OPTIONS:
        command += [f"--{option}", str(settings[setting])]
    if settings["prefix"] or settings["suffix"]:
        command += ["--template", f"{settings['prefix']}{{text}}{settings['suffix']}"]
    if settings["remote_code"]:
        command.append("--trust-remote-code")
    if root.resolve() != resolve_cache_root().resolve():
        command += ["--cache-root", str(root)]
    return shlex.join(command)


def distinct_training_items(texts: pl.Series, num_trained: int) -> npt.NDArray[np.int64]:
    """Places of the training items, the first T, without those whose text an earlier one has: such items count once."""
    return pl.select(pl.lit(texts.head(num_trained)).arg_unique()).to_series().sort().to_numpy().astype(np.int64)
