"""Reading delimited text, Parquet and JSON Lines lazily, every value of delimited text as the string it is."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from ssna.errors import SourceError


def scan_delimited(path: Path, separator: str, quote: str | None = '"') -> pl.LazyFrame:
    """A file with a header line; all columns are strings, empty values null."""
    with path.open("rb") as file:
        if not file.readline().strip(b"\xef\xbb\xbf\r\n"):
            raise SourceError(f"{path} is empty: expected a header line with the columns' names.")
    return pl.scan_csv(path, separator=separator, quote_char=quote, infer_schema=False, low_memory=True)


def scan_table(path: Path, kind: str) -> pl.LazyFrame:
    """A table of the given kind: csv, tsv, parquet or jsonl."""
    if kind == "parquet":
        return pl.scan_parquet(path)
    if kind == "jsonl":
        return pl.scan_ndjson(path, infer_schema_length=None)
    return scan_delimited(path, "," if kind == "csv" else "\t")


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
