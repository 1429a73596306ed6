"""The dataset folder: what it holds, what is refused, and that nothing is half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ssna import Dataset, prepare
from ssna.cache import DiskFullError
from ssna.dataset import open_dataset, read_items
from ssna.errors import DatasetError, OutputError
from tests.helpers import ssna_in_process


def write_source(folder: Path, users: str, items: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / "users.tsv", folder / "items.tsv"]
    for path, content in zip(paths, (users, items), strict=True):
        path.write_text(content)
    return paths


SOURCE = ("u\ta b c\nv\ta b\nw\td a\n", "a\tA\nb\tB\nc\tC\nd\tD\nunused\tU\na\tagain\n")


def make(tmp_path: Path, source: tuple[str, str] = SOURCE, **options: Any) -> Dataset:
    return prepare(write_source(tmp_path / "source", *source), tmp_path / "out", format="sequences", **options)


def test_all_items_are_kept_interacted_or_not_and_the_first_description_wins(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    assert dataset.items().select("item_id", "text").rows() == [
        ("a", "A"), ("b", "B"), ("c", "C"), ("d", "D"), ("unused", "U")
    ]  # fmt: skip
    assert dataset.description["items_described_again"] == 1


def test_items_whose_descriptions_differ_are_counted_and_said(tmp_path: Path) -> None:
    """Two of `a` and three of `b` differ, in a field that the text has not; those of `c` are the same."""
    pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["a", "b", "c"]}).write_csv(tmp_path / "ratings.csv")
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "a", "b", "c", "b"],
            "title": ["A", "B", "C", "A", "B", "C", "B"],
            "tags": [["x"], ["x"], None, ["y"], ["x"], None, ["z"]],
        }
    )
    items.write_parquet(tmp_path / "items.parquet")
    command = ["prepare", "ratings.csv", "items.parquet", "out", "--format", "table", "--overwrite"]
    printed = ssna_in_process(*command, cwd=tmp_path).stdout
    assert "3 items described (4 more than once: the first description counts)" in printed
    note = (
        "2 items are described again with other values (the first is a). If the first description is not the right "
        "one, mend the items' file."
    )
    assert f"\n{note}\n" in printed
    description = open_dataset(tmp_path / "out").description
    assert description["items_described_otherwise"] == 2
    assert description["notes"] == [note]
    items[[0, 1, 2, 3, 5]].write_parquet(tmp_path / "items.parquet")
    assert (
        "\n1 item is described again with other values (the first is a)."
        in ssna_in_process(*command, cwd=tmp_path).stdout
    )
    items[[0, 1, 2, 4, 5]].write_parquet(tmp_path / "items.parquet")
    printed = ssna_in_process(*command, cwd=tmp_path).stdout
    assert "2 more than once" in printed
    assert "other values" not in printed


def test_k_core_removes_interactions_but_no_items_and_is_counted(tmp_path: Path) -> None:
    dataset = make(tmp_path, min_user=2, min_item=2)
    assert dataset.interactions().select("user_id", "item_id").rows() == [
        ("u", "a"),
        ("u", "b"),
        ("v", "a"),
        ("v", "b"),
    ]
    assert len(dataset.items()) == 5
    assert [step["name"] for step in dataset.steps] == ["source", "at least 2 a user, 2 an item"]
    assert dataset.steps[1]["before"] == {"interactions": 7, "users": 3, "items": 4}
    assert dataset.steps[1]["after"] == {"interactions": 4, "users": 2, "items": 2}


def test_unknown_and_empty_items_are_errors_unless_dropped_and_counted(tmp_path: Path) -> None:
    source = ("u\ta x b\nv\tb y x\n", "a\tA\nb\t \n")
    with pytest.raises(DatasetError, match=r"3 interactions are with 2 unknown items \(x, y\).*--drop-unknown"):
        make(tmp_path, source)
    with pytest.raises(DatasetError, match=r"2 interactions are with 1 items without text \(b\).*--drop-empty"):
        make(tmp_path, source, drop_unknown=True)
    with pytest.raises(DatasetError, match="all 1 interactions are with unknown items .*; the items have .* the int"):
        make(tmp_path, ("u\ta\n", "b\tB\n"))
    with pytest.raises(
        DatasetError, match=r"all 1 interactions are with items without text \(such as b\)\. Name fields"
    ):
        make(tmp_path, ("u\tb\n", "b\t \n"))
    with pytest.raises(DatasetError, match="no interaction is left"):
        make(tmp_path, ("u\tb\n", "b\t \n"), drop_empty=True)
    dataset = make(tmp_path, source, drop_unknown=True, drop_empty=True)
    assert dataset.interactions().rows() == [("u", "a", None)]
    assert [(s["name"], s["after"]["interactions"]) for s in dataset.steps[1:]] == [
        ("unknown items", 3), ("items without text", 1)
    ]  # fmt: skip
    assert dataset.items()["text"].to_list() == ["A", ""]


@pytest.mark.parametrize(
    ("used", "known", "message"),
    [
        (
            ["F001", "F002", "F003"],
            ["F01", "F02", "F03"],
            "all 3 interactions are with unknown items (such as F001, F002); the items have ids such as F01, F02. "
            "Expected the interactions' file first, then the items' file, with the same item ids in both.",
        ),
        (
            ["33.0", "34.0"],
            ["33"],
            "all 2 interactions are with unknown items (such as 33.0, 34.0); the items have ids such as 33. Without "
            "the .0 at their ends they are the same: write ids as whole numbers in both files.",
        ),
        (
            ["33"],
            ["33.0"],
            "all 1 interactions are with unknown items (such as 33); the items have ids such as 33.0. Without the .0 "
            "at their ends they are the same: write ids as whole numbers in both files.",
        ),
    ],
)
def test_ids_that_do_not_fit_are_shown_from_both_sides(
    tmp_path: Path, used: list[str], known: list[str], message: str
) -> None:
    source = (f"u\t{' '.join(used)}\n", "".join(f"{item}\ta\n" for item in known))
    with pytest.raises(DatasetError) as caught:
        make(tmp_path, source)
    assert str(caught.value) == message


def test_the_span_of_the_times_is_told_and_odd_ones_noted(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("user_id,item_id,stars,when\nu,a,1,881250949\nu,a,5,1600000000\n")
    (tmp_path / "items.csv").write_text("item_id,title\na,A\n")
    command = ["prepare", "ratings.csv", "items.csv", "out", "--format", "table", "--overwrite", "--timestamp-column"]
    printed = ssna_in_process(*command, "when", cwd=tmp_path).stdout
    assert ", times read as seconds, 1997-12-04 to 2020-09-13, fingerprint" in printed
    description = open_dataset(tmp_path / "out").description
    assert (description["timestamps"], description["notes"]) == ("s", [])
    assert description["time_span"] == ["1997-12-04", "2020-09-13"]
    printed = ssna_in_process(*command, "stars", "--json", cwd=tmp_path).stdout
    assert json.loads(printed)["notes"] == [
        "All times lie before 1990 (the last is of 1970-01-01). Check that the times are in the right column, and "
        "--timestamp-unit."
    ]
    printed = ssna_in_process(*command, "stars", "--timestamp-unit", "ms", cwd=tmp_path).stdout
    assert ", times read as milliseconds, 1970-01-01 to 1970-01-01, fingerprint" in printed
    assert "\nAll times lie before 1990" in printed


def test_the_fingerprint_is_of_the_rows(tmp_path: Path) -> None:
    first = make(tmp_path, licence="free").fingerprint
    assert make(tmp_path, licence=None, overwrite=True).fingerprint == first
    changed = [
        make(tmp_path, source, overwrite=True).fingerprint
        for source in (
            (SOURCE[0].replace("a b c", "b a c"), SOURCE[1]),
            (SOURCE[0], SOURCE[1].replace("\tU", "\tV")),
            (SOURCE[0].replace("u\ta b c\nv\ta b", "u\ta b c a\nv\tb"), SOURCE[1]),
        )
    ]
    assert len({first, *changed}) == 4


def test_description_says_where_the_rows_came_from(tmp_path: Path) -> None:
    description = json.loads((make(tmp_path, licence="ask first", text="{title}!").path / "dataset.json").read_text())
    assert description["licence"] == "ask first"
    assert description["template"] == "{title}!"
    assert description["source"]["format"] == "sequences"
    assert {Path(name).name for name in description["source"]["sha256"]} == {"users.tsv", "items.tsv"}


def test_a_folder_that_holds_something_is_replaced_only_when_told_and_ours(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(OutputError, match="exists and is not empty.*--overwrite"):
        make(tmp_path)
    make(tmp_path, min_user=3, overwrite=True)
    assert open_dataset(tmp_path / "out").interactions()["user_id"].unique().to_list() == ["u"]
    (tmp_path / "out" / "dataset.json").rename(tmp_path / "out" / "letter-to-mum.txt")
    with pytest.raises(OutputError, match="is no dataset folder, so --overwrite does not touch it"):
        make(tmp_path, overwrite=True)
    assert (tmp_path / "out" / "letter-to-mum.txt").exists()


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    sources = write_source(tmp_path / "all-in-one", *SOURCE)
    with pytest.raises(OutputError, match="is no dataset folder"):
        prepare(sources, tmp_path / "all-in-one", format="sequences", overwrite=True)
    dataset = make(tmp_path)
    (dataset.path / "runs").mkdir()
    make(tmp_path, min_user=3, overwrite=True)
    assert {path.name for path in dataset.path.iterdir()} == {
        "items.parquet", "interactions.parquet", "dataset.json", "runs"
    }  # fmt: skip


def test_the_folder_may_be_a_link_or_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = write_source(tmp_path / "source", *SOURCE)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert len(prepare(sources, tmp_path / "link", format="sequences").interactions()) == 7
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert len(prepare(sources, ".", format="sequences").interactions()) == 7


def test_what_a_crash_left_of_a_dataset_may_be_overwritten(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "out" / "dataset.json").unlink()
    assert len(make(tmp_path, overwrite=True).interactions()) == 7


def test_titles_are_unescaped_and_on_one_line(tmp_path: Path) -> None:
    dataset = make(tmp_path, ("u\ta\n", "a\tFish &amp;  Chips\n"))
    assert dataset.items()["title"].to_list() == ["Fish & Chips"]


def test_damaged_interactions_are_one_sentence(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    path = dataset.path / "interactions.parquet"
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"interactions\.parquet cannot be read as Parquet"):
        dataset.interactions()


def test_a_failed_preparation_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = make(tmp_path).fingerprint

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ssna.dataset._fingerprint", full)
    with pytest.raises(DiskFullError, match="the disk is full"):
        make(tmp_path, min_user=3, overwrite=True)
    assert open_dataset(tmp_path / "out").fingerprint == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist; expected a folder made by `ssna prepare`"):
        open_dataset(tmp_path / "missing")
    with pytest.raises(DatasetError, match=r"has no dataset\.json"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match=r"has no items\.parquet"):
        read_items(tmp_path)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"item_id": ["a"], "title": ["A"]}, r"has the column 'text' not at all \(it has item_id, title\)"),
        ({"item_id": [1], "text": ["A"]}, "has the column 'item_id' as Int64; expected it as String"),
        ({"item_id": ["a", "a"], "text": ["A", "B"]}, "has the item 'a' more than once"),
        ({"item_id": ["a", None], "text": ["A", "B"]}, "has 1 rows without 'item_id'"),
    ],
    ids=["missing", "type", "repeated", "null"],
)
def test_items_that_break_the_contract_are_refused(tmp_path: Path, items: dict[str, list[Any]], message: str) -> None:
    pl.DataFrame(items).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DatasetError, match=message):
        read_items(tmp_path)
    (tmp_path / "items.parquet").write_bytes(b"not parquet")
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        read_items(tmp_path)
