"""Tables that benchmarks write into documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from accuracy import RESULTS as GRID
from documents import DOCS, write_tables
from efficiency import RESULTS
from efficiency_tables import tables
from grid.cells import Cell, Results
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


@pytest.mark.parametrize(
    ("run", "llms", "method"),
    [
        ("popularity", (), "popularity"),
        ("ids", (), "ids"),
        ("text", ("minilm",), "residual"),
        ("text-and-ids", ("minilm",), "residual-ids"),
    ],
)
def test_the_readmes_figures_are_those_of_the_grid(run: str, llms: tuple[str, ...], method: str) -> None:
    results = Results(GRID)
    dataset = next(line["dataset"] for line in results.lines.values() if line["dataset_name"] == "ml-100k")
    found = results.of(Cell.of(dataset, llms, method, {"seed": 0}))
    assert found is not None, "the defaults have changed: their cell is missing"
    columns = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "mrr@10", "recall@20", "ndcg@20", "coverage@10")
    shown = re.search(rf"^ demo/runs/{run} +([\d. ]+)$", (DOCS.parent / "README.md").read_text(), re.MULTILINE)
    assert shown is not None
    assert shown[1].split() == [f"{found['test'][column]:.4f}" for column in columns]
