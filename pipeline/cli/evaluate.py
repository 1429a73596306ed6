"""`ssna evaluate`."""

from __future__ import annotations

import click

from ssna.api.evaluate import evaluate
from ssna.cli.options import device_option, json_option
from ssna.cli.results import print_results
from ssna.terminal import print_json, print_line


@click.command("evaluate", epilog="\b\nExample: ssna evaluate runs/text runs/ids")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("--filter-history", is_flag=True, help="Rank items of the user's history last.")
@device_option
@json_option
def evaluate_command(runs: tuple[str, ...], filter_history: bool, device: str, as_json: bool) -> None:
    """Compute the metrics of finished runs again, from their folders alone, and print them as one table.

    All candidates are ranked, none is sampled; ties count against the target.
    """
    results = {run: evaluate(run, filter_history=filter_history, device=device) for run in runs}
    if as_json:
        print_json(results[runs[0]] if len(runs) == 1 else results)
        return
    print_results(results)
    for run, result in results.items():
        filtered = "history ranked last" if result["history_filtered"] else "history not filtered"
        print_line(f"{run}: {result['users']:,} users, {result['candidates']:,} candidates, {filtered}")
