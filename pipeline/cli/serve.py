"""`ssna serve`."""

from __future__ import annotations

import json
from contextlib import suppress

import click

from ssna.api.serve import serve
from ssna.cli import Terminated
from ssna.cli.options import default_of, device_option
from ssna.terminal import print_note


@click.command("serve", epilog="\b\nExample: ssna serve runs/text --port 8000")
@click.argument("run")
@click.option(
    "--host",
    default=default_of(serve, "host"),
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen; 0.0.0.0 answers other machines too.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=default_of(serve, "port"),
    show_default=True,
    metavar="PORT",
    help="0 takes a free one.",
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON with the address as soon as it is there.")
def serve_command(run: str, host: str, port: int, device: str, as_json: bool) -> None:
    """Answer requests for recommendations from the run folder RUN over HTTP, until Ctrl-C or SIGTERM.

    \b
    /            a page to search items, click a history and see what comes next
    /recommend   the items that come next for a user or a history
    /similar     the items most like an item
    /items       items by a part of their title
    /health      what is served
    /docs        the OpenAPI page

    Anybody who reaches the address may ask. Needs `pip install 'ssna[serve]'`; see docs/serving.md.
    """

    def on_start(url: str) -> None:
        if as_json:  # One line, at once: whoever waits for it reads a line from a pipe.
            print(json.dumps({"url": url}), flush=True)
        print_note(f"serving at {url}, OpenAPI page at {url}/docs; Ctrl-C ends it")

    with suppress(Terminated):  # As Ctrl-C does: what supervises a service ends it so, and nothing has failed.
        serve(run, host=host, port=port, device=device, on_start=on_start)
