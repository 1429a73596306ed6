"""The comparison of docs/accuracy.md: methods, LLMs and seeds on any prepared datasets.

    python benchmarks/accuracy.py run data/ml-100k data/scientific --llm minilm --llm gemma --llm mpnet \
        --cache-root CACHES
    python benchmarks/accuracy.py table
    python benchmarks/accuracy.py plot --cache-root CACHES

Each dataset must be prepared and its texts extracted with all layers. The first `--llm` is trained with every method,
the first two together too, and the others with the methods of MORE_LLMS. Every finished cell is a line of the results,
so the script can be stopped at any time and goes on; several of it may run at once, on the same cells. All choices are
made on validation: of the search space by the first seed, and of what is called best by all seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import click
from documents import DOCS, write_tables
from grid.cells import CRITERION, Cell, Results, Row, cells_of, fill_in
from grid.methods import EQUAL, FORMS, FUSED, METHODS, ONE_LAYER_OF_STUDIED, STUDIED, width_of_equal_size
from grid.tables import LEAST_SEEDS, series_table, tables

from ssna.cache import Cache, SsnaError, find_cache
from ssna.dataset import open_dataset

RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"
DOCUMENT = DOCS / "accuracy.md"
PLOTS = DOCS / "plots"
FIVE_SEEDS = ("ids", "last-whitened", "last-adapter", "mean", "residual", "gru-ids", "residual-ids")
MORE_LLMS = ("last-moe", "last-adapter", "mean", "residual", "residual-ids")
LAYERS = (2, 3, 4, 6, 9, 12)  # One is `ONE_LAYER_OF_STUDIED`.


def parts_of(datasets: Sequence[str], llms: Sequence[str], sizes: Mapping[str, tuple[int, int]]) -> list[list[Row]]:
    """The grid, the most wanted rows first.

    What the claims rest on, other forms and numbers of layers with the options that SSNA has chosen, other LLMs, and
    other methods.

    Args:
        datasets: fingerprints.
        llms: names of caches.
        sizes: of each, its layers and their width.
    """
    claimed, alike, more, others = list[Row](), list[Row](), list[Row](), list[Row]()
    for dataset in datasets:
        for name, method in METHODS.items():
            if method.num_llms <= len(llms) and name not in EQUAL:
                seeds = 1 if not method.searched else 5 if name in FIVE_SEEDS else LEAST_SEEDS
                part = claimed if name in FIVE_SEEDS else others
                part.append(Row(dataset, tuple(llms[: method.num_llms]), name, {}, seeds))
        more += [Row(dataset, (llm,), name, {}, LEAST_SEEDS) for llm in llms[1:] for name in MORE_LLMS]
        for llm in llms:
            ours, seeds = Row(dataset, (llm,), STUDIED, {}, 0), LEAST_SEEDS if llm == llms[0] else 1
            depths = [a for a in LAYERS if a < sizes[llm][0]]
            alike += [Row(dataset, (llm,), STUDIED, {"layers": a}, seeds, ours) for a in depths]
            for name in (ONE_LAYER_OF_STUDIED, *(FORMS if llm == llms[0] else ("mean",))):
                base = {"side_width": width_of_equal_size(name, *sizes[llm])} if name in EQUAL else {}
                alike.append(Row(dataset, (llm,), name, base, LEAST_SEEDS, ours))
        if len(fused := tuple(llms[: METHODS[FUSED].num_llms])) == METHODS[FUSED].num_llms:
            alike.append(Row(dataset, fused, FUSED, {"layers": 1}, LEAST_SEEDS, Row(dataset, fused, FUSED, {}, 0)))
    return [claimed, alike, more, others]


def best_depths(rows: Sequence[Row], results: Results) -> list[Row]:
    """Enough seeds of each LLM's best number of layers by the first one, once all numbers have that."""
    found = list[Row]()
    series = [row for row in rows if row.method == STUDIED and "layers" in row.base]
    for _, each in groupby(series, key=lambda row: (row.dataset, row.llms)):
        numbers = list(each)
        numbers += [row.like for row in numbers[:1] if row.like is not None]  # All layers.
        firsts = [results.of(cell) for row in numbers for cell in replace(row, seeds=1).repeated(results)]
        valid = [line["valid"][CRITERION] for line in firsts if line is not None]
        if len(valid) == len(numbers):
            found.append(replace(numbers[valid.index(max(valid))], seeds=LEAST_SEEDS))
    return found


class _InOneSentence(click.Group):
    """What `ssna` says in one sentence is said in one here too."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SsnaError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_InOneSentence)
def main() -> None:
    """Fill in the grid, or print what it holds."""


results_option = click.option(
    "--results",
    "results_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=RESULTS,
    help="JSON Lines file with a line a cell; without it, those of docs/accuracy.md.",
)


@main.command()
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--llm",
    "llms",
    multiple=True,
    required=True,
    help="Name of a cache; the first one has all methods, and is fused with the second.",
)
@click.option("--cache-root", type=click.Path(path_type=Path), required=True)
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--method", "methods", multiple=True, type=click.Choice(list(METHODS)), help="Without it, all.")
@results_option
def run(
    datasets: tuple[Path, ...],
    llms: tuple[str, ...],
    cache_root: Path,
    threads: int,
    methods: tuple[str, ...],
    results_path: Path,
) -> None:
    """Train the missing cells of DATASETS, prepared folders."""
    for name in methods:
        if (needed := METHODS[name].num_llms) > len(llms):
            raise click.UsageError(f"{name} reads {needed} LLMs, and --llm names {len(llms)}.")
    caches = {llm: find_cache(cache_root, llm) for llm in llms}
    opened = {llm: Cache.open(path) for llm, path in caches.items()}
    sizes = {llm: (each.max_layers, int(each.manifest.llm["state_width"])) for llm, each in opened.items()}
    paths = {open_dataset(path).fingerprint: path for path in datasets}
    parts = parts_of(list(paths), llms, sizes)
    wanted = [[row for row in rows if row.method in (methods or METHODS)] for rows in parts]

    def cells(found: Results) -> list[Cell]:
        return [cell for rows in wanted for cell in cells_of([*rows, *best_depths(rows, found)], found)]

    fill_in(results_path, cells, paths, caches, threads)


@main.command()
@results_option
def table(results_path: Path) -> None:
    """Print the tables, as Markdown; without --results put them into docs/accuracy.md too."""
    results = _finished(results_path)
    found = {"series": series_table(results), "accuracy": tables(results)}
    click.echo("\n\n".join(found.values()))
    if results_path == RESULTS:
        write_tables(DOCUMENT, found)


@main.command()
@click.option("--cache-root", type=click.Path(path_type=Path), required=True)
@results_option
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=PLOTS, help="Folder of the plots.")
def plot(cache_root: Path, results_path: Path, output: Path) -> None:
    """Draw accuracy-*.svg, by default in docs/plots."""
    try:
        from grid.plots import plots
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing; pip install '.[benchmarks]' brings it.") from None
    results = _finished(results_path)
    llms = {llm for line in results.lines.values() for llm in line["llms"]}
    depths = {llm: Cache.open(find_cache(cache_root, llm)).max_layers for llm in llms}
    for path in plots(results, output, depths):
        click.echo(path)


def _finished(path: Path) -> Results:
    """Results of at least one cell."""
    results = Results(path)
    if not results.lines:
        raise click.ClickException(f"{path} holds no finished cell; `accuracy.py run` writes them.")
    return results


if __name__ == "__main__":
    main()
