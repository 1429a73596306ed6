"""`ssna.add_items`: items that came after training, which can be recommended at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from ssna.cache import Cache, Selection, keys_of_texts, lock, manifests_below, resolve_cache_root
from ssna.columns import ITEM, TEXT, TITLE
from ssna.dataset import is_dataset, open_dataset, read_items, text_of_items
from ssna.devices import resolve_device
from ssna.errors import DatasetError, RunError, SourceError
from ssna.rendering import render_items, with_titles
from ssna.runs import (
    ADDED_FILE,
    RESULTS_FILE,
    VECTOR,
    is_finished,
    item_parameters,
    open_run,
    read_added,
    read_config,
    write_parquet,
)
from ssna.sources import read_items_table, workbench
from ssna.stage1_extract import ExtractOptions, cache_fingerprint, extract_texts
from ssna.stage2_adapt import encode_new_items


@dataclass(frozen=True)
class AddedItems:
    """What became of the items that were to be added."""

    added: int
    """Items that the run had not"""
    replaced: int
    """That had been added before, and have their new text now"""
    known: int
    """That the run was made with; they stay as they are"""
    without_text: int
    """That were passed over"""
    extracted: int
    """Texts that the LLMs read now"""
    candidates: int
    """Items that can be recommended now"""
    notes: tuple[str, ...] = ()
    """Sentences on items that are without text or described twice"""

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def add_items(
    run: Path | str,
    items: Path | str,
    *,
    text: str | None = None,
    item_column: str | None = None,
    encoding: str | None = None,
    llm: str | Sequence[str] | None = None,
    revision: str | Sequence[str] | None = None,
    trust_remote_code: bool = False,
    batch_tokens: int | None = None,
    device_map: str | None = None,
    cache_root: Path | str | None = None,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> AddedItems:
    """Let items be recommended that a run was not trained with. Nothing is trained; metrics stay those without them.

    The run's LLMs read the texts that their caches lack, and its side networks turn the states into item vectors, as
    of items without training interactions.

    Args:
        run: the folder of a finished run with a side network.
        items: a table of items (CSV, TSV, Parquet or JSON Lines, the text ones also gzipped), or a dataset folder.
        text: template of the item texts; None takes that of the dataset that the run was made from.
        item_column: of the item ids in the table; None means `item_id`.
        encoding: of a text file; None means UTF-8.
        llm: where the LLM is now, if it is not where it was extracted from; of several one for each.
        revision: branch, tag or commit of an LLM that is a hub id, likewise; None means the one that its cache was
            extracted from, as far as the cache knows it.
        trust_remote_code: whether Python code that comes with the LLM may be run, if it was for the cache.
        batch_tokens: see `ExtractOptions`.
        device_map: likewise.
        cache_root: the folder of all caches; None means where the run's caches were, else the usual one.
        device: a PyTorch device, or `auto`.
        on_progress: called with the texts done and the texts to do, of each LLM.

    Raises:
        RunError: if the folder is no finished run with a side network, or a cache of it is gone.
        SourceError: if the items cannot be read as asked.
        LLMError: if an LLM cannot be used.
    """
    run = Path(run)
    opened = open_run(run, torch.device("cpu"))
    config = read_config(run)
    if not config["caches"]:
        raise RunError(f"{run} reads no item texts (it has no side network). Give a run with one (`ssna adapt --llm`).")
    readers = _readers_of(config, cache_root, llm, revision, batch_tokens, device_map)
    where = str(resolve_device(device))
    for reader in readers if llm is not None or revision is not None else ():
        reader.check(where)  # Also if there turns out to be nothing to read.
    every, titles, notes = _read(Path(items), text, config["dataset"]["template"], item_column, encoding)
    known = every[ITEM].is_in(opened.items[ITEM].implode())
    wanted = ~known & (every[TEXT] != "")
    with_text, before = every.filter(wanted), read_added(run, opened.options.width)
    finished = (run / RESULTS_FILE).stat().st_mtime_ns
    without_text = every.filter(~known & (every[TEXT] == ""))[ITEM]
    if len(without_text):
        notes = (*notes, f"The first item without text is {without_text[0]}.")
    result = {"known": int(known.sum()), "without_text": len(without_text)}
    if not len(with_text):
        return AddedItems(0, 0, **result, extracted=0, candidates=len(opened.items) + len(before), notes=notes)
    selections, extracted = [], 0
    for reader, described in zip(readers, config["caches"], strict=True):
        own = described.get("text")
        texts = with_text.select(text_of_items(own, with_text.schema, Path(items), "the run's --text"))[TEXT]
        if reader.lacks(texts):
            if reader.options.trust_remote_code and not trust_remote_code:
                raise RunError(
                    f"{reader.source} comes with Python code of its own, which {reader.cache.path} was extracted with. "
                    "Read that code, and give --trust-remote-code if it may be run."
                )
            reader.check(where)
            extracted += reader.extract(texts, with_text[ITEM], where, on_progress)
        selections.append(reader.select(texts))
    vectors = encode_new_items(item_parameters(run), opened.options, selections)
    new = pl.DataFrame(
        {
            ITEM: with_text[ITEM],
            TITLE: titles.filter(wanted),
            TEXT: with_text[TEXT],
            VECTOR: pl.Series(vectors.numpy()).cast(pl.List(pl.Float32)),
        }
    )
    replaced, total = _write(run, new, opened.options.width, finished)
    candidates = len(opened.items) + total
    return AddedItems(len(new) - replaced, replaced, **result, extracted=extracted, candidates=candidates, notes=notes)


def _write(run: Path, new: pl.DataFrame, width: int, finished: int) -> tuple[int, int]:
    """Put new items beside those that were added before; how many of these they replace, and how many there are now.

    Only this is locked: what takes long, the reading of the texts, two commands may do at once.
    """
    again = f"{run} was trained again while the texts were read. Add the items again."
    try:
        results = (run / RESULTS_FILE).open("r+b")
    except FileNotFoundError as error:
        raise RunError(again) from error
    with results:
        lock(results, wait=True)
        if not is_finished(run) or (run / RESULTS_FILE).stat().st_mtime_ns != finished:
            raise RunError(again)
        before = read_added(run, width)
        kept = before.filter(~pl.col(ITEM).is_in(new[ITEM].implode()))
        write_parquet(run / ADDED_FILE, pl.concat([kept, new]))
    return len(before) - len(kept), len(kept) + len(new)


def _read(
    path: Path, text: str | None, template: str | None, item_column: str | None, encoding: str | None
) -> tuple[pl.DataFrame, pl.Series, tuple[str, ...]]:
    """Items of a table or dataset folder with their texts and other fields, their titles, and notes on them."""
    notes: tuple[str, ...] = ()
    if path.is_dir():
        if not is_dataset(path):
            raise DatasetError(f"{path} is no dataset folder. Give one made by `ssna prepare`, or a table of items.")
        if text is not None or item_column is not None or encoding is not None:
            raise SourceError(
                f"{path} is a dataset folder, whose items have ids and texts. Leave --text, --item-column and "
                "--encoding out, or give a table."
            )
        items, title_field = read_items(path), open_dataset(path).description.get("title_field")
    else:
        with workbench() as bench:
            try:
                table = read_items_table(path, item_column, encoding, bench)
                what = f"--text '{text}'" if text else f"the template '{template}' of the run's dataset"
                hint = "" if text else " (--text gives another)"
                items, about = render_items(table, text or template, str(path), f"{what}{hint}", item_column or ITEM)
            except pl.exceptions.PolarsError as error:
                raise SourceError(f"{path} cannot be read as a table: {bench.what_is_wrong(error)}.") from error
        title_field, notes = about["title_field"], tuple(about["notes"])
    return items, with_titles(items, title_field)[TITLE], notes


@dataclass(frozen=True)
class _Reader:
    """The LLM of one of the run's caches."""

    cache: Cache
    source: str
    options: ExtractOptions
    """Those that the cache was extracted with"""

    def check(self, device: str) -> None:
        """Refuse another LLM than that of the cache; its files are hashed, and nothing is loaded."""
        found = cache_fingerprint(self.source, self.cache.path.parent, self.options, device)
        if found != self.cache.manifest.fingerprint:
            of_hub = "" if Path(self.source).expanduser().exists() else " and its --revision"
            raise RunError(
                f"{self.source} is not the LLM that {self.cache.path} was extracted from: its files differ. Give that "
                f"one with --llm{of_hub}."
            )

    def lacks(self, texts: pl.Series) -> bool:
        """Whether there is anything to read; if not, the LLM need not be there."""
        return not self.cache.has(keys_of_texts(texts), self.options.layers or 0).all()

    def extract(
        self, texts: pl.Series, item_ids: pl.Series, device: str, on_progress: Callable[[int, int], None] | None
    ) -> int:
        """Bring the texts' states into this very cache; returns how many were computed."""

        def blocks() -> Iterator[tuple[Sequence[str], Sequence[str]]]:
            yield texts.to_list(), item_ids.to_list()

        progress = on_progress or (lambda done, total: None)
        root = self.cache.path.parent
        return extract_texts(blocks, self.source, root, None, self.options, device, progress).extracted

    def select(self, texts: pl.Series) -> Selection:
        """The texts' rows, all of which are there by now."""
        return Cache.open(self.cache.path).select(keys_of_texts(texts), self.options.layers or 0)


