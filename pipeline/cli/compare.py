"""`ssna compare`."""

from __future__ import annotations

import click

from ssna.api.compare import RESAMPLES, compare
from ssna.cli.options import device_option, filter_history_option, json_option
from ssna.cli.results import metric_label
from ssna.terminal import counted, print_json, print_line, print_table, work_progress


@click.command("compare", epilog="\b\nExample: ssna compare runs/ids runs/text")
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@filter_history_option
@click.option(
    "--bootstrap",
    type=click.IntRange(1),
    default=RESAMPLES,
    show_default=True,
    metavar="N",
    help="Resamples of the users for the intervals.",
)
@device_option
@json_option
def compare_command(first: str, second: str, filter_history: bool, bootstrap: int, device: str, as_json: bool) -> None:
    """The test metrics of two runs over the same users, with a paired test.

    The difference is the second minus the first, with its 95 % interval (paired bootstrap over users) and the p-value
    of no difference (random flips of the users' signs). Of several comparisons, correct the p-values.
    """
    with work_progress("comparing", "metrics") as on_progress:
        found = compare(
            first,
            second,
            filter_history=filter_history,
            resamples=bootstrap,
            device=device,
            on_progress=on_progress,
        )
    if as_json:
        print_json({name: difference.as_json() for name, difference in found.items()})
        return
    rows = [
        [
            metric_label(name),
            f"{d.first:.4f}",
            f"{d.second:.4f}",
            f"{d.difference:+.4f}",
            f"{d.low:+.4f} to {d.high:+.4f}",
            f"{d.p_value:.4f}",
        ]
        for name, d in found.items()
    ]
    print_table(["test", first, second, "difference", "95 % interval", "p"], rows)
    print_line(f"{counted(next(iter(found.values())).users, 'user')}, all of whom both runs were tested on")
