"""Files with an object a line: JSON Lines, or Python literals as the older files of the McAuley lab have them.

They are read in blocks of lines, and only the fields that are asked for are kept, in Parquet: reviews are mostly text
that nobody asks for, and neither memory nor disk should have to hold it.
"""

from __future__ import annotations

import ast
import codecs
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ssna.errors import SourceError
from ssna.sources.files import SourceFile
from ssna.sources.request import Request
from ssna.text import without_lone_surrogates

_BLOCK = 32 * 2**20
"""Bytes of text that are parsed at a time"""
_BACKSLASH = "\ue05c"
"""Stands for a backslash while polars reads: in the texts of lists it would leave it unescaped, and no JSON behind."""


@dataclass(frozen=True)
class Objects:
    """A file with an object a line."""

    file: SourceFile
    fields: frozenset[str]
    """Of the first object"""
    is_json: bool
    """Whether the first line is JSON; else it is a Python literal"""


def open_objects(request: Request, file: SourceFile) -> Objects:
    """The file, with what its first line says about it.

    Raises:
        SourceError: if that is neither a JSON object nor a Python literal of one.
    """
    number, first = next(_numbered_lines(request, file), (1, ""))
    is_json = True
    try:
        content = json.loads(first)
    except ValueError:
        is_json, content = False, _literal(first, file, number)
    if not isinstance(content, dict):
        raise _no_object(file, number, first)
    return Objects(file, frozenset(content), is_json)


