"""`ssna add-items`."""

from __future__ import annotations

from typing import Any

import click

from ssna.api.add_items import add_items
from ssna.cli.extract import loading_options
from ssna.cli.options import cache_root_option, device_option, json_option
from ssna.terminal import count, counted, print_json, print_line, work_progress


@click.command("add-items", epilog="\b\nExample: ssna add-items runs/text new-films.csv --item-column movieId")
@click.argument("run")
@click.argument("items")
@click.option("--text", metavar="TEMPLATE", help="Of the items' text.  [default: that of the run's dataset]")
@click.option("--item-column", metavar="NAME", help="Of the items' ids.  [default: item_id]")
@click.option("--encoding", metavar="NAME", help="Of a text file, e.g. latin-1.  [default: UTF-8]")
@click.option(
    "--llm",
    multiple=True,
    metavar="PATH_OR_ID",
    help="Where the LLM is now; of several once for each.  [default: where it was extracted from]",
)
@click.option(
    "--revision",
    multiple=True,
    metavar="NAME",
    help="Branch, tag or commit of a hub id; of several once for each.  [default: that of the cache]",
)
@loading_options
@device_option
@cache_root_option
@json_option
def add_items_command(
    run: str, items: str, llm: tuple[str, ...], revision: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Let new ITEMS be recommended by the run RUN, without training: its LLM reads their texts, no others.

    ITEMS is a table (CSV, TSV, Parquet, JSON Lines) or a dataset folder. Items that the run knows stay as they are, and
    its metrics are those without new items.
    """
    with work_progress("extracting", "texts") as on_progress:
        done = add_items(run, items, llm=llm or None, revision=revision or None, on_progress=on_progress, **options)
    if as_json:
        print_json(done.as_json())
        return
    others = [
        f"{count(number)} {what}"
        for number, what in (
            (done.replaced, "added before and replaced"),
            (done.known, "known already"),
            (done.without_text, "without text, passed over"),
        )
        if number
    ]
    print_line(
        f"{run}: {counted(done.added, 'item')} added{''.join(f', {other}' for other in others)}; "
        f"{counted(done.extracted, 'text')} read; {counted(done.candidates, 'item')} can be recommended"
    )
    for note in done.notes:
        print_line(note)
