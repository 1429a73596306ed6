"""Files with an object a line: JSON Lines, or Python literals as the older files of the McAuley lab have them."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ssna.errors import SourceError
from ssna.sources.files import SourceFile
from ssna.sources.request import Request
from ssna.sources.tables import Table


@dataclass(frozen=True)
class Objects:
    """A file with an object a line."""

    file: SourceFile
    path: Path
    """Where its text stands, as UTF-8"""
    fields: frozenset[str]
    """Of the first object"""
    is_json: bool
    """Whether the first line is JSON; else it is a Python literal"""


def open_objects(request: Request, file: SourceFile) -> Objects:
    """The file, with what its first line says about it.

    Raises:
        SourceError: if that is neither a JSON object nor a Python literal of one.
    """
    path = request.text(file)
    first = next(_lines(path), (1, ""))[1]
    is_json = True
    try:
        content = json.loads(first)
    except ValueError:
        is_json, content = False, _literal(first, file, 1)
    if not isinstance(content, dict):
        raise SourceError(f"{file}: the first line is no object ('{first.strip()[:40]}'); expected an object a line.")
    return Objects(file, path, frozenset(content), is_json)


def scan_objects(request: Request, objects: Objects, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """These fields of each object: null where it lacks one; lists and objects within a String as their JSON.

    Raises:
        SourceError: if a line of a file of Python literals is none; names it.
    """
    path = objects.path
    if not objects.is_json:
        path = request.bench.temporary_file(objects.file.name)
        _write_as_json(objects, path, schema)
    return request.bench.remember(Table(str(objects.file), path, "jsonl", schema=schema)).scan()


def as_list(field: str) -> pl.Expr:
    """A field read as String that held text or a list, as List(String): nested lists in one, without repeats."""
    return pl.col(field).map_batches(_lists, return_dtype=pl.List(pl.String))


def _lists(values: pl.Series) -> pl.Series:
    return pl.Series(values.name, [None if value is None else _list(value) for value in values], pl.List(pl.String))


def _list(value: str) -> list[str]:
    try:
        content = json.loads(value) if value.startswith("[") else value
    except ValueError:  # A text that happens to begin with a bracket.
        content = value
    return list(dict.fromkeys(_flat(content)))


def _flat(content: Any) -> Iterator[str]:
    if isinstance(content, list):
        for part in content:
            yield from _flat(part)
    elif content is not None and str(content).strip():
        yield str(content)


def _write_as_json(objects: Objects, path: Path, schema: Mapping[str, pl.DataType]) -> None:
    """Write the fields of `schema` as JSON Lines, so that the rest (such as the reviews' text) takes no space."""
    with path.open("w", encoding="utf-8") as out:
        for number, line in _lines(objects.path):
            content = _literal(line, objects.file, number)
            if not isinstance(content, dict):
                raise SourceError(f"{objects.file}: line {number} is no object; expected an object a line.")
            out.write(json.dumps({name: content[name] for name in schema if name in content}, default=str) + "\n")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _literal(line: str, file: SourceFile, number: int) -> Any:
    try:
        with warnings.catch_warnings():
            # A backslash before any letter is what the text has; Python warns of it.
            warnings.simplefilter("ignore")
            return ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise SourceError(
            f"{file}: line {number} is neither JSON nor a Python literal ('{line.strip()[:40]}'). Download the file "
            "again, or take it from where the format's documentation says (docs/datasets.md)."
        ) from error
