"""Timestamps of any common form as milliseconds since 1970, UTC."""

from __future__ import annotations

import re
import time

import numpy as np
import polars as pl

from ssna.columns import TIME
from ssna.errors import SourceError
from ssna.sources import NO_ORIGIN, Origin, TimestampUnit
from ssna.terminal import count

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
"""In words"""
_START_OF_1990 = 631_152_000_000  # Milliseconds.
_DAY = 86_400_000
_END_OF_9999 = 253_402_300_800  # Seconds.
# Of today's dates, seconds have 10 digits, milliseconds 13, microseconds 16, nanoseconds 19.
_AUTO_BELOW: dict[TimestampUnit, int] = {"s": 10**11, "ms": 10**14, "us": 10**17}


def timestamps_in_ms(
    interactions: pl.LazyFrame, unit: TimestampUnit, date_format: str | None, origin: Origin = NO_ORIGIN
) -> tuple[pl.LazyFrame, str | None]:
    """The interactions with `timestamp` as Int64 milliseconds, and how the source's values were read.

    Args:
        interactions: with `timestamp` as numbers, strings of numbers, date strings, dates, or all null.
        unit: of numbers; auto takes the one in which the largest value is a date before the year 5138.
        date_format: of date strings, in the notation of `strftime`; None recognises ISO 8601.
        origin: of the interactions, for messages.

    Raises:
        SourceError: if some rows have a timestamp and others none, or a value cannot be read.
    """
    column = pl.col(TIME)
    if date_format is not None and interactions.collect_schema()[TIME].is_integer():
        interactions = interactions.with_columns(column.cast(pl.String))  # Dates such as 20200131.
    dtype = interactions.collect_schema()[TIME]
    if dtype == pl.String:
        interactions = interactions.with_columns(pl.when(column.str.strip_chars() != "").then(column.str.strip_chars()))
    first, largest_number, missing, rows = (
        interactions.select(
            column.drop_nulls().first().alias("first"),
            column.cast(pl.Float64, strict=False).max().alias("largest") if not dtype.is_temporal() else pl.lit(0.0),
            column.null_count().alias("missing"),
            pl.len(),
        )
        .collect(engine="streaming")
        .row(0)
    )
    if missing == rows:
        return interactions.with_columns(pl.lit(None, pl.Int64).alias(TIME)), None
    if missing:
        have = "has" if missing == 1 else "have"
        place = origin.place(interactions.select(column.is_null().arg_max()).collect(engine="streaming").item())
        raise SourceError(
            f"{count(missing)} of {count(rows)} interactions {have} no timestamp (the first is {place}). Complete the "
            f"column '{origin.columns.of(TIME)}', or remove it: the order of the rows then counts as the order in time."
        )
    if dtype in (pl.Date, pl.Datetime):
        return interactions.with_columns(column.cast(pl.Datetime("ms")).dt.epoch("ms")), "dates"
    if dtype == pl.String and (date_format is not None or not _is_number(str(first))):
        return interactions.with_columns(_from_dates(str(first), date_format)), "date strings"
    if not dtype.is_numeric() and dtype != pl.String:
        raise SourceError(f"the timestamps are of type {dtype}; expected numbers, dates or date strings.")
    if unit == "auto":
        unit = next((name for name, below in _AUTO_BELOW.items() if abs(largest_number) < below), "ns")
    if abs(largest_number) / _PER_SECOND[unit] > _END_OF_9999:
        raise SourceError(
            f"the timestamp {largest_number:.0f} lies beyond the year 9999 when it is read in {unit}. Say what it is "
            "in, for example --timestamp-unit ms."
        )
    return interactions.with_columns(_from_numbers(_PER_SECOND[unit])), unit


def span_of(times: pl.Series) -> tuple[str, str] | None:
    """The days (ISO 8601, UTC) of the first and the last time in milliseconds; None if there are no times."""
    if times.null_count():
        return None
    days = np.array([times.min(), times.max()], "datetime64[ms]").astype("datetime64[D]")
    return str(days[0]), str(days[1])


