"""`ssna report`."""

from __future__ import annotations

from dataclasses import asdict

import click

from ssna.api.report import report
from ssna.cli.options import default_of, device_option, json_option
from ssna.terminal import count, counted, print_json, print_line, print_table, size, work_progress


@click.command("report", epilog="\b\nExample: ssna report runs/ids runs/text")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option(
    "--output",
    default=default_of(report, "output"),
    show_default=True,
    metavar="FILE",
    help="The HTML file to write.",
)
@click.option(
    "--users",
    type=int,
    default=default_of(report, "users"),
    show_default=True,
    metavar="N",
    help="Sample users, shown with their ids and histories; 0 for none.",
)
@click.option("--overwrite", is_flag=True, help="Replace the report that is there.")
@device_option
@json_option
def report_command(runs: tuple[str, ...], output: str, users: int, overwrite: bool, device: str, as_json: bool) -> None:
    """Show finished runs side by side on one HTML page, from their folders alone.

    The page needs no network. A study of layers stands for all its runs. Whoever gets the page reads the ids and
    histories of its sample users.
    """
    with work_progress("ranking", "runs") as on_progress:
        done = report(runs, output, users=users, overwrite=overwrite, device=device, on_progress=on_progress)
    if as_json:
        print_json({**asdict(done), "output": str(done.output)})
        return
    number = sum(len(group.runs) for group in done.groups)
    print_line(f"{done.output}: {counted(number, 'run')}, {size(done.num_bytes)}")
    if len(done.groups) > 1:
        print_line("These runs were not tested on the same users and items: the page shows them apart.")
        rows = [
            [group.dataset, group.split, count(group.users), count(group.items), ", ".join(group.runs)]
            for group in done.groups
        ]
        print_table(["dataset", "split", "users", "items", "runs"], rows)
