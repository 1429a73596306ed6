"""`ssna similar`."""

from __future__ import annotations

from dataclasses import asdict

import click

from ssna.api.similar import similar
from ssna.cli.options import device_option, json_option, top_option
from ssna.terminal import count, counted, print_json, print_note, print_table


@click.command("similar", epilog="\b\nExample: ssna similar runs/text 50 --top 5")
@click.argument("run")
@click.argument("item")
@top_option(similar)
@device_option
@json_option
def similar_command(run: str, item: str, k: int, device: str, as_json: bool) -> None:
    """Print the items whose vectors in the run folder RUN are nearest to that of ITEM, an item's id."""
    found = similar(run, item, k=k, device=device)
    if len(found) < k:
        print_note(f"--top {count(k)}: found only {counted(len(found), 'other item')}.")
    if as_json:
        print_json([asdict(each) for each in found])
        return
    print_table(
        ["item", f"nearest to item {item}", "cosine"],
        [[each.item_id, each.title, f"{each.score:.3f}"] for each in found],
    )
