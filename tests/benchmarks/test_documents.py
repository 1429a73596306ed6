"""Tables that benchmarks write into documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from documents import DOCS, write_tables
from efficiency import RESULTS
from efficiency_tables import tables
from lines import Lines


def test_each_table_goes_between_its_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.md"
    path.write_text("One\n<!-- measured: a -->old\n<!-- end of a -->\ntwo\n<!-- measured: b -->\n\n<!-- end of b -->\n")
    write_tables(path, {"b": "| B |", "c": "| C |", "a": "| A |"})
    assert capsys.readouterr().err == "page.md has no place for: c\n"
    expected = (
        "One\n<!-- measured: a -->\n\n| A |\n\n<!-- end of a -->\n"
        "two\n<!-- measured: b -->\n\n| B |\n\n<!-- end of b -->\n"
    )
    assert path.read_text() == expected
    write_tables(path, {"a": "| A |"})
    assert path.read_text() == expected


def test_without_its_second_mark_a_table_is_refused_and_the_document_stays(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("<!-- measured: a -->\nwhat would be lost\n")
    with pytest.raises(ValueError, match="page.md has no <!-- end of a --> after <!-- measured: a -->"):
        write_tables(path, {"a": "| A |"})
    assert path.read_text() == "<!-- measured: a -->\nwhat would be lost\n"


def test_nothing_is_written_where_no_document_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tables(tmp_path / "page.md", {"a": "| A |"})
    assert capsys.readouterr().err == "page.md has no place for: a\n"
    assert not (tmp_path / "page.md").exists()


def test_the_document_has_the_tables_of_the_results() -> None:
    document = (DOCS / "efficiency.md").read_text()
    for name, table in tables(Lines(RESULTS)).items():
        assert f"<!-- measured: {name} -->\n\n{table}\n\n" in document, "run `python benchmarks/efficiency.py table`"
