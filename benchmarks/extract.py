"""Stage one and the cache: speed against others and against the limit, memory, and reading.

    python benchmarks/extract.py speed LLM_FOLDER TITLES.tsv    against sentence-transformers and the bare forward pass
    python benchmarks/extract.py read                           against memcpy, h5py and a file an item
    python benchmarks/extract.py memory                         by number of texts
    python benchmarks/extract.py open                           a cache of 10 million rows

LLM_FOLDER is a sentence-transformers model; TITLES.tsv has an id, a tab and a text on each line. `speed` needs
sentence-transformers, which the demo extra brings. Every part prints ratios of times taken in one run on one machine.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import click
import h5py
import numpy as np
import torch
from timing import best_of

from ssna.cache import Cache, SegmentWriter, keys_of_texts
from ssna.cache.segment import Rows, write_segment
from ssna.stage1_extract import ExtractOptions, extraction, settings
from ssna.stage1_extract.batching import batch_size, longest_first
from ssna.stage1_extract.frozen_llm import Reading, TextTokenizer
from ssna.stage1_extract.llm_files import find_llm
from ssna.stage1_extract.loading import Placement, load_model

BATCH_TOKENS = 2048


@click.group()
def main() -> None:
    """Measure stage one and the cache."""


@main.command()
@click.argument("llm", type=click.Path(exists=True))
@click.argument("titles", type=click.Path(exists=True, path_type=Path))
@click.option("--texts", "count", default=30_000, show_default=True, help="At most so many titles, by a fixed seed.")
@click.option("--repeats", default=3, show_default=True, help="Rounds; in each, every contestant runs once.")
@click.option("--threads", type=int, help="CPU threads.")
def speed(llm: str, titles: Path, count: int, repeats: int, threads: int | None) -> None:
    """Texts a second against sentence-transformers' encode and the bare forward pass."""
    if threads:
        torch.set_num_threads(threads)
    lines = dict.fromkeys(line.split("\t", 1)[1].strip() for line in titles.read_text().splitlines())
    chosen = np.random.default_rng(0).permutation(np.array(list(lines), dtype=object))[:count].tolist()
    # Longer texts of the same words: six titles in one.
    joined = [". ".join(chosen[i : i + 6]) for i in range(0, min(len(chosen), 6000), 6)]
    for what, texts in (("titles", chosen), ("six titles in one", joined)):
        # Beside each other in time, because the machine may be faster or slower a minute later.
        contestants = {"ssna extract": partial(run_ssna, llm, texts), "bare forward pass": bare_forward(llm, texts)}
        for size in (32, 128):  # The default, and a larger one.
            contestants[f"encode, batches of {size}"] = partial(run_encode, llm, texts, size)
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(repeats):
            for name, work in contestants.items():
                seconds[name].append(work())
        tokens = token_lengths(llm, texts)
        click.echo(
            f"{what}: {len(texts):,} texts, {tokens.mean():.0f} tokens on average, padding {padding(tokens):.1%}"
        )
        ours = seconds["ssna extract"]
        for name, theirs in seconds.items():
            ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            click.echo(f"  time of {name} / time of ssna extract: {statistics.median(ratios):.2f} ({spread})")


def run_ssna(llm: str, texts: list[str]) -> float:
    """Seconds of stage one, all layers, written to disk; without loading the LLM, which is the same for all."""

    def blocks() -> Iterator[tuple[list[str], list[str]]]:
        return iter([(texts, texts)])

    options = ExtractOptions(batch_tokens=BATCH_TOKENS)
    with tempfile.TemporaryDirectory() as root:
        job = extraction._prepare(blocks, llm, Path(root), None, options, "cpu")
        run = extraction._Run(job, options)
        cache = settings.create(Path(root), None, job.settings, job.files, *run.about_states())
        started = time.perf_counter()
        run.extract(cache, blocks, job.wanted.missing, lambda done, total: None)
        return time.perf_counter() - started


