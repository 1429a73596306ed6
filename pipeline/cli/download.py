"""`ssna download`."""

from __future__ import annotations

import shlex
from dataclasses import asdict

import click

from ssna.api.download import NOTE, PUBLISHED, Download, Source, download
from ssna.cli.options import json_option
from ssna.terminal import files_progress, print_json, print_line, print_table, size

_WIDTH = max(map(len, PUBLISHED))
_SOURCES: dict[Source, str] = {"publisher": "its publisher", "ssna": "ssna", "note": "the last call"}


def _line(name: str) -> str:
    published = PUBLISHED[name]
    example = f" (such as {name.replace('CATEGORY', published.example)})" if published.example else ""
    return f"  {name:<{_WIDTH}}  {published.page}{example}"


_HELP = "\n".join(
    [
        "Fetch the files of a public dataset into FOLDER (default: here), for `ssna prepare`.\n",
        "An interrupted download goes on where it stopped, and a file that is there is checked. Read the publisher's "
        "terms on its page first.\n",
        "\b\nNAME, and the publisher's page:",
        *map(_line, PUBLISHED),
    ]
)


@click.command("download", help=_HELP, epilog="\b\nExample: ssna download ml-1m data/raw")
@click.argument("name", metavar="NAME")
@click.argument("folder", default=".", metavar="[FOLDER]")
@json_option
def download_command(name: str, folder: str, as_json: bool) -> None:
    """Download, and print what came."""
    with files_progress(shown=not as_json) as on_progress:
        result = download(name, folder, on_progress=on_progress)
    files = [{**asdict(file), "path": str(file.path)} for file in result.files]
    command = ["ssna", "prepare", *(file["path"] for file in files), name, "--format", result.format]
    if as_json:
        print_json({**asdict(result), "files": files, "prepare": command})
        return
    _show(result)
    print_line(f"Terms of use: {result.page}")
    print_line(f"Next: {shlex.join(command)}")


def _show(result: Download) -> None:
    rows = []
    for file in result.files:
        names = [_SOURCES[source] for source in file.agrees_with]
        lacking = [] if file.publisher_reached else ["publisher not reached"]
        rows.append([str(file.path), size(file.bytes), file.sha256, ", ".join(names + lacking) or "nothing known yet"])
    print_table(["file", "size", "SHA-256", "agrees with"], rows)
    print_line(f"The SHA-256 of each is noted beside it ({NOTE}) and compared by the next call.")
