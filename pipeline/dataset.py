"""Dataset folders: items.parquet, interactions.parquet and dataset.json (docs/datasets.md)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ssna.columns import ITEM, TEXT, TIME, USER
from ssna.errors import DatasetError
from ssna.folders import filling
from ssna.rendering import with_titles
from ssna.text import text_expression

ITEMS_FILE = "items.parquet"
INTERACTIONS_FILE = "interactions.parquet"
DESCRIPTION_FILE = "dataset.json"
# dataset.json comes last: it marks a folder as complete.
DATASET_FILES = (ITEMS_FILE, INTERACTIONS_FILE, DESCRIPTION_FILE)

_ITEM_COLUMNS = {ITEM: pl.String(), TEXT: pl.String()}
_INTERACTION_COLUMNS = {USER: pl.String(), ITEM: pl.String(), TIME: pl.Int64()}
_ROWS_AT_ONCE = 100_000
_TEXTS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Dataset:
    """A dataset folder."""

    path: Path
    name: str
    fingerprint: str
    """SHA-256 of the rows: of the items' ids and texts, and of the interactions in their order"""
    description: Mapping[str, Any]
    """The whole of dataset.json"""

    @property
    def steps(self) -> Sequence[Mapping[str, Any]]:
        """The cleaning steps, each with `name`, `before` and `after`; counts are `interactions`, `users`, `items`."""
        steps: Sequence[Mapping[str, Any]] = self.description["steps"]
        return steps

    def items(self) -> pl.DataFrame:
        """item_id, text and title of every item, interacted or not, in the source's order."""
        return with_titles(read_items(self.path), self.description.get("title_field"))

    def texts(self, template: str) -> pl.DataFrame:
        """item_id of every item, and its text by a template; see `text_of_items`."""
        frame = read_items(self.path)
        return frame.select(ITEM, text_of_items(template, frame.schema, self.path / ITEMS_FILE))

    def interactions(self) -> pl.DataFrame:
        """user_id, item_id and timestamp (milliseconds, or null), ordered by user and time."""
        return _read(self.path / INTERACTIONS_FILE, _INTERACTION_COLUMNS)


def is_dataset(path: Path) -> bool:
    """Whether a folder holds a dataset, or nothing but what a crash left of one."""
    try:
        return bool(open_dataset(path).fingerprint)
    except DatasetError:
        return all(entry.name in DATASET_FILES or entry.name.startswith(".tmp-") for entry in path.iterdir())


def open_dataset(path: Path) -> Dataset:
    """The dataset in a folder.

    Raises:
        DatasetError: if the folder is missing or is no dataset.
    """
    _check_folder(path)
    file = path / DESCRIPTION_FILE
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        return Dataset(path, description["name"], description["fingerprint"], description)
    except FileNotFoundError as error:
        raise DatasetError(f"{path} has no {DESCRIPTION_FILE}; expected a folder made by `ssna prepare`.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{file} is damaged ({error!r}); run `ssna prepare` again.") from error


def read_items(path: Path) -> pl.DataFrame:
    """items.parquet of a dataset folder, all columns; needs no other file.

    Raises:
        DatasetError: if it is missing, lacks a column, or names an item twice.
    """
    _check_folder(path)
    frame = _read(path / ITEMS_FILE, _ITEM_COLUMNS, keep_others=True)
    repeated = frame.filter(pl.col(ITEM).is_duplicated())[ITEM]
    if len(repeated):
        raise DatasetError(f"{path / ITEMS_FILE} has the item '{repeated[0]}' more than once; item_id is unique.")
    return frame


def text_of_items(template: str | None, schema: pl.Schema, where: Path, what: str = "--text") -> pl.Expr:
    """The text by which items of items.parquet are read: their own, or that of a template over their fields.

    Where the template gives nothing, as for an item without a description, it is their own too.

    Args:
        template: None means their own text.
        schema: the fields there are.
        where: the file that has them, for error messages.
        what: where the template comes from, likewise.

    Raises:
        SourceError: see `text_expression`.
    """
    own = pl.col(TEXT)
    if template is None:
        return own
    rendered = text_expression(template, schema, str(where), f"{what} '{template}'")
    return pl.when(rendered != "").then(rendered).otherwise(own).alias(TEXT)