def scan_objects(request: Request, objects: Objects, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """These fields of each object: null where it lacks one or has NaN; lists and objects within a String as their JSON.

    Raises:
        SourceError: if a line is no object, or a field is not of its type; names the line.
    """
    parts = []
    for start, block in _blocks(request, objects.file):
        lines = without_lone_surrogates(block if objects.is_json else _as_json(block, objects.file, start, schema))
        part = request.bench.temporary_file(f"{objects.file.name}.parquet")
        _parse(lines, objects.file, start, schema).write_parquet(part)
        parts.append(part)
    return pl.scan_parquet(parts) if parts else pl.LazyFrame(schema=schema)


def as_list(field: str) -> pl.Expr:
    """A field read as String that held text or a list, as List(String): nested lists in one, without repeats."""
    return pl.col(field).map_batches(_lists, return_dtype=pl.List(pl.String))


def _lists(values: pl.Series) -> pl.Series:
    return pl.Series(values.name, [None if value is None else _list(value) for value in values], pl.List(pl.String))


def _list(value: str) -> list[str]:
    try:
        # Polars leaves a tab and other control characters in the texts of a list as they are.
        content = json.loads(value, strict=False) if value.startswith("[") else value
    except ValueError:  # A text that happens to begin with a bracket.
        content = value
    return list(dict.fromkeys(_flat(content)))


def _flat(content: Any) -> Iterator[str]:
    if isinstance(content, list):
        for part in content:
            yield from _flat(part)
    elif content is not None and str(content).strip():
        yield str(content)


def _blocks(request: Request, file: SourceFile) -> Iterator[tuple[int, bytes]]:
    """Whole lines of some megabytes together, with the number of the first."""
    number, pieces, length = 1, list[bytes](), 0
    for piece in request.text_blocks(file):
        # A byte order mark at the start of the file is no part of the first object.
        pieces.append(piece.removeprefix(codecs.BOM_UTF8) if number == 1 and not pieces else piece)
        length += len(piece)
        if length >= _BLOCK and b"\n" in piece:
            lines, _, rest = b"".join(pieces).rpartition(b"\n")
            yield number, lines
            number += lines.count(b"\n") + 1
            pieces, length = [rest], len(rest)
    if last := b"".join(pieces):
        yield number, last


def _numbered_lines(request: Request, file: SourceFile) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    for start, block in _blocks(request, file):
        yield from _lines_of(block, start)


def _lines_of(block: bytes, start: int) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(block.split(b"\n"), start):
        if line.strip():
            yield number, line.decode()


def _parse(lines: bytes, file: SourceFile, start: int, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    try:
        return _read(lines, schema)
    except pl.exceptions.PolarsError:  # Of a line that is no JSON, has a NaN, or a field of another type.
        kept = _kept_fields(lines, file, start, schema)
    try:
        return _read(b"\n".join(kept.values()), schema)
    except pl.exceptions.PolarsError as error:
        number = _first_refused(kept, schema)
        field, said = _refused_field(kept[number], schema)
        raise SourceError(
            f"{file}: in line {number} the field '{field}' is not as it should be ({said}). Correct it, or download "
            "the file again."
        ) from error


def _read(lines: bytes, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """As polars reads them, but backslashes in the texts of lists and objects stay escaped."""
    if b"\\\\" not in lines:
        return pl.read_ndjson(lines, schema=dict(schema))
    found = pl.read_ndjson(lines.replace(b"\\\\", _BACKSLASH.encode()), schema=dict(schema))
    return found.with_columns(_with_backslashes(name) for name, dtype in schema.items() if dtype == pl.String)


def _with_backslashes(field: str) -> pl.Expr:
    """The field with its backslashes again: escaped where it is a list or an object as JSON."""
    text = pl.col(field)
    as_json = text.str.starts_with("[") | text.str.starts_with("{")
    escaped, plain = (text.str.replace_all(_BACKSLASH, each, literal=True) for each in ("\\\\", "\\"))
    return pl.when(as_json).then(escaped).otherwise(plain).alias(field)


def _refused_field(line: bytes, schema: Mapping[str, pl.DataType]) -> tuple[str, str]:
    """The first field of a line that polars does not take, and what it says."""
    content = json.loads(line)
    for name, dtype in schema.items():
        alone = json.dumps({name: content.get(name)}).encode()
        if (said := _refusal(alone, {name: dtype})) is not None:
            return name, said
    raise AssertionError("a line is refused for one of its fields")


def _kept_fields(lines: bytes, file: SourceFile, start: int, schema: Mapping[str, pl.DataType]) -> dict[int, bytes]:
    """Of each line its fields of `schema` as JSON, by its number.

    Python's json.dumps writes NaN and infinities, which JSON has not; they are null.
    """
    kept = {}
    for number, line in _lines_of(lines, start):
        try:
            content = json.loads(line, parse_constant=lambda name: None)
        except ValueError as error:
            raise SourceError(f"{file}: line {number} is not JSON ({error}). Download the file again.") from error
        if not isinstance(content, dict):
            raise _no_object(file, number, line)
        kept[number] = json.dumps({name: content[name] for name in schema if name in content}).encode()
    return kept


def _first_refused(lines: Mapping[int, bytes], schema: Mapping[str, pl.DataType]) -> int:
    """The number of the first line that polars does not take, of which there is one."""
    numbers = list(lines)
    while len(numbers) > 1:
        half = numbers[: len(numbers) // 2]
        refused = _refusal(b"\n".join(lines[number] for number in half), schema) is not None
        numbers = half if refused else numbers[len(half) :]
    return numbers[0]


def _refusal(lines: bytes, schema: Mapping[str, pl.DataType]) -> str | None:
    """What polars says of lines that it does not take."""
    try:
        pl.read_ndjson(lines, schema=dict(schema))
    except pl.exceptions.PolarsError as error:
        return str(error).strip().splitlines()[0].rstrip(".")
    return None


def _as_json(block: bytes, file: SourceFile, start: int, schema: Mapping[str, pl.DataType]) -> bytes:
    """The fields of `schema` of Python literals as JSON Lines; a blank line stays one."""
    lines = [b""] * (block.count(b"\n") + 1)
    for number, line in _lines_of(block, start):
        content = _literal(line, file, number)
        if not isinstance(content, dict):
            raise _no_object(file, number, line)
        kept = {name: content[name] for name in schema if name in content}
        lines[number - start] = json.dumps(kept, default=str).encode()
    return b"\n".join(lines)


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


def _no_object(file: SourceFile, number: int, line: str) -> SourceError:
    return SourceError(f"{file}: line {number} is no object ('{line.strip()[:40]}'); expected an object a line.")
