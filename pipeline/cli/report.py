"""`ssna report`."""

from __future__ import annotations

from dataclasses import asdict

import click

from ssna.api.report import report
from ssna.cli.options import device_option, json_option
from ssna.terminal import counted, print_json, print_line, print_note, size


@click.command("report", epilog="\b\nExample: ssna report runs/ids runs/text --output report.html")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("--output", required=True, metavar="FILE", help="The HTML file to write.")
@click.option("--overwrite", is_flag=True, help="Replace the report that is there.")
@device_option
@json_option
def report_command(runs: tuple[str, ...], output: str, overwrite: bool, device: str, as_json: bool) -> None:
    """Show finished runs side by side on one HTML page, from their folders alone.

    The page needs no network. A study of layers stands for all its runs.
    """
    done = report(runs, output, overwrite=overwrite, device=device, on_note=print_note)
    if as_json:
        print_json({**asdict(done), "output": str(done.output)})
        return
    print_line(f"{done.output}: {counted(len(done.runs), 'run')}, {size(done.num_bytes)}")
    if done.groups > 1:
        print_line("These runs were not tested on the same users and items: the page shows them apart.")