def _readers_of(
    run: Mapping[str, Any],
    root: Path | str | None,
    llm: str | Sequence[str] | None,
    revision: str | Sequence[str] | None,
    batch_tokens: int | None,
    device_map: str | None,
) -> list[_Reader]:
    """Each of the run's LLMs, as its cache and, where the user says so, the user have it."""
    readers, number = list[_Reader](), len(run["caches"])
    for described, own, commit in zip(
        run["caches"], _for_each("llm", llm, number), _for_each("revision", revision, number), strict=True
    ):
        cache = _cache_of(described, root)
        settings, known = cache.manifest.settings, cache.manifest.llm
        source = known["source"] if own is None else own
        if commit is None and source == known["source"] and not Path(source).expanduser().exists():
            commit = known.get("revision")
        template = f"{settings['prefix']}{{text}}{settings['suffix']}"
        options = ExtractOptions(
            revision=commit,
            trust_remote_code=bool(settings["remote_code"]),
            layers=len(described["layers"]),
            max_tokens=settings["max_tokens"],
            pooling=settings["pooling"],
            template=None if template == "{text}" else template,
            dtype=settings["compute_dtype"],
            store=settings["stored_dtype"],
            batch_tokens=batch_tokens,
            device_map=device_map,
        )
        readers.append(_Reader(cache, source, options))
    return readers


