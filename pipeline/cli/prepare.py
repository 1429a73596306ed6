"""`ssna prepare`."""

from __future__ import annotations

from typing import Any

import click

from ssna.api.prepare import prepare
from ssna.cleaning import DUPLICATES
from ssna.cli.options import default_of, json_option
from ssna.dataset import Dataset
from ssna.sources import FORMATS, READERS, TIMESTAMP_UNITS, Columns
from ssna.terminal import count, counted, files_progress, print_json, print_line, print_table
from ssna.timestamps import UNITS

_HELP = "\n".join(
    [
        "Write the dataset folder OUT from a public format.\n",
        "\b\nSOURCE by --format:",
        *(f"  {format:<11} {reader.takes}" for format, reader in READERS.items()),
    ]
)


@click.command(
    "prepare",
    help=_HELP,
    epilog="\b\nExample: ssna prepare ratings.csv movies.csv data/mine --format table --text '{title}. {genres}' "
    "\\\n             --user-column userId --item-column movieId",
)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.argument("output", metavar="OUT")
@click.option(
    "--format", "format", type=click.Choice(FORMATS), required=True, help="Of the sources (docs/datasets.md)."
)
@click.option("--text", metavar="TEMPLATE", help="Item text, e.g. '{title}. Genres: {genres}'.  [default: the title]")
@click.option("--name", help="Of the dataset; chooses it where a source holds several.  [default: the source's]")
@click.option(
    "--min-user", type=click.IntRange(0), default=default_of(prepare, "min_user"), show_default=True,
    metavar="N", help="Fewest interactions of a user (k-core).",
)  # fmt: skip
@click.option(
    "--min-item", type=click.IntRange(0), default=default_of(prepare, "min_item"), show_default=True,
    metavar="N", help="Fewest interactions of an item (k-core).",
)  # fmt: skip
@click.option("--min-rating", type=float, metavar="X", help="Lowest rating that counts.  [default: all count]")
@click.option(
    "--duplicates", type=click.Choice(DUPLICATES), default=default_of(prepare, "duplicates"), show_default=True,
    help="Repeated user and item: keep all, drop exact repeats (same time), keep only the first or last.",
)  # fmt: skip
@click.option("--drop-unknown", is_flag=True, help="Drop interactions of items that the source does not describe.")
@click.option("--drop-empty", is_flag=True, help="Drop interactions of items without text.")
@click.option(
    "--timestamp-unit", type=click.Choice(TIMESTAMP_UNITS), default=default_of(prepare, "timestamp_unit"),
    show_default=True, help="Of numeric timestamps; auto goes by their size.",
)  # fmt: skip
@click.option("--timestamp-format", metavar="FORMAT", help="Of date strings, e.g. '%d/%m/%Y'.  [default: ISO 8601]")
@click.option("--encoding", metavar="NAME", help="Of all text files, e.g. latin-1.  [default: the format's own, UTF-8]")
@click.option("--user-column", metavar="NAME", help="Of the users' ids.  [default: user_id]")
@click.option("--item-column", metavar="NAME", help="Of the items' ids.  [default: item_id]")
@click.option("--rating-column", metavar="NAME", help="Of the ratings.  [default: rating, if there]")
@click.option("--timestamp-column", metavar="NAME", help="Of the times.  [default: timestamp, if there]")
@click.option("--items-item-column", metavar="NAME", help="In the items' file.  [default: as --item-column]")
@click.option("--licence", metavar="NOTE", help="Of the source; kept in dataset.json.")
@click.option("--overwrite", is_flag=True, help="Replace a dataset folder that is there.")
@json_option
def prepare_command(sources: tuple[str, ...], output: str, as_json: bool, **options: Any) -> None:
    """Prepare, and print the counts."""
    names = ("user", "item", "rating", "timestamp", "items_item")
    columns = Columns(**{name: options.pop(f"{name}_column") for name in names})
    with files_progress() as on_progress:
        dataset = prepare(sources, output, columns=columns, on_progress=on_progress, **options)
    if as_json:
        print_json({"path": str(dataset.path), "fingerprint": dataset.fingerprint, **dataset.description})
    else:
        _show(dataset)


def _show(dataset: Dataset) -> None:
    kinds = ("interactions", "users", "items")
    rows = []
    for step in dataset.steps:
        before, after = step["before"], step["after"]
        cells = [step["name"]]
        for kind in kinds:
            changed = before[kind] != after[kind]
            cells.append(f"{count(before[kind])} → {count(after[kind])}" if changed else count(after[kind]))
        rows.append(cells)
    print_table(["step", *kinds], rows)
    described = dataset.description
    again = described["items_described_again"]
    first = f" ({count(again)} more than once: the first description counts)" if again else ""
    read_as, span = described["timestamps"], described["time_span"]
    times = "order only" if span is None else f"{UNITS.get(read_as, read_as)}, {span[0]} to {span[1]}"
    print_line(
        f"{dataset.path}: dataset '{dataset.name}', {counted(described['items'], 'item')} described{first}, text from "
        f"'{described['template']}', times read as {times}, fingerprint {dataset.fingerprint[:12]}"
    )
    for note in described["notes"]:
        print_line(note)
