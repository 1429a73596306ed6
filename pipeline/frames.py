"""Data frames of polars and pandas: taken as polars frames, and given back in their kind."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from ssna.columns import ITEM, TIME, USER
from ssna.errors import SourceError

FrameKind = Literal["polars", "pandas"]
FRAME_KINDS: tuple[FrameKind, ...] = get_args(FrameKind)
_TIME_NAMES = (TIME, "datetime", "time", "date")  # RecTools has `datetime`.


def kind_of(given: Any, wanted: Sequence[str]) -> FrameKind:
    """Whose frame it is.

    Args:
        given: anything.
        wanted: columns that it should have, for the message.

    Raises:
        SourceError: if it is no frame of polars or pandas.
    """
    if isinstance(given, pl.DataFrame | pl.LazyFrame):
        return "polars"
    pandas = sys.modules.get("pandas")  # What did not import it cannot have made one of its frames.
    if pandas is not None and isinstance(given, pandas.DataFrame):
        return "pandas"
    raise SourceError(
        f"expected a data frame of polars or pandas with {', '.join(wanted)}; found {type(given).__name__}."
    )


def polars_frame(given: Any, wanted: Sequence[str]) -> pl.DataFrame:
    """A frame as one of polars with these columns; missing values of pandas become null.

    Raises:
        SourceError: if it is no frame, or lacks a column.
    """
    kind = kind_of(given, wanted)
    if isinstance(given, pl.LazyFrame):
        given = given.collect()
    frame: pl.DataFrame = given if kind == "polars" else _of_pandas(given)
    if lacking := [name for name in wanted if name not in frame.columns]:
        raise SourceError(
            f"the frame has no column '{lacking[0]}' (found: {', '.join(frame.columns)}). Rename its own."
        )
    return frame


def interactions_frame(given: Any) -> tuple[pl.DataFrame, str | None]:
    """A frame of interactions as one of polars, and what it calls the column that is `timestamp` here.

    Without a column `timestamp` it is the one of dates, or called timestamp, datetime, time or date, in capitals or
    not; None if there is none, and the order of the rows counts.

    Raises:
        SourceError: if it is no frame, lacks user_id or item_id, or has several such columns.
    """
    frame = polars_frame(given, (USER, ITEM))
    if TIME in frame.columns:
        return frame, TIME
    others = {name: dtype for name, dtype in frame.schema.items() if name not in (USER, ITEM)}
    found = [name for name, dtype in others.items() if dtype in (pl.Date, pl.Datetime) or name.lower() in _TIME_NAMES]
    if len(found) > 1:
        raise SourceError(
            f"the frame has no column '{TIME}', and {len(found)} that may be it ({', '.join(found)}). Rename the right "
            f"one to {TIME}, or leave the others out."
        )
    return (frame.rename({found[0]: TIME}), found[0]) if found else (frame, None)


def in_kind(frame: pl.DataFrame, kind: FrameKind) -> Any:
    """A frame of polars as one of that kind."""
    if kind == "polars":
        return frame
    import pandas

    return pandas.DataFrame(frame.to_dict(as_series=False))


def _of_pandas(frame: Any) -> pl.DataFrame:
    names = [str(name) for name in frame.columns]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise SourceError(f"the frame has the column '{repeated[0]}' more than once. Rename one of them.")
    return pl.DataFrame({name: _column(name, frame.iloc[:, place]) for place, name in enumerate(names)})


def _column(name: str, column: Any) -> pl.Series:
    """A column of pandas, converted whole where its type is one of numbers, times, texts or categories."""
    dtype = column.dtype
    kind, numpy_type = getattr(dtype, "kind", "O"), getattr(dtype, "numpy_dtype", None)
    if hasattr(dtype, "tz"):
        return _column(name, column.dt.tz_convert("UTC").dt.tz_localize(None)).dt.replace_time_zone("UTC")
    if isinstance(dtype, np.dtype) and kind in "biufmM":
        if kind in "mM" and np.datetime_data(dtype)[0] == "s":  # Which polars does not know.
            column = column.astype(f"{kind}8[ms]")
        whole = pl.Series(name, column.to_numpy())
        return whole.fill_nan(None) if kind == "f" else whole
    if kind in "biuf" and numpy_type is not None:  # Of the types that have missing values.
        missing = pl.Series(column.isna().to_numpy(dtype=bool))
        values = pl.Series(column.to_numpy(dtype=numpy_type, na_value=0))
        return pl.select(pl.when(~missing).then(values).alias(name)).to_series()
    if hasattr(dtype, "categories"):
        codes = pl.Series(column.cat.codes.to_numpy().astype(np.int64))
        categories = _column(name, dtype.categories.to_series())
        return categories.gather(pl.select(pl.when(codes >= 0).then(codes)).to_series())
    if isinstance(dtype, np.dtype) or dtype.name not in ("str", "string"):
        return _cells(name, column)
    return pl.Series(name, column.to_numpy(dtype=object, na_value=None), pl.String)


def _cells(name: str, column: Any) -> pl.Series:
    """A column of objects, cell by cell."""
    try:
        return pl.Series(name, [_plain(value) for value in column.tolist()])
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise SourceError(
            f"the column '{name}' has values of several types ({str(error).splitlines()[0]}). Make them one type, or "
            "leave the column out."
        ) from error


def _plain(value: Any) -> Any:
    """A cell without what pandas marks as missing (NaN, NaT, NA), and arrays as lists."""
    if getattr(value, "ndim", 0):
        return value.tolist()
    missing = type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    return None if missing else value