def notes_on_times(times: pl.Series, read_as: str | None, unit: TimestampUnit, date_format: str | None) -> list[str]:
    """Sentences on options that had no effect, and on times that few sources have.

    Args:
        times: in milliseconds, or all null.
        read_as: what `timestamps_in_ms` said.
        unit: that was asked for.
        date_format: likewise.
    """
    unused = ["--timestamp-unit"] if unit != "auto" and read_as not in UNITS else []
    if date_format is not None and read_as != "date strings":
        unused.append("--timestamp-format")
    kind = "numbers" if read_as in UNITS else read_as
    where = "a source without times" if kind is None else f"times that are {kind}"
    notes = [f"Without effect on {where}: {', '.join(unused)}."] if unused else []
    span, last = span_of(times), times.max()
    option = {"numbers": ", and --timestamp-unit", "date strings": ", and --timestamp-format"}.get(kind or "", "")
    check = f"Check that the times are in the right column{option}."
    if span is not None and isinstance(last, int):
        if last < _START_OF_1990:
            notes.append(f"All times lie before 1990 (the last is of {span[1]}). {check}")
        elif last > time.time() * 1000 + _DAY:  # Times without a zone may be ahead of UTC.
            notes.append(f"The last time, of {span[1]}, lies in the future. {check}")
    return notes


def unreadable_timestamps(
    interactions: pl.LazyFrame, date_format: str | None, origin: Origin = NO_ORIGIN
) -> str | None:
    """What is wrong with those of the source's timestamps that cannot be read as the first is; None if all can be."""
    given = interactions.select(TIME).collect(engine="streaming")[TIME]
    if given.dtype != pl.String and date_format is None:
        return None
    values = given.cast(pl.String).str.strip_chars()
    if date_format is not None:
        read = values.str.to_datetime(date_format, strict=False)
        expected = f"what --timestamp-format '{date_format}' says"
    elif _is_number(values[0]):
        read, expected = values.cast(pl.Float64, strict=False), f"a number such as the first, {values[0]}"
    else:
        read, expected = values.str.to_datetime(strict=False), f"a date such as the first, '{values[0]}'"
    wrong = read.is_null()
    if not wrong.any():
        return None
    row = int(wrong.arg_max() or 0)
    advice = "say how to read all of them" if date_format is None else "the option; without it ISO 8601 is read"
    return (
        f"{count(int(wrong.sum()))} of {count(len(values))} timestamps cannot be read, first of them '{values[row]}' "
        f"({origin.place(row)}); expected {expected}. Correct them, or {advice}."
    )


def _from_numbers(per_second: int) -> pl.Expr:
    # Whole numbers stay whole: nanoseconds of today have more digits than a float64.
    column = pl.col(TIME)
    whole = column.cast(pl.Int64, strict=False)
    is_whole = whole.cast(pl.Float64) == column.cast(pl.Float64, strict=False)
    exact = whole * 1000 if per_second == 1 else whole // (per_second // 1000)
    rounded = (column.cast(pl.Float64) * (1000 / per_second)).round().cast(pl.Int64)
    return pl.when(is_whole).then(exact).otherwise(rounded).alias(TIME)


def _from_dates(example: str, date_format: str | None) -> pl.Expr:
    strings = pl.col(TIME)
    if date_format is None:
        # Other notations are ambiguous (is 01/02/2020 in January?), so they are never guessed.
        if not re.match(r"\d{4}-\d{2}-\d{2}", example):
            raise SourceError(
                f"the timestamp '{example}' is neither a number nor an ISO 8601 date (2020-01-31). Say how to read "
                "it, for example --timestamp-format '%d/%m/%Y'."
            )
        parsed = strings.str.to_datetime(time_unit="ms", time_zone="UTC", strict=True)
    else:
        parsed = strings.str.to_datetime(date_format, time_unit="ms", strict=True)
    return parsed.dt.epoch("ms").alias(TIME)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