def _for_each(option: str, given: str | Sequence[str] | None, number: int) -> Sequence[str | None]:
    """What was given for each LLM; None for each if it was not given."""
    if given is None:
        return [None] * number
    values = [given] if isinstance(given, str) else list(given)
    if len(values) != number:
        raise RunError(f"found {len(values)} × --{option}; expected {number}, one for each LLM of the run.")
    return values


def _cache_of(described: Mapping[str, Any], root: Path | str | None) -> Cache:
    """The cache that a run was made from, wherever it is now."""
    roots = [Path(root)] if root is not None else [Path(described["path"]).parent, resolve_cache_root()]
    for each in roots:
        for path, manifest in manifests_below(each):
            if manifest.fingerprint == described["fingerprint"]:
                return Cache.open(path)
    if root is not None:
        raise RunError(
            f"there is no cache of this run in {root}; its cache has the fingerprint {described['fingerprint'][:12]} "
            f"and was {described['path']}. Give the folder that holds it, or leave --cache-root out."
        )
    raise RunError(
        f"the cache {described['path']} of this run is gone: it says how texts are read. Name the folder that its "
        f"cache (fingerprint {described['fingerprint'][:12]}) is in with --cache-root, or make it anew with the "
        f"settings that it had: `ssna extract DATASET --llm {described['llm']} --name {described['name']}`."
    )
