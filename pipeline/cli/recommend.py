"""`ssna recommend`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import polars as pl

from ssna.api.recommend import RANK, SCORE, Recommendation, recommend, recommend_users
from ssna.cli.options import device_option, json_option, top_option
from ssna.columns import ITEM, USER
from ssna.errors import OutputError
from ssna.folders import check_output_file
from ssna.runs import write_parquet
from ssna.terminal import count, counted, print_json, print_line, print_note, print_table, work_progress

_SHOWN_HISTORY = 10
_EXAMPLES = """\b
Example: ssna recommend runs/text --history 50 --history 181 --top 5
         ssna recommend runs/text --all-users --output recommended.parquet
         ssna recommend runs/text --histories new-users.csv --output recommended.parquet
"""


@click.command("recommend", epilog=_EXAMPLES)
@click.argument("run")
@click.option("--user", metavar="ID", help="A user of the dataset.")
@click.option("--history", multiple=True, metavar="ITEM", help="Item ids instead, oldest first (repeat the option).")
@click.option("--all-users", is_flag=True, help="Every user of the dataset instead, into --output.")
@click.option(
    "--histories",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A table of histories of any users instead, into --output.",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Parquet file of many users' items.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@top_option(recommend)
@click.option("--allow-repeats", is_flag=True, help="Items of the history may be recommended again.")
@click.option("--explain", is_flag=True, help="Show which items of the history, up to three, each one is nearest to.")
@device_option
@json_option
def recommend_command(
    run: str,
    user: str | None,
    history: tuple[str, ...],
    all_users: bool,
    histories: Path | None,
    output: Path | None,
    overwrite: bool,
    k: int,
    allow_repeats: bool,
    explain: bool,
    device: str,
    as_json: bool,
) -> None:
    """Print the items that come next for a user or a history, from the run folder RUN alone.

    For many users they are rows of a Parquet file: user_id, item_id, score and rank, explained also the lists
    nearest_item_ids and nearest_cosines. The table of histories (CSV, TSV, Parquet, JSON Lines) has the columns user_id
    and item_id, oldest first, or in any order with a timestamp.
    """
    if all_users or histories is not None:
        option = "--all-users" if all_users else "--histories"
        if user is not None or history:
            raise click.UsageError(f"{option} goes with neither --user nor --history. Give one of them.")
        if all_users and histories is not None:
            raise click.UsageError("found --all-users and --histories. Give one of them.")
        if output is None:
            raise click.UsageError(f"{option} writes a Parquet file. Name it with --output.")
        options = {"histories": histories, "k": k, "allow_repeats": allow_repeats, "explain": explain, "device": device}
        _write_many(run, output, overwrite, as_json, options)
        return
    if output is not None or overwrite:
        raise click.UsageError(
            "--output and --overwrite go with --all-users and --histories. Give one of these, or leave them out."
        )
    found = recommend(run, user=user, history=history, k=k, allow_repeats=allow_repeats, explain=explain, device=device)
    if len(found.items) < k:
        besides = "" if allow_repeats else " besides those of the history (--allow-repeats)"
        print_note(f"--top {count(k)}: found only {counted(len(found.items), 'item')} to recommend{besides}.")
    if as_json:
        print_json(asdict(found))
        return
    _show(found, f"user {user}" if user is not None else "this history", explain)


def _show(found: Recommendation, whose: str, explain: bool) -> None:
    past = found.history[-_SHOWN_HISTORY:]
    print_table(
        ["item", f"last {len(past)} of {len(found.history)} of {whose}, oldest first"],
        [[item.item_id, item.title] for item in past],
    )
    columns, rows = ["item", "recommended next", "score"], list[list[str]]()
    if explain:
        columns += ["nearest in the history", "cosine"]
    for item in found.items:
        rows.append([item.item_id, item.title, f"{item.score:.3f}"])
        if explain:
            nearest, *others = [[near.title, f"{near.score:.3f}"] for near in item.nearest] or [["", ""]]
            rows[-1] += nearest
            rows += [["", "", "", *near] for near in others]
    print_table(columns, rows)


def _write_many(run: str, output: Path, overwrite: bool, as_json: bool, options: dict[str, Any]) -> None:
    if not output.is_dir() and output.suffix != ".parquet":
        raise OutputError(f"{output}: recommendations are written as Parquet; expected a name that ends in .parquet.")
    check_output_file(output, overwrite, _is_ours, "file of recommendations")
    with work_progress("ranking", "users") as on_progress:
        rows = recommend_users(run, on_progress=on_progress, **options)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(output, rows)
    users = rows[USER].n_unique()
    if as_json:
        print_json({"output": str(output), "users": users, "rows": len(rows)})
    else:
        print_line(f"{output}: {counted(len(rows), 'row')}, the next {_items_of_each(rows, options['k'], users)}")


def _items_of_each(rows: pl.DataFrame, k: int, users: int) -> str:
    """How many items of how many users."""
    each = rows[USER].value_counts()["count"].to_list() or [0]
    fewest, most = min(each), max(each)
    number = f"{count(fewest)} to {counted(most, 'item')}" if fewest < most else counted(most, "item")
    less = f" (fewer than --top {count(k)} where there are no more)" if fewest < k else ""
    return f"{number} of {counted(users, 'user')}{less}"


def _is_ours(path: Path) -> bool:
    try:
        return list(pl.read_parquet_schema(path))[:4] == [USER, ITEM, SCORE, RANK]
    except (OSError, pl.exceptions.PolarsError):
        return False
