"""Timestamps of every form."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import polars as pl
import pytest

from ssna.errors import SourceError
from ssna.sources import NO_ORIGIN, TimestampUnit
from ssna.timestamps import notes_on_times, span_of, timestamps_in_ms, unreadable_timestamps


def read(values: list[Any], unit: str = "auto", date_format: str | None = None) -> tuple[list[int | None], str | None]:
    frame, read_as = timestamps_in_ms(pl.LazyFrame({"timestamp": values}), unit, date_format)  # type: ignore[arg-type]
    return frame.collect()["timestamp"].to_list(), read_as


@pytest.mark.parametrize(
    ("values", "unit", "expected", "read_as"),
    [
        pytest.param([881250949, 0], "auto", [881250949000, 0], "s", id="seconds"),
        pytest.param(["881250949", " 12 "], "auto", [881250949000, 12000], "s", id="strings"),
        pytest.param([1577836800123], "auto", [1577836800123], "ms", id="milliseconds"),
        pytest.param([1577836800123999], "auto", [1577836800123], "us", id="microseconds"),
        pytest.param([1577836800123456789], "auto", [1577836800123], "ns", id="nanoseconds"),
        pytest.param(["1577836800123456789"], "auto", [1577836800123], "ns", id="nanosecond-strings"),
        pytest.param([1.5, 2.25], "s", [1500, 2250], "s", id="fractions"),
        pytest.param(["8.81250949e+08"], "auto", [881250949000], "s", id="exponent"),
        pytest.param([1577836800], "ms", [1577836800], "ms", id="unit-given"),
        pytest.param([dt.datetime(2020, 1, 1, 0, 0, 1)], "auto", [1577836801000], "dates", id="datetimes"),
        pytest.param([dt.date(2020, 1, 1)], "auto", [1577836800000], "dates", id="dates"),
        pytest.param(["2020-01-01"], "auto", [1577836800000], "date strings", id="iso-date"),
        pytest.param(["2020-01-01 00:00:01"], "auto", [1577836801000], "date strings", id="iso-with-space"),
        pytest.param(["2020-01-01T01:00:00+01:00"], "auto", [1577836800000], "date strings", id="iso-with-zone"),
        pytest.param([None, None], "auto", [None, None], None, id="none"),
    ],
)
def test_timestamps_become_milliseconds(
    values: list[Any], unit: str, expected: list[int | None], read_as: str | None
) -> None:
    assert read(values, unit) == (expected, read_as)


def test_a_unit_in_which_a_date_lies_beyond_9999_is_refused() -> None:
    with pytest.raises(SourceError, match="1577836800123456768 lies beyond the year 9999 when it is read in s"):
        read([1577836800123456789], "s")
    assert read([253402300799], "s") == ([253402300799000], "s")


def test_other_dates_need_a_format() -> None:
    with pytest.raises(SourceError, match=r"'01/02/2020' is neither a number nor an ISO 8601 date.*--timestamp-format"):
        read(["01/02/2020"])
    assert read(["01/02/2020"], date_format="%d/%m/%Y") == ([1580515200000], "date strings")
    assert read([20200201], date_format="%Y%m%d") == ([1580515200000], "date strings")


def test_a_timestamp_here_and_there_is_an_error() -> None:
    with pytest.raises(
        SourceError, match=r"1 of 3 interactions has no timestamp \(the first is data row 2\). Complete"
    ):
        read([1, None, 3])
    with pytest.raises(SourceError, match="1 of 2 interactions has no timestamp"):
        read(["1", " "])


@pytest.mark.parametrize(
    ("values", "date_format", "message"),
    [
        (["1", "2.5"], None, None),
        ([1, 2], None, None),
        (
            ["1", "x", "2020-01-01"],
            None,
            "2 of 3 TIMES 'x' (data row 2); expected a number such as the first, 1. OTHERS",
        ),
        (
            ["2020-01-01", "2020-13-01"],
            None,
            "1 of 2 TIMES '2020-13-01' (data row 2); expected a date such as the first, '2020-01-01'. OTHERS",
        ),
        (["2020-01-01", " 2020-01-02 "], None, None),
        (
            [20200201, 20201301],
            "%Y%m%d",
            "1 of 2 TIMES '20201301' (data row 2); expected what --timestamp-format '%Y%m%d' says. Correct them, or "
            "the option; without it ISO 8601 is read.",
        ),
        (["01/02/2020"], "%d/%m/%Y", None),
    ],
)
def test_the_first_timestamp_that_cannot_be_read_is_named(
    values: list[object], date_format: str | None, message: str | None
) -> None:
    expected = message and message.replace("TIMES", "timestamps cannot be read, first of them")
    expected = expected and expected.replace("OTHERS", "Correct them, or say how to read all of them.")
    assert unreadable_timestamps(pl.LazyFrame({"timestamp": values}), date_format, NO_ORIGIN) == expected


SECONDS_OF_1990 = 631_152_000
IN_TWO_DAYS = int(time.time()) + 2 * 86_400


@pytest.mark.parametrize(
    ("values", "unit", "date_format", "notes"),
    [
        ([SECONDS_OF_1990], "auto", None, []),
        ([1, SECONDS_OF_1990], "s", None, []),
        (
            [1, SECONDS_OF_1990 - 1],
            "auto",
            None,
            ["All times lie before 1990 (the last is of 1989-12-31). CHECK, and --timestamp-unit."],
        ),
        (
            ["1970-01-01"],
            "auto",
            None,
            ["All times lie before 1990 (the last is of 1970-01-01). CHECK, and --timestamp-format."],
        ),
        ([dt.date(1970, 1, 1)], "auto", None, ["All times lie before 1990 (the last is of 1970-01-01). CHECK."]),
        ([1, IN_TWO_DAYS - 2 * 86_400], "auto", None, []),
        (
            [1, IN_TWO_DAYS],
            "auto",
            None,
            [
                f"The last time, of {dt.datetime.fromtimestamp(IN_TWO_DAYS, dt.UTC):%Y-%m-%d}, lies in the future. "
                "CHECK, and --timestamp-unit."
            ],
        ),
        (["2020-01-01"], "ms", None, ["Without effect on times that are date strings: --timestamp-unit."]),
        (["01/02/2020"], "auto", "%d/%m/%Y", []),
        ([1e9], "s", "%Y", ["Without effect on times that are numbers: --timestamp-format."]),
        (
            [dt.date(2020, 1, 1)],
            "s",
            "%Y",
            ["Without effect on times that are dates: --timestamp-unit, --timestamp-format."],
        ),
        ([None], "s", None, ["Without effect on a source without times: --timestamp-unit."]),
        ([None], "auto", None, []),
    ],
)
def test_notes_on_times_that_are_odd_and_options_without_effect(
    values: list[Any], unit: TimestampUnit, date_format: str | None, notes: list[str]
) -> None:
    times, read_as = read(values, unit, date_format)
    column = pl.Series(times, dtype=pl.Int64)
    expected = [note.replace("CHECK", "Check that the times are in the right column") for note in notes]
    assert notes_on_times(column, read_as, unit, date_format) == expected


def test_the_span_of_times_is_in_days() -> None:
    assert span_of(pl.Series([1577836800000, 86_399_999])) == ("1970-01-01", "2020-01-01")
    assert span_of(pl.Series([None], dtype=pl.Int64)) is None