def run_encode(llm: str, texts: list[str], size: int) -> float:
    """Seconds of sentence-transformers' encode: one vector a text, kept in memory."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(llm, device="cpu", local_files_only=True)
    model.max_seq_length = min(512, find_llm(llm).token_limit or 512)
    started = time.perf_counter()
    model.encode(texts, batch_size=size, show_progress_bar=False)
    return time.perf_counter() - started


def token_lengths(llm: str, texts: list[str]) -> np.ndarray:
    """Tokens of each text."""
    files = find_llm(llm)
    ids, _ = TextTokenizer(files, Reading(min(512, files.token_limit or 512)))(texts)
    return np.array([len(tokens) for tokens in ids])


def batches_of(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The batches of stage one: positions of texts of these lengths."""
    order, start = longest_first(lengths), 0
    while start < len(order):
        batch = order[start : start + batch_size(int(lengths[order[start]]), BATCH_TOKENS)]
        yield batch
        start += len(batch)


def padding(lengths: np.ndarray) -> float:
    """Share of padding in the batches of stage one."""
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches_of(lengths))
    return 1 - lengths.sum() / padded


def bare_forward(llm: str, texts: list[str]) -> Callable[[], float]:
    """The limit: the LLM's forward pass alone over the same batches, tokenised, padded and on the device before."""
    files = find_llm(llm)
    ids, _ = TextTokenizer(files, Reading(min(512, files.token_limit or 512)))(texts)
    lengths = np.array([len(tokens) for tokens in ids])
    model = load_model(files, "float32", Placement("cpu"))
    batches = []
    for batch in batches_of(lengths):
        width = int(lengths[batch].max())
        padded = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros(len(batch), width, dtype=torch.long)
        for row, i in enumerate(batch):
            padded[row, : lengths[i]] = torch.tensor(ids[i])
            mask[row, : lengths[i]] = 1
        batches.append((padded, mask))

    def work() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            for padded, mask in batches:
                model(input_ids=padded, attention_mask=mask)
        return time.perf_counter() - started

    return work


@main.command()
@click.option("--rows", default=20_000, show_default=True)
@click.option("--layers", default=6, show_default=True)
@click.option("--width", default=384, show_default=True)
@click.option("--repeats", default=5, show_default=True)
def read(rows: int, layers: int, width: int, repeats: int) -> None:
    """Gather all rows of a dataset from a warm cache into one tensor."""
    rng = np.random.default_rng(0)
    texts = [str(i) for i in range(rows)]
    keys = keys_of_texts(texts)
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache.create(
            Path(folder), "made-up", {"a": 1}, {"source": "made-up", "blocks": layers, "state_width": width}
        )
        with SegmentWriter(cache, list(range(layers, 0, -1)), "float16", "made-up") as writer:
            for start in range(0, rows, 1000):
                part = keys[start : start + 1000]
                states = rng.standard_normal((len(part), layers, width), np.float32)
                writer.add(part, states, np.ones(len(part), np.uint32), np.zeros(len(part), np.bool_))
        order = rng.permutation(rows)
        wanted = keys[order]
        cache = Cache.open(cache.path)
        (segment,) = cache.segments_folder.glob("*.h5")
        files = Path(folder) / "items"
        files.mkdir()
        loaded = torch.from_numpy(cache.select(keys, layers).read()).to(torch.float16)
        for i in range(rows):
            torch.save(loaded[i].clone(), files / f"{i}.pt")

        def with_h5py() -> None:
            with h5py.File(segment) as file:
                # h5py wants increasing positions; the rows are put into the asked order afterwards.
                sorted_rows = np.arange(rows)
                states = file["states"][sorted_rows]
                torch.from_numpy(states[order].astype(np.float32))

        source = np.ones((rows, layers, width), np.float32)
        works: dict[str, Callable[[], object]] = {
            "ssna, into float32": lambda: torch.from_numpy(cache.select(wanted, layers).read()),
            "memcpy of the same float32 bytes": lambda: np.copyto(np.empty_like(source), source),
            "h5py fancy indexing": with_h5py,
            "a torch.load an item": lambda: torch.stack([torch.load(files / f"{i}.pt") for i in order]).float(),
        }
        seconds = {name: best_of(work, repeats) for name, work in works.items()}
    own = seconds["ssna, into float32"]
    click.echo(f"{rows:,} rows of {layers} × {width} in random order, best of {repeats}; time / time of ssna:")
    for name, taken in seconds.items():
        click.echo(f"  {name}: {taken / own:.2f}")


