"""Tables of documents that are written by the benchmarks which print them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

DOCS = Path(__file__).parent.parent / "docs"


def write_tables(document: Path, tables: Mapping[str, str]) -> None:
    """Put each table, as Markdown, between the two marks of its name, and say of which there are none.

    Raises:
        ValueError: if a mark's other one is missing.
    """
    text = document.read_text() if document.exists() else ""
    for name, table in tables.items():
        begin, end = marks(name)
        if begin not in text:
            click.echo(f"{document.name} has no place for: {name}", err=True)
            continue
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{document} has no {end} after {begin}.")
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    if text:
        document.write_text(text)


def marks(name: str) -> tuple[str, str]:
    """Before and after a table; they are not seen on the page."""
    return f"<!-- measured: {name} -->", f"<!-- end of {name} -->"
