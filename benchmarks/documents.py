"""Tables and plots of documents, as the benchmarks that measure them write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def save_plot(figure: Any, path: Path) -> None:
    """Write a matplotlib figure; an SVG of the same figures is the same file, and its words stay words."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "ssna", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def marks(name: str) -> tuple[str, str]:
    """Before and after a table; they are not seen on the page."""
    return f"<!-- measured: {name} -->", f"<!-- end of {name} -->"