def item_texts(path: Path, template: str | None = None) -> Callable[[], Iterator[tuple[Sequence[str], Sequence[str]]]]:
    """The texts of a dataset folder and their items' ids, in blocks; items without text are passed over.

    Args:
        path: the dataset folder.
        template: see `text_of_items`.

    Raises:
        DatasetError: if items.parquet is missing or lacks a column, or no item has a text.
        SourceError: if the template does not fit its fields.
    """
    _check_folder(path)
    every = _scan(path / ITEMS_FILE, _ITEM_COLUMNS)
    text = text_of_items(template, every.collect_schema(), path / ITEMS_FILE)
    rows = every.select(pl.when(pl.col(TEXT) != "").then(text).otherwise(pl.lit("")).alias(TEXT), ITEM)
    if not rows.select((pl.col(TEXT) != "").any()).collect(engine="streaming").item():
        raise DatasetError(f"{path} has no item with a text; there is nothing to extract.")
    count = rows.select(pl.len()).collect().item()

    def blocks() -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        for start in range(0, count, _TEXTS_AT_ONCE):
            block = rows.slice(start, _TEXTS_AT_ONCE).filter(pl.col(TEXT) != "").collect()
            yield block[TEXT].to_list(), block[ITEM].to_list()

    return blocks


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        found = "is a file" if path.exists() else "does not exist"
        raise DatasetError(f"the dataset folder {path} {found}; expected a folder made by `ssna prepare`.")


def _read(file: Path, columns: Mapping[str, pl.DataType], keep_others: bool = False) -> pl.DataFrame:
    rows = _scan(file, columns)
    return (rows if keep_others else rows.select(list(columns))).collect()


def _scan(file: Path, columns: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """The rows of a Parquet file that was found to have these columns, without nulls but for the time."""
    if not file.is_file():
        raise DatasetError(f"{file.parent} has no {file.name}; expected a folder made by `ssna prepare`.")
    try:
        schema = pl.read_parquet_schema(file)
        rows = pl.scan_parquet(file)
        present = [name for name in columns if name in schema and name != TIME]
        nulls = rows.select(pl.col(present).null_count()).collect(engine="streaming").row(0, named=True)
    except Exception as error:  # Polars raises errors of several types for damaged files.
        raise DatasetError(f"{file} cannot be read as Parquet ({error}); run `ssna prepare` again.") from error
    for name, dtype in columns.items():
        if schema.get(name) != dtype:
            found = f"as {schema[name]}" if name in schema else f"not at all (it has {', '.join(schema)})"
            raise DatasetError(f"{file} has the column '{name}' {found}; expected it as {dtype}.")
    for name, count in nulls.items():
        if count:
            raise DatasetError(f"{file} has {count} rows without '{name}'; every row needs one.")
    return rows


def write_dataset(path: Path, items: pl.DataFrame, interactions: pl.LazyFrame, description: dict[str, Any]) -> None:
    """Write the three files, all or none; other files in the folder stay.

    Args:
        path: the dataset folder.
        items: item_id, text and the source's fields.
        interactions: user_id, item_id and timestamp, in their final order.
        description: the rest of dataset.json.
    """
    with filling(path, DATASET_FILES) as folder:
        items.write_parquet(folder / ITEMS_FILE)
        interactions.sink_parquet(folder / INTERACTIONS_FILE)
        fingerprint = _fingerprint(items, pl.scan_parquet(folder / INTERACTIONS_FILE))
        content = {"name": description["name"], "fingerprint": fingerprint, **description}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")


def copy_dataset(path: Path, to: Path) -> None:
    """Copy the three files to a folder, all or none."""
    with filling(to, DATASET_FILES) as folder:
        for name in DATASET_FILES:
            shutil.copy2(path / name, folder / name)


def move_dataset(path: Path, to: Path) -> None:
    """Move the three files to a folder of the same file system, in place of those of their names, all or none."""
    with filling(to, DATASET_FILES) as folder:
        for name in DATASET_FILES:
            (path / name).replace(folder / name)


def _fingerprint(items: pl.DataFrame, interactions: pl.LazyFrame) -> str:
    """SHA-256 of the rows: of each column's values in turn, block by block, each value with its length."""
    digest = hashlib.sha256()
    _add_rows(digest, items.lazy().select(ITEM, TEXT))
    _add_rows(digest, interactions.select(USER, ITEM, TIME))
    return digest.hexdigest()


def _add_rows(digest: hashlib._Hash, rows: pl.LazyFrame) -> None:
    count = rows.select(pl.len()).collect().item()
    digest.update(np.int64(count).astype("<i8").tobytes())
    for start in range(0, count, _ROWS_AT_ONCE):
        block = rows.slice(start, _ROWS_AT_ONCE).collect()
        for column in block:
            if column.dtype == pl.String:
                digest.update(column.str.len_bytes().to_numpy().astype("<u4").tobytes())
                digest.update("".join(column).encode())
            else:
                digest.update(column.is_null().to_numpy().tobytes())
                digest.update(column.fill_null(0).to_numpy().astype("<i8").tobytes())
