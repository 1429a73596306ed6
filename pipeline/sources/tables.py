"""Reading delimited text, Parquet and JSON Lines lazily, every value of delimited text as the string it is."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ssna.errors import SourceError
from ssna.text import without_lone_surrogates

TableKind = Literal["csv", "tsv", "psv", "parquet", "jsonl"]
_ENDINGS: dict[str, TableKind] = {
    ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"
}  # fmt: skip
_SEPARATOR_OF: dict[TableKind, str] = {"csv": ",", "tsv": "\t", "psv": "|"}
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}


@dataclass(frozen=True)
class Table:
    """A file of rows."""

    name: str
    """What the user knows it by"""
    path: Path
    """Where it stands, as UTF-8 if it is text"""
    kind: TableKind
    quote: str | None = '"'
    """Of delimited text"""
    names: tuple[str, ...] | None = None
    """Of the columns of delimited text without a header"""

    @property
    def separator(self) -> str:
        """Of delimited text."""
        return _SEPARATOR_OF[self.kind]

    def scan(self) -> pl.LazyFrame:
        """Its rows; of delimited text all columns are strings, empty values null, and empty lines no rows.

        Raises:
            SourceError: if delimited text is empty, or its header has another separator.
        """
        if self.kind == "parquet":
            return pl.scan_parquet(self.path)
        if self.kind == "jsonl":
            return pl.scan_ndjson(self.path, infer_schema_length=None)
        if self.names is None:
            self._check_header()
        rows = pl.scan_csv(
            self.path,
            separator=self.separator,
            quote_char=self.quote,
            has_header=self.names is None,
            schema=None if self.names is None else dict.fromkeys(self.names, pl.String),
            infer_schema=False,
            low_memory=True,
        )
        return rows.filter(pl.any_horizontal(pl.all().is_not_null()))  # Polars makes a row of an empty line.

    def _check_header(self) -> None:
        with self.path.open(encoding="utf-8-sig") as file:
            header = file.readline().rstrip("\n")
        if not header:
            raise SourceError(f"{self.name} is empty: expected a header line with the columns' names.")
        names = Counter(next(csv.reader([header], delimiter=self.separator, quotechar=self.quote), ()))
        twice = [name for name, count in names.items() if name and count > 1]
        if twice:
            raise SourceError(f"{self.name}: its header has the column '{twice[0]}' more than once. Rename the others.")
        others = [name for mark, name in _SEPARATORS.items() if mark in header]
        if self.separator not in header and others:
            fitting = {"commas": ", or name it .csv", "tabs": ", or name it .tsv"}.get(others[0], "")
            raise SourceError(
                f"{self.name}: its header is one column, whose name has {others[0]} ('{header[:60]}'); expected "
                f"columns separated by {_SEPARATORS[self.separator]}. Save the table with these{fitting}."
            )

    def place(self, row: int) -> str:
        """Where the row of that number, from 0, of those of `scan` stands, as people count."""
        if self.kind == "parquet":
            return f"{self.name}, row {row + 1}"
        try:
            return f"{self.name}, line {next(islice(self._lines(), row, None))}"
        except (csv.Error, StopIteration):  # A field beyond Python's limit, or quotes that polars takes otherwise.
            return f"{self.name}, data row {row + 1}"

    def _lines(self) -> Iterator[int]:
        """The line in which each row of `scan` begins."""
        if self.kind == "jsonl":
            with self.path.open("rb") as file:
                yield from (number for number, line in enumerate(file, 1) if line.strip())
            return
        begins, is_header = 1, self.names is None
        for row, last_line in self._rows(strict=False):
            if any(row) and not is_header:
                yield begins
            begins, is_header = last_line + 1, False

    def fault(self) -> str | None:
        """Where the file is not what it should be, in words; None if nothing is found."""
        if self.kind == "parquet":
            return self._fault_of_parquet()
        return self._bad_line_of_json() if self.kind == "jsonl" else self._bad_row()

    def _fault_of_parquet(self) -> str | None:
        try:
            pl.read_parquet_schema(self.path)
        except (pl.exceptions.PolarsError, OSError):
            return f"{self.name} is no Parquet file"
        return None

    def _bad_line_of_json(self) -> str | None:
        first, mixed, texts = dict[str, tuple[str, int]](), dict[str, str](), set[str]()
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    content = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse) if line.strip() else {}
                except ValueError as error:
                    return f"{self.name}: line {number} is not JSON ({error})"
                if not isinstance(content, dict):
                    return f"{self.name}: line {number} holds no JSON object"
                if without_lone_surrogates(line) != line and _is_refused(line):
                    return f"{self.name}: line {number} has half of a surrogate pair (\\ud800 to \\udfff) alone"
                texts.update(field for field, value in content.items() if isinstance(value, str))
                for field, value in content.items():
                    if (kind := _kind(value)) is not None:
                        before, line_before = first.setdefault(field, (kind, number))
                        if kind != before and field not in mixed:
                            mixed[field] = f"line {number} has {kind} as '{field}', line {line_before} {before}"
        # Beside a text polars takes any other kind, as text.
        found = next((what for field, what in mixed.items() if field not in texts), None)
        return None if found is None else f"{self.name}: {found}"

    def _bad_row(self) -> str | None:
        columns = None if self.names is None else len(self.names)
        whose, line = "its header" if self.names is None else "the format", 1
        try:
            for row, last_line in self._rows(strict=False):
                columns = len(row) if columns is None else columns
                if len(row) > columns:
                    return f"{self.name}: line {line} has {len(row)} fields, {whose} {columns}"
                line = last_line + 1
            line = 1
            for _, last_line in self._rows(strict=True):
                line = last_line + 1
        except csv.Error as error:  # Others are a field beyond Python's limit, or quotes that polars may take.
            if "unexpected end" in str(error):
                return f"{self.name}: a quotation mark in line {line} has none that closes it"
        return None

    def _rows(self, strict: bool) -> Iterator[tuple[list[str], int]]:
        """Each row of delimited text, and the line in which it ends."""
        quoting: Literal[0, 3] = csv.QUOTE_NONE if self.quote is None else csv.QUOTE_MINIMAL
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=self.separator, quotechar=self.quote, quoting=quoting, strict=strict)
            for row in rows:
                yield row, rows.line_num


def kind_of_table(path: Path) -> TableKind:
    """The kind of a table by its file's ending.

    Raises:
        SourceError: for any other ending.
    """
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if ending not in _ENDINGS:
        raise SourceError(
            f"{path}: unknown table format '{ending}'; expected one of {', '.join(_ENDINGS)} (or .gz). "
            "Save it as one of these, a spreadsheet as CSV."
        )
    return _ENDINGS[ending]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value of JSON; write null")


def _is_refused(line: bytes) -> bool:
    try:
        pl.read_ndjson(line)
    except pl.exceptions.PolarsError:
        return True
    return False


def _kind(value: Any) -> str | None:
    """Of a value other than text, in words."""
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value))
