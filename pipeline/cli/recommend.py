"""`ssna recommend`."""

from __future__ import annotations

from dataclasses import asdict

import click

from ssna.api.recommend import recommend
from ssna.cli.options import default_of, device_option, json_option
from ssna.terminal import print_json, print_table

_SHOWN_HISTORY = 10


@click.command("recommend", epilog="\b\nExample: ssna recommend runs/text --history 50 --history 181 --top 5")
@click.argument("run")
@click.option("--user", metavar="ID", help="A user of the dataset.")
@click.option("--history", multiple=True, metavar="ITEM", help="Item ids instead, oldest first (repeat the option).")
@click.option(
    "-k",
    "--top",
    "k",
    type=int,
    default=default_of(recommend, "k"),
    show_default=True,
    metavar="K",
    help="How many.",
)
@click.option("--allow-repeats", is_flag=True, help="Items of the history may be recommended again.")
@device_option
@json_option
def recommend_command(
    run: str,
    user: str | None,
    history: tuple[str, ...],
    k: int,
    allow_repeats: bool,
    device: str,
    as_json: bool,
) -> None:
    """Print the items that come next for a user or a history, from the run folder RUN alone."""
    found = recommend(run, user=user, history=history, k=k, allow_repeats=allow_repeats, device=device)
    if as_json:
        print_json(asdict(found))
        return
    past = found.history[-_SHOWN_HISTORY:]
    whose = f"user {user}" if user is not None else "this history"
    print_table(
        ["item", f"last {len(past)} of {len(found.history)} of {whose}, oldest first"],
        [[item.item_id, item.title] for item in past],
    )
    print_table(
        ["item", "recommended next", "score"],
        [[item.item_id, item.title, f"{item.score:.3f}"] for item in found.items],
    )
