"""`ssna evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ssna.api.evaluate import evaluate
from ssna.cli.options import device_option, filter_history_option, json_option
from ssna.cli.results import print_intervals, print_popularity, print_results
from ssna.terminal import counted, print_json, print_line, work_progress


@click.command("evaluate", epilog="\b\nExample: ssna evaluate runs/text runs/ids --bootstrap 1000")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@filter_history_option
@click.option(
    "--bootstrap", type=click.IntRange(0), default=0, metavar="N", help="95 % intervals from N resamples of the users."
)
@device_option
@json_option
def evaluate_command(runs: tuple[str, ...], filter_history: bool, bootstrap: int, device: str, as_json: bool) -> None:
    """Compute the metrics of finished runs again, from their folders alone, and print them as tables.

    All candidates are ranked, none is sampled; ties count against the target.
    """
    results = dict[str, Mapping[str, Any]]()
    with work_progress("ranking", "users") as on_progress:
        for number, run in enumerate(runs):

            def of_all(done: int, total: int, before: int = number) -> None:
                on_progress(before * total + done, len(runs) * total)  # As if the other runs had as many users.

            results[run] = evaluate(
                run, filter_history=filter_history, bootstrap=bootstrap, device=device, on_progress=of_all
            )
    if as_json:
        print_json(results[runs[0]] if len(runs) == 1 else results)
        return
    print_results(results)
    print_intervals(results)
    print_popularity(results)
    for run, result in results.items():
        filtered = "history ranked last" if result["history_filtered"] else "history not filtered"
        users = counted(result["users"], "user") if result["users"] else "no users to test on"
        print_line(f"{run}: {users}, {counted(result['candidates'], 'candidate')}, split {result['split']}, {filtered}")
    if len({(result["users"], result["candidates"], result["split"]) for result in results.values()}) > 1:
        print_line("These runs were not tested on the same users and candidates: their metrics do not compare.")
