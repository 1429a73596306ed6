"""Item texts from templates."""

from __future__ import annotations

import re

import polars as pl
import pytest

from ssna.errors import SourceError
from ssna.text import default_template, text_expression, title_field, without_lone_surrogates

ITEMS = pl.DataFrame(
    {
        "item_id": ["1", "2", "3", "4"],
        "title": ["Toy  Story ", "Fish &amp; Chips", None, " "],
        "genres": [["Comedy", None, "Drama"], [], ["War"], None],
        "year": [1995, 1996, None, None],
    }
)


def render(template: str) -> list[str]:
    return (
        ITEMS.lazy()
        .select(text_expression(template, ITEMS.schema, "items.csv", f"--text '{template}'", "sku").alias("text"))
        .collect()["text"]
        .to_list()
    )


def test_fields_are_filled_in_unescaped_and_white_space_is_one_space() -> None:
    assert render("{title}.\n Genres: {genres} ({year})") == [
        "Toy Story. Genres: Comedy, Drama (1995)",
        "Fish & Chips. Genres: (1996)",
        ". Genres: War ()",
        "",
    ]


def test_control_characters_are_taken_out_and_those_of_white_space_are_spaces() -> None:
    every = "".join(map(chr, range(0xA1)))
    frame = pl.DataFrame(
        {"title": [f"a{chr(code)}b" for code in range(0xA1)] + [f"\x9b{every}", "\x1b\x00", "x \x07 y"]}
    )
    texts = frame.select(text_expression("{title}", frame.schema, "a.csv", "--text").alias("text"))["text"].to_list()
    spaces = {*range(9, 14), 32, 0x85, 0xA0}
    controls = {*range(32), *range(0x7F, 0xA0)} - spaces
    for code, text in enumerate(texts[:-3]):
        assert text == ("a b" if code in spaces else "ab" if code in controls else f"a{chr(code)}b")
    assert texts[-3] == "".join(map(chr, range(33, 0x7F)))
    assert texts[-2:] == ["", "x y"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (r"a\ud800b", "ab"),
        (r"\uDFFF", ""),
        (r"\ud83d\ude00", r"\ud83d\ude00"),
        (r"\ud800\ud83d\ude00\udc00", r"\ud83d\ude00"),
        (r"\ude00\ud83d", ""),
        (r"\\ud800", r"\\ud800"),
        (r"\\\ud800", r"\\"),
        (r"\ud800\n\udc00", r"\n"),
        ("Ů ud800", "Ů ud800"),
    ],
)
def test_json_loses_halves_of_surrogate_pairs_alone(written: str, expected: str) -> None:
    assert without_lone_surrogates(written.encode()).decode() == expected


def test_whole_numbers_stored_as_floats_have_no_point() -> None:
    frame = pl.DataFrame({"year": [2000.0, 1999.5, None], "title": ["a", "b", "c"]})
    texts = (
        frame.lazy()
        .select(text_expression("{title} {year}", frame.schema, "a.csv", "--text").alias("text"))
        .collect()["text"]
    )
    assert texts.to_list() == ["a 2000", "b 1999.5", "c"]


def test_an_item_without_any_value_has_an_empty_text() -> None:
    assert render("Title: {title}") == ["Title: Toy Story", "Title: Fish & Chips", "", ""]


def test_doubled_braces_stand_for_themselves() -> None:
    assert render("{{{title}}}")[1] == "{Fish & Chips}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{brand}",
            "--text '{brand}' names the field 'brand', which is not in items.csv "
            "(found: item_id, title, genres, year).",
        ),
        ("{genre}", "not in items.csv (found: item_id, title, genres, year). Did you mean {genres}?"),
        (
            "{sku}: {title}",
            "--text '{sku}: {title}' names 'sku', the column of the items' ids. Write {item_id} for it.",
        ),
        (
            "no field",
            "--text 'no field' names no field of items.csv (found: item_id, title, genres, year). Write those that "
            "make the text in braces, such as {title}.",
        ),
        ("{title", "--text '{title' is malformed"),
        ("{title:>9}", "--text '{title:>9}' formats 'title'; write a field as {title} alone"),
        ("{title!r}", "--text '{title!r}' formats 'title'"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template: str, message: str) -> None:
    with pytest.raises(SourceError, match=re.escape(message)):
        render(template)


def test_nested_records_are_refused() -> None:
    frame = pl.DataFrame({"details": [{"a": 1}]})
    with pytest.raises(SourceError, match="'details' holds nested records"):
        text_expression("{details}", frame.schema, "a.csv", "--text")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["year", "movie_title", "title"], "title"),
        (["name", "movie_title"], "movie_title"),
        (["brand", "product_name"], "product_name"),
        (["Title"], "Title"),
        (["year"], None),
    ],
)
def test_the_title_is_the_field_that_is_called_so(fields: list[str], expected: str | None) -> None:
    assert title_field(fields) == expected


def test_without_a_title_the_template_must_be_given() -> None:
    assert default_template(["year", "movie_title"]) == "{movie_title}"
    with pytest.raises(SourceError, match=r"no field looks like a title \(found: year, brand\).*--text '{year}'"):
        default_template(["year", "brand"])
