"""Stage one: run the frozen LLM once over every text that the cache lacks."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssna.cache import (
    Cache,
    DiskFullError,
    SegmentWriter,
    SsnaError,
    ahead,
    check_writable,
    fingerprint_of,
    manifests_below,
    row_bytes,
    sweep_leftovers,
)
from ssna.stage1_extract.batching import TokenIds, batch_size, longest_first
from ssna.stage1_extract.llm_files import LLMError, LLMFiles, find_llm
from ssna.stage1_extract.settings import (
    ExtractOptions,
    block_numbers,
    create,
    find_existing,
    reading_of,
    resolve_batch_tokens,
    resolve_layers,
    settings_of,
)
from ssna.stage1_extract.texts import TextBlocks, Wanted, Window, find_wanted, windows

# Texts tokenised and sorted by length together: enough that batches hold texts of equal length, few enough that
# their tokens take some ten megabytes.
_WINDOW = 32_768
_SECONDS_BETWEEN_LOOKS = 0.5
_DONE = "ssna/done"

Progress = Callable[[int, int], None]
"""Called with the number of texts done and the number to do."""


class NonFiniteStatesError(SsnaError):
    """The LLM gave inf or NaN for some texts; the rows of all others are committed."""


@dataclass(frozen=True)
class Extraction:
    """What an extraction did; `ssna extract --json` prints these fields."""

    cache: str
    """Folder of the cache"""
    name: str
    fingerprint: str
    layers: list[int]
    """Block numbers, top first"""
    pooling: str
    texts: int
    """Distinct texts asked for"""
    cached: int
    """Of these, already in the cache before"""
    extracted: int
    """Computed now"""
    tokens: int
    """Tokens the LLM read now, padding not counted"""
    padding: float
    """Share of padding in what the LLM was given to read (of several processes, in the first one's)"""
    truncated: int
    """Texts computed now that were cut"""
    seconds: float
    bytes: int
    """Size of the cache's segments on disk"""

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class _Job:
    """What there is to do."""

    files: LLMFiles
    device: str
    layers: int
    settings: dict[str, Any]
    cache: Cache | None
    wanted: Wanted

    @property
    def bytes_a_text(self) -> int:
        """On disk."""
        return row_bytes(self.layers, self.files.state_width, self.settings["stored_dtype"])


def _prepare(texts: TextBlocks, llm: str, root: Path, name: str | None, options: ExtractOptions, device: str) -> _Job:
    _refuse_name_of_cache(llm, root)
    files = find_llm(llm, options.revision, options.trust_remote_code)
    layers = resolve_layers(files, options.layers)
    settings = settings_of(files, options, device, root)
    cache = find_existing(root, name, settings, files.source)
    return _Job(files, device, layers, settings, cache, find_wanted(texts, cache, layers))


def extract_texts(
    texts: TextBlocks,
    llm: str,
    root: Path,
    name: str | None,
    options: ExtractOptions,
    device: str,
    progress: Progress,
) -> Extraction:
    """Bring the pooled states of these texts into the LLM's cache below `root`.

    The processes that `torchrun` starts divide the missing texts by their keys and write segments of their own.

    Args:
        texts: gives them, in blocks, as often as asked.
        llm: folder, GGUF file or hub id of the LLM.
        root: the folder of all caches.
        name: of the cache; None derives it from `llm`.
        options: how to compute and store.
        device: a PyTorch device.
        progress: told how far this process is.

    Raises:
        LLMError: if the LLM cannot be used, or has not that many layers.
        NameTakenError: if a cache of other settings has the name; nothing is read then.
        CacheError: if the cache is damaged, or lacks texts and cannot be written.
        DiskFullError: if the disk has no room for the states.
        NonFiniteStatesError: if states of some texts are not finite; all others are committed.
    """
    started = time.monotonic()
    root.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # A root that cannot be written may hold all that is needed.
        sweep_leftovers(root)
    job = _prepare(texts, llm, root, name, options, device)
    rank, world_size = processes()
    shares = 1 if options.tensor_parallel else world_size
    mine = job.wanted.share(rank % shares, shares)
    cache, done = job.cache, _Done()
    if cache is None or mine.any():
        _check_room(root, job.wanted.num_missing, job)  # Of all processes, which write to the same disk.
        check_writable(root if cache is None else cache.segments_folder)
        run = _Run(job, options)
        # Only an LLM that could be loaded gets a cache.
        cache = cache or create(root, name, job.settings, job.files, *run.about_states())
        try:
            done = run.extract(cache, texts, mine, progress)
        except NonFiniteStatesError:
            # torchrun ends all processes as soon as one fails, so the others' texts come first.
            _wait_until_all_are_done(shares)
            raise
    _wait_until_all_are_done(shares)
    with suppress(OSError, DiskFullError):  # A cache that cannot be written is used as it is.
        cache.remember_source(job.files.source)
    if rank == 0 and shares > 1:
        done = _totals(cache, job, done)
    return Extraction(
        cache=str(cache.path),
        name=cache.manifest.name,
        fingerprint=cache.manifest.fingerprint,
        layers=block_numbers(job.files, job.layers),
        pooling=job.settings["pooling"],
        texts=job.wanted.distinct,
        cached=job.wanted.distinct - job.wanted.num_missing,
        extracted=done.texts,
        tokens=done.tokens,
        padding=round(1 - done.tokens / done.padded, 4) if done.padded else 0.0,
        truncated=done.truncated,
        seconds=round(time.monotonic() - started, 3),
        bytes=cache.size_on_disk(),
    )


@dataclass(frozen=True)
class Plan:
    """What an extraction would do; `ssna extract --dry-run --json` prints these fields."""

    layers: list[int]
    """Block numbers, top first"""
    pooling: str
    texts: int
    """Distinct texts"""
    cached: int
    """Of these, already in the cache"""
    missing: int
    """To be computed"""
    tokens: int
    """Of the missing texts, after cutting"""
    tokens_quantiles: dict[str, int]
    """Tokens of a missing text: min, 25 %, 50 %, 75 %, 95 %, 99 % and max"""
    truncated: int
    """Missing texts that would be cut"""
    bytes: int
    """That the missing texts would add on disk"""

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def cache_fingerprint(llm: str, root: Path, options: ExtractOptions, device: str) -> str:
    """Of the cache below `root` that `extract_texts` would write to; the LLM's files are hashed, and nothing is loaded.

    Raises:
        LLMError: if the LLM cannot be used.
    """
    files = find_llm(llm, options.revision, options.trust_remote_code)
    return fingerprint_of(settings_of(files, options, device, root))


def plan_texts(texts: TextBlocks, llm: str, root: Path, name: str | None, options: ExtractOptions, device: str) -> Plan:
    """What `extract_texts` would do with the same arguments; only the tokenizer is loaded, and nothing is written.

    Raises:
        LLMError: if the LLM cannot be used, or has not that many layers.
        NameTakenError: if a cache of other settings has the name.
    """
    from ssna.stage1_extract.frozen_llm import TextTokenizer

    job = _prepare(texts, llm, root, name, options, device)
    lengths, truncated = [np.empty(0, np.int64)], 0
    if job.wanted.num_missing:
        tokenize = TextTokenizer(job.files, reading_of(job.settings))
        for window in windows(texts, job.wanted.missing, _WINDOW):
            ids, cut = tokenize(window.texts)
            lengths.append(np.array([len(tokens) for tokens in ids]))
            truncated += int(cut.sum())
    counts = np.concatenate(lengths)
    shares = {"min": 0.0, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95, "99%": 0.99, "max": 1.0}
    quantiles = np.quantile(counts, list(shares.values()), method="higher") if len(counts) else np.zeros(len(shares))
    return Plan(
        layers=block_numbers(job.files, job.layers),
        pooling=job.settings["pooling"],
        texts=job.wanted.distinct,
        cached=job.wanted.distinct - job.wanted.num_missing,
        missing=job.wanted.num_missing,
        tokens=int(counts.sum()),
        tokens_quantiles={name: int(value) for name, value in zip(shares, quantiles, strict=True)},
        truncated=truncated,
        bytes=job.wanted.num_missing * job.bytes_a_text,
    )


def processes() -> tuple[int, int]:
    """This process's rank among those that torchrun started, and their number."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@dataclass
class _Done:
    texts: int = 0
    tokens: int = 0
    padded: int = 0
    """Tokens and padding"""
    truncated: int = 0


class _Run:
    """The loaded LLM at work."""

    def __init__(self, job: _Job, options: ExtractOptions) -> None:
        from ssna.stage1_extract.frozen_llm import FrozenLLM, TextTokenizer
        from ssna.stage1_extract.loading import Placement

        self._job, self._options = job, options
        self._tokenize = TextTokenizer(job.files, reading_of(job.settings))
        placement = Placement(job.device, options.device_map, tensor_parallel=options.tensor_parallel)
        self._llm = FrozenLLM(
            job.files,
            self._tokenize,
            job.settings["pooling"],
            job.settings["compute_dtype"],
            placement,
            options.compile,
        )
        self._batch_tokens = resolve_batch_tokens(options.batch_tokens, job.device)

    def about_states(self) -> tuple[int, bool]:
        """Their width, and whether the top layer's are taken after a final norm."""
        return self._llm.state_width, self._llm.has_final_norm

    def extract(self, cache: Cache, texts: TextBlocks, chosen: npt.NDArray[np.bool_], progress: Progress) -> _Done:
        """Compute and commit the chosen texts."""
        job, total = self._job, int(chosen.sum())
        done, bad = _Done(), list[str]()
        if self._options.tensor_parallel:
            chosen = self._llm.agreed(chosen)
        writer = SegmentWriter(
            cache, block_numbers(job.files, job.layers), job.settings["stored_dtype"], job.files.source
        )
        writes = processes()[0] == 0 or not self._options.tensor_parallel
        progress(0, total)
        try:
            with writer:
                for window, ids, truncated in ahead(self._tokenized(texts, chosen)):
                    lengths = np.array([len(tokens) for tokens in ids], np.uint32)
                    for batch, states in self._batches(ids, lengths):
                        if writes:
                            keys = job.wanted.keys[window.rows[batch]]
                            taken = writer.add(keys, states, lengths[batch], truncated[batch])
                            bad += [window.item_ids[i] for i in batch[~taken]]
                        done.padded += len(batch) * int(lengths[batch].max())
                        done.texts += len(batch)
                        progress(done.texts, total)
                    done.tokens += int(lengths.sum())
                    done.truncated += int(truncated.sum())
        except DiskFullError as error:
            left = total - writer.committed_rows
            raise DiskFullError(
                f"{cache.path}: the disk is full. The {left:,} texts that are left need "
                f"{left * job.bytes_a_text / 1e6:,.1f} MB; free that much and run the same command again. What was "
                "committed stays."
            ) from error
        if bad:
            raise NonFiniteStatesError(
                f"the LLM gave inf or NaN for {len(bad)} of {total} texts (items {', '.join(bad[:5])}); the "
                "others are in the cache. Try --dtype float32, or drop these items from the dataset."
            )
        return done

    def _tokenized(
        self, texts: TextBlocks, chosen: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[Window, list[TokenIds], npt.NDArray[np.bool_]]]:
        for window in windows(texts, chosen, _WINDOW):
            ids, truncated = self._tokenize(window.texts)
            yield window, ids, truncated

    def _batches(
        self, ids: list[TokenIds], lengths: npt.NDArray[np.uint32]
    ) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
        """Batches of texts by length with their states; the token budget is halved when a GPU's memory is too small."""
        import torch

        order, start = longest_first(lengths), 0
        while start < len(order):
            batch = order[start : start + batch_size(int(lengths[order[start]]), self._batch_tokens)]
            try:
                states = self._llm.pooled_states([ids[i] for i in batch], self._job.layers)
            except torch.OutOfMemoryError as error:
                if len(batch) == 1 or self._options.tensor_parallel:  # There all processes would have to repeat it.
                    raise LLMError(
                        f"{self._job.files.source} and {len(batch)} texts of up to {lengths[batch[0]]} tokens do not "
                        f"fit into the memory of {self._job.device}. Give a lower --batch-tokens or --max-tokens, "
                        "--dtype bfloat16 or --device-map auto."
                    ) from error
                longest = int(lengths[batch[0]])
                self._batch_tokens = longest * (len(batch) // 2)
                torch.cuda.empty_cache()
                continue
            except Exception as error:
                # A missing compiler, or code that it cannot compile, shows in the first batch.
                if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise
                reason = (str(error).strip() or repr(error)).splitlines()[0]
                raise LLMError(
                    f"--compile: PyTorch could not compile {self._job.files.source} ({reason}). Leave the option out, "
                    "or install what it asks for."
                ) from error
            yield batch, states
            start += len(batch)


def _refuse_name_of_cache(llm: str, root: Path) -> None:
    """`ssna adapt --llm` takes the name of a cache, `ssna extract --llm` what it is made from: an easy slip."""
    for path, manifest in manifests_below(root):
        if manifest.name == llm != manifest.llm["source"] and not Path(llm).exists():
            raise LLMError(
                f"--llm {llm}: that is the name of the cache {path}. Give what it was made from: "
                f"--llm {manifest.llm['source']} --name {llm}."
            )


def _check_room(root: Path, rows: int, job: _Job) -> None:
    """Refuse to begin what the disk cannot hold."""
    needed, free = rows * job.bytes_a_text, shutil.disk_usage(root).free
    if needed > free:
        raise DiskFullError(
            f"{root} has {free / 1e9:.1f} GB free, and the states of {rows:,} texts need {needed / 1e9:.1f} GB. Free "
            "some, choose another --cache-root, or take fewer --layers or --store int8."
        )


def _wait_until_all_are_done(world_size: int) -> None:
    """Until every process has committed its share.

    One that dies ends with a status other than 0, on which torchrun ends this one too.
    """
    if world_size == 1:
        return
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://"))
    store.add(_DONE, 1)
    while store.add(_DONE, 0) < world_size:
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _totals(cache: Cache, job: _Job, mine: _Done) -> _Done:
    """Of all processes, from what they committed."""
    done = _Done()
    cache.refresh()
    for keys in job.wanted.missing_keys():
        there = keys[cache.has(keys, job.layers)]
        token_counts, truncated = cache.token_counts(there, job.layers)
        done.texts += len(there)
        done.tokens += int(token_counts.sum())
        done.truncated += int(truncated.sum())
    done.padded = round(done.tokens * mine.padded / mine.tokens) if mine.tokens else 0
    return done
