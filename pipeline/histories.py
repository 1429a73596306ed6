"""Histories of users whom a run does not know, out of a table, a frame or a mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ssna.columns import ITEM, ITEM_INDEX, TIME, USER
from ssna.errors import RunError, SourceError, no_list
from ssna.runs import Run
from ssna.sources import id_strings, id_text, read_histories_table, workbench
from ssna.stage2_adapt import Sequences
from ssna.terminal import counted
from ssna.timestamps import timestamps_in_ms

Histories = Path | str | pl.DataFrame | Mapping[str, Sequence[str | int]] | Mapping[int, Sequence[str | int]]
"""A table's file, a frame or a mapping from users to items, oldest first"""

_SHOWN_ITEMS = 5


def read_histories(given: Histories, run: Run) -> tuple[pl.Series, Sequences]:
    """The users in the order in which they come, and their histories as the run's item indices.

    Args:
        given: a file or frame has the columns user_id and item_id, oldest first or with a timestamp; a mapping has the
            items of each user, oldest first.
        run: opened.

    Raises:
        SourceError: if they cannot be read.
        RunError: if the run lacks an item of them.
    """
    if isinstance(given, Mapping):
        rows = _rows_of_mapping(given)
    elif isinstance(given, pl.DataFrame):
        rows = _rows_of_frame(given)
    elif isinstance(given, Path | str):
        rows = _rows_of_file(Path(given))
    else:  # Nobody's types are checked in a notebook.
        found = type(given).__name__  # type: ignore[unreachable]
        raise SourceError(f"the histories are of type {found}; expected a file, a frame of polars or a mapping.")
    what = str(given) if isinstance(given, Path | str) else "the histories"
    for name in (USER, ITEM):
        if lacking := rows[name].null_count():
            first = int(rows[name].is_null().arg_max() or 0) + 1
            number = counted(lacking, "row")
            raise SourceError(f"{what}: found {number} without {name} (the first is row {first}). Complete the column.")
    if not len(rows):
        raise SourceError(f"{what}: there is no row. Expected one for each item of a history.")
    rows = rows.join(run.items.select(ITEM, ITEM_INDEX), on=ITEM, how="left", maintain_order="left")
    _check_known(rows.filter(pl.col(ITEM_INDEX).is_null())[ITEM].unique(maintain_order=True), run)
    in_time = pl.col(ITEM_INDEX).sort_by(TIME, maintain_order=True)
    histories = rows.group_by(USER, maintain_order=True).agg(in_time)
    starts = np.concatenate([[0], np.cumsum(histories[ITEM_INDEX].list.len().to_numpy().astype(np.int64))])
    return histories[USER], Sequences(histories[ITEM_INDEX].explode().to_numpy().astype(np.int64), starts)


def _check_known(lacking: pl.Series, run: Run) -> None:
    if not len(lacking):
        return
    number, others = counted(len(lacking), "item"), len(lacking) - _SHOWN_ITEMS
    more = f" and {others:,} more" if others > 0 else ""
    raise RunError(
        f"the histories have {number} that {run.path} has not ({', '.join(lacking.head(_SHOWN_ITEMS))}{more}). Leave "
        "these rows out, or add the items first (`ssna add-items`)."
    )


def _rows_of_mapping(given: Mapping[Any, Any]) -> pl.DataFrame:
    users, items = list[str](), list[str]()
    for user, history in given.items():
        if what := no_list(history) or ("" if len(history) else "empty"):
            raise SourceError(f"the history of user '{user}' is {what}; expected a list of item ids, oldest first.")
        users += [id_text(user)] * len(history)
        items += map(id_text, history)
    rows = pl.DataFrame({USER: users, ITEM: items}, schema={USER: pl.String, ITEM: pl.String})
    return rows.with_columns(pl.lit(None, pl.Int64).alias(TIME))


def _rows_of_frame(given: pl.DataFrame) -> pl.DataFrame:
    try:
        return _rows_of_table(given.lazy(), "the frame of histories").collect()
    except pl.exceptions.PolarsError as error:
        raise SourceError(f"the frame of histories cannot be read: {str(error).splitlines()[0]}.") from error


def _rows_of_file(path: Path) -> pl.DataFrame:
    with workbench() as bench:
        try:
            return _rows_of_table(read_histories_table(path, bench), str(path)).collect()
        except pl.exceptions.PolarsError as error:
            raise SourceError(f"{path} cannot be read as a table: {bench.what_is_wrong(error)}.") from error


def _rows_of_table(table: pl.LazyFrame, what: str) -> pl.LazyFrame:
    """user_id and item_id as strings, and timestamp in milliseconds; null where the order of rows counts."""
    schema = table.collect_schema()
    for name in (USER, ITEM):
        if name not in schema:
            raise SourceError(
                f"{what} has no column '{name}' (found: {', '.join(schema)}). Rename its own to user_id and item_id."
            )
    ids = [id_strings(name, schema[name]).alias(name) for name in (USER, ITEM)]
    if TIME not in schema:
        return table.select(*ids, pl.lit(None, pl.Int64).alias(TIME))
    try:
        return timestamps_in_ms(table.select(*ids, TIME), "auto", None)[0]
    except SourceError as error:
        raise SourceError(
            f"{what}: the column timestamp has values that are missing, or neither numbers nor ISO 8601 dates. Correct "
            "them, or leave the column out: the order of the rows then counts."
        ) from error
