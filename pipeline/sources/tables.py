"""Reading delimited text, Parquet and JSON Lines lazily, every value of delimited text as the string it is."""

from __future__ import annotations

import csv
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from ssna.errors import SourceError

_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}


@dataclass(frozen=True)
class DelimitedText:
    """A file of fields between separators, with a header line."""

    name: str
    """What the user knows it by"""
    path: Path
    """Where it stands as UTF-8 text"""
    separator: str
    quote: str | None = '"'

    def scan(self) -> pl.LazyFrame:
        """Its rows, all columns strings, empty values null.

        Raises:
            SourceError: if it is empty, or its header has another separator.
        """
        with self.path.open(encoding="utf-8-sig") as file:
            header = file.readline().rstrip("\n")
        if not header:
            raise SourceError(f"{self.name} is empty: expected a header line with the columns' names.")
        others = [name for mark, name in _SEPARATORS.items() if mark in header]
        if self.separator not in header and others:
            raise SourceError(
                f"{self.name}: the columns of its header are separated by {others[0]} ('{header[:60]}'); expected "
                f"{_SEPARATORS[self.separator]}. Convert the file, or correct its ending (.csv or .tsv)."
            )
        return pl.scan_csv(
            self.path, separator=self.separator, quote_char=self.quote, infer_schema=False, low_memory=True
        )

    def first_row_too_long(self) -> str | None:
        """Where a row has more fields than the header, in words; None if no row has."""
        quoting: Literal[0, 3] = csv.QUOTE_NONE if self.quote is None else csv.QUOTE_MINIMAL
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=self.separator, quotechar=self.quote, quoting=quoting)
            columns, before = len(next(rows)), rows.line_num
            with suppress(csv.Error):  # Such as a field beyond Python's limit.
                for row in rows:
                    if len(row) > columns:
                        return f"{self.name}: line {before + 1} has {len(row)} fields, its header {columns}"
                    before = rows.line_num
        return None


def kind_of_table(path: Path) -> str:
    """csv, tsv, parquet or jsonl, by the file's ending.

    Raises:
        SourceError: for any other ending.
    """
    kinds = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if ending not in kinds:
        raise SourceError(f"{path}: unknown table format '{ending}'; expected one of {', '.join(kinds)} (or .gz).")
    return kinds[ending]