# Linux's own count for this process alone: what `getrusage` says includes the process that started it.
_PEAK = """
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
"""
_MEMORY = (
    _PEAK
    + """
import sys
from ssna import ExtractOptions, extract
extract(sys.argv[1], sys.argv[2], options=ExtractOptions(batch_tokens=16384), cache_root=sys.argv[3], device="cpu")
print(peak())
"""
)


@main.command()
@click.option("--counts", default="10000,100000,1000000,4000000", show_default=True, help="Numbers of texts.")
def memory(counts: str) -> None:
    """Peak memory of an extraction with a tiny random BERT, by number of texts."""
    import polars as pl

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.helpers import WORDS, make_tiny_llm

    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        llm = make_tiny_llm(Path(folder) / "llm")
        for count in map(int, counts.split(",")):
            data = Path(folder) / "data"
            data.mkdir()
            numbers = pl.int_range(count, eager=True)
            text = pl.select(
                pl.concat_str(
                    pl.lit("camera "),
                    pl.lit(pl.Series(WORDS)).gather(numbers % len(WORDS)),
                    pl.lit(" "),
                    numbers.cast(pl.String),
                )
            ).to_series()
            frame = pl.DataFrame({"item_id": numbers.cast(pl.String), "text": text})
            frame.write_parquet(data / "items.parquet", row_group_size=100_000)
            command = [sys.executable, "-c", _MEMORY, str(data), str(llm), str(Path(folder) / "cache")]
            peak = int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            peaks.append((count, peak))
            click.echo(f"{count:>10,} texts: peak {peak / 2**20:,.0f} MiB")
            shutil.rmtree(data)
            shutil.rmtree(Path(folder) / "cache")
    for (few, least), (many, most) in pairwise(peaks):
        click.echo(f"{few:,} to {many:,} texts: {(most - least) / (many - few):.0f} bytes a text more")


_OPEN = (
    _PEAK
    + """
import sys, time
from pathlib import Path
import numpy as np
from ssna.cache import Cache, keys_of_texts
before = peak()
started = time.perf_counter()
cache = Cache.open(Path(sys.argv[1]))
opened = time.perf_counter() - started
asked = keys_of_texts(str(i) for i in range(1000))
assert not cache.has(asked, 1).any()
found = time.perf_counter() - started
print(f"{opened:.3f} s to open, {found:.3f} s with a look-up of 1,000 keys; peak {peak() / 2**20:.0f} MiB "
      f"({(peak() - before) / 2**20:.0f} above the imports)")
"""
)


@main.command(name="open")
@click.option("--rows", default=10_000_000, show_default=True)
@click.option("--segments", default=40, show_default=True)
def open_(rows: int, segments: int) -> None:
    """Open a cache of many rows, first without its index, then with it."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache.create(Path(folder), "made-up", {"a": 1}, {"source": "made-up", "blocks": 1, "state_width": 1})
        each = rows // segments
        for _ in range(segments):
            made = Rows(
                rng.integers(0, 256, (each, 16), np.uint8), np.zeros((each, 1, 1), np.float16),
                np.ones((each, 1), np.float32), np.ones(each, np.uint32), np.zeros(each, np.bool_),
                np.zeros(each, np.uint64),
            )  # fmt: skip
            write_segment(cache.segments_folder, [made], each, cache.manifest.fingerprint, [1], "made-up")
        for when in ("index to be built", "index there"):
            done = subprocess.run(
                [sys.executable, "-c", _OPEN, str(cache.path)], capture_output=True, text=True, check=True
            )
            click.echo(f"{rows:,} rows in {segments} segments, {when}: {done.stdout.strip()}")


if __name__ == "__main__":
    main()
