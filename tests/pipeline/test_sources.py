"""Each source format, from files as their publishers write them."""

from __future__ import annotations

import gzip
import hashlib
import random
import tarfile
import zipfile
from pathlib import Path

import polars as pl
import pytest

from ssna import Columns, Dataset, prepare
from ssna.errors import SourceError
from ssna.sources.bundle import open_bundle
from ssna.sources.files import SourceFile, workbench

# RecBole's atomic files: https://recbole.io/docs/user_guide/data/atomic_files.html
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t10\t4\t30\n1\t20\t5\t10\n2\t10\t3\t20\n"
ITEM = 'item_id:token\tmovie_title:token_seq\tclass:token_seq\n10\tToy "Story\tAnimation Comedy\n20\tHeat\tAction\n'
ROWS = [("1", "20", 10_000), ("1", "10", 30_000), ("2", "10", 20_000)]
TEXTS = {"10": 'Toy "Story', "20": "Heat"}


def texts(dataset: Dataset) -> dict[str, str]:
    return dict(dataset.items().select("item_id", "text").rows())


def write_recbole(folder: Path, name: str = "tiny") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.inter").write_text(INTER)
    (folder / f"{name}.item").write_text(ITEM)
    return folder


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_recbole_atomic_files(tmp_path: Path, packed: bool) -> None:
    source = write_recbole(tmp_path / "tiny")
    if packed:
        source = tmp_path / "tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(source, "w") as archive:
            for path in (tmp_path / "tiny").iterdir():
                archive.write(path, f"package/data/{path.name}")
    dataset = prepare(source, tmp_path / "out", format="recbole")
    assert dataset.name == "tiny"
    assert dataset.interactions().rows() == ROWS
    assert texts(dataset) == TEXTS
    raw = pl.read_parquet(dataset.path / "items.parquet")
    assert raw.columns == ["item_id", "text", "movie_title", "class"]
    hashes = set(dataset.description["source"]["sha256"].values())
    assert hashes == {hashlib.sha256(content.encode()).hexdigest() for content in (INTER, ITEM)}


@pytest.mark.parametrize("packed", ["log.csv", "log.csv.gz", "log.zip", "log.tar"])
def test_progress_goes_to_the_end_of_a_file(tmp_path: Path, packed: str) -> None:
    path, content = tmp_path / "log.csv", random.Random(0).randbytes(2 * 10**6).hex().encode()
    path.write_bytes(content)
    file, num_bytes = SourceFile(path), len(content)
    if packed.endswith(".gz"):
        file = SourceFile(tmp_path / packed)
        file.path.write_bytes(gzip.compress(content))
        num_bytes = file.path.stat().st_size
    elif packed != "log.csv":
        place = tmp_path / packed
        with zipfile.ZipFile(place, "w") if packed.endswith("zip") else tarfile.open(place, "w") as archive:
            (archive.write if isinstance(archive, zipfile.ZipFile) else archive.add)(path, "log.csv")
        (file,) = open_bundle(place, "a log").files
    seen = list[tuple[str, int, int]]()
    with workbench(lambda *values: seen.append(values)) as bench:
        assert b"".join(bench.text_blocks(file, "utf-8")) == content
    assert {(name, total) for name, _, total in seen} == {(file.name, num_bytes)}
    done = [done for _, done, _ in seen]
    assert done == sorted(done)
    assert done[-1] == num_bytes
    assert len(set(done)) >= 3


def test_recbole_sources_with_several_datasets_need_a_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_recbole(tmp_path / "both", name)
    with pytest.raises(SourceError, match=r"holds 2 datasets \(one, two\). Choose one with --name"):
        prepare(tmp_path / "both", tmp_path / "out", format="recbole")
    assert prepare(tmp_path / "both", tmp_path / "out", format="recbole", name="two").name == "two"


@pytest.mark.parametrize(
    ("inter", "message"),
    [
        pytest.param("user_id\titem_id:token\n1\t2\n", r"header 'user_id' is not name:type", id="untyped"),
        pytest.param("user_id:text\titem_id:token\n", r"header 'user_id:text' is not name:type", id="type"),
        pytest.param("u:token\titem_id:token\n1\t10\n", r"no column 'user_id' \(found: u, item_id\)", id="name"),
        pytest.param("", "is empty: expected a header line", id="empty"),
        pytest.param("user_id:token\titem_id:token\n", "holds no interaction", id="no-rows"),
    ],
)  # fmt: skip
def test_recbole_files_that_are_not_as_they_should_be(tmp_path: Path, inter: str, message: str) -> None:
    write_recbole(tmp_path / "tiny")
    (tmp_path / "tiny" / "tiny.inter").write_text(inter)
    with pytest.raises(SourceError, match=message):
        prepare(tmp_path / "tiny", tmp_path / "out", format="recbole")
    assert not (tmp_path / "out").exists()


def test_recbole_needs_item_texts(tmp_path: Path) -> None:
    write_recbole(tmp_path / "tiny")
    (tmp_path / "tiny" / "tiny.item").unlink()
    with pytest.raises(SourceError, match=r"has tiny\.inter but no tiny\.item"):
        prepare(tmp_path / "tiny", tmp_path / "out", format="recbole")
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="neither a folder nor a zip"):
        prepare(tmp_path / "file", tmp_path / "out", format="recbole")


# Of the form in which https://github.com/GAIR-Lab/IISAN publishes its datasets.
def test_sequences_keep_order_repeats_and_tabs_in_titles(tmp_path: Path) -> None:
    users, items = tmp_path / "users.tsv", tmp_path / "items.tsv"
    users.write_text("u2\tb a  b\r\n\nu1\ta\n")
    items.write_text('a\tA &quot;nail&quot;\tset\nb\tB "x\nc\tC\n')
    dataset = prepare([users, items], tmp_path / "out", format="sequences")
    assert dataset.interactions().rows() == [
        ("u1", "a", None), ("u2", "b", None), ("u2", "a", None), ("u2", "b", None)
    ]  # fmt: skip
    assert texts(dataset) == {"a": 'A "nail" set', "b": 'B "x', "c": "C"}
    assert dataset.description["timestamps"] is None


def test_sequences_without_a_tab_name_the_line(tmp_path: Path) -> None:
    (tmp_path / "users.tsv").write_text("u1\ta\n\nbroken line\n")
    (tmp_path / "items.tsv").write_text("a\tA\n")
    with pytest.raises(SourceError, match=r"users\.tsv: line 3 has no tab \('broken line'\)"):
        prepare([tmp_path / "users.tsv", tmp_path / "items.tsv"], tmp_path / "out", format="sequences")


TABLE = pl.DataFrame({"who": ["007", "007", "b"], "what": [2, 1, 2], "stars": [4, 5, 3], "when": [3, 1, 2]})
THINGS = pl.DataFrame({"id": [1, 2], "name": ["one, two", "line\nbreak"], "text": ["t1", "t2"]})


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl", "csv.gz", "jsonl.gz"])
def test_tables_of_every_kind_with_columns_named_by_options(tmp_path: Path, ending: str) -> None:
    paths = []
    for name, frame in (("events", TABLE), ("things", THINGS)):
        path = tmp_path / f"{name}.{ending}"
        kind = ending.removesuffix(".gz")
        plain = path if kind == ending else tmp_path / "plain"
        if kind == "parquet":
            frame.write_parquet(plain)
        elif kind == "jsonl":
            frame.write_ndjson(plain)
        else:
            frame.write_csv(plain, separator="," if kind == "csv" else "\t")
        if plain != path:
            path.write_bytes(gzip.compress(plain.read_bytes()))
        paths.append(path)
    with pytest.raises(SourceError, match="columns is a dict; expected ssna.Columns"):
        prepare(paths, tmp_path / "out", format="table", columns={"user": "who"})  # type: ignore[arg-type]
    columns = Columns(user="who", item="what", rating="stars", timestamp="when", items_item="id")
    dataset = prepare(
        paths,
        tmp_path / "out",
        format="table",
        columns=columns,
        text="{name}/{text}",
        min_rating=4,
        timestamp_unit="ms",
    )
    assert dataset.interactions().rows() == [("007", "1", 1), ("007", "2", 3)]
    assert texts(dataset) == {"1": "one, two/t1", "2": "line break/t2"}
    assert dataset.items()["title"].to_list() == ["one, two", "line break"]
    assert pl.read_parquet(dataset.path / "items.parquet")["raw_text"].to_list() == ["t1", "t2"]


def test_tables_of_unknown_kind_or_number_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(
        SourceError, match=r"unknown table format '\.xlsx'; expected one of \.csv.* a spreadsheet as CSV\."
    ):
        prepare([tmp_path / "a.xlsx", tmp_path / "a.xlsx"], tmp_path / "out", format="table")
    with pytest.raises(SourceError, match="takes the interactions' file and the items' file; found 1 before OUT"):
        prepare(tmp_path / "a.csv", tmp_path / "out", format="table")
    with pytest.raises(SourceError, match="there is no such file; expected the interactions' file"):
        prepare([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "out", format="table")


def test_several_files_of_interactions_are_read_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "may.csv").write_text("user_id,item_id,timestamp\nu,1,30\n")
    (tmp_path / "june.jsonl").write_text('{"user_id": "u", "item_id": 2, "timestamp": 10.5}\n')
    (tmp_path / "items.csv").write_text("item_id,title\n1,a\n2,b\n")
    paths = [tmp_path / name for name in ("may.csv", "june.jsonl", "items.csv")]
    dataset = prepare(paths, tmp_path / "out", format="table")
    assert dataset.interactions().rows() == [("u", "2", 10_500), ("u", "1", 30_000)]
    assert dataset.name == "may"
    assert len(dataset.description["source"]["sha256"]) == 3
    for name, content in (("train.tsv", "u\t1 2\n"), ("more.tsv", "u\t1\n"), ("items.tsv", "1\ta\n2\tb\n")):
        (tmp_path / name).write_text(content)
    paths = [tmp_path / name for name in ("train.tsv", "more.tsv", "items.tsv")]
    dataset = prepare(paths, tmp_path / "sequences", format="sequences")
    assert dataset.interactions()["item_id"].to_list() == ["1", "2", "1"]


def test_latin_1_files_are_read_when_said_and_named_when_not(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id\nu,1\n")
    (tmp_path / "movies.csv").write_bytes("item_id,title\n1,Les Misérables\n".encode("latin-1"))
    paths = [tmp_path / "events.csv", tmp_path / "movies.csv"]
    with pytest.raises(SourceError, match=r"movies\.csv is not utf-8 text: byte 0xe9 in line 2.*--encoding latin-1"):
        prepare(paths, tmp_path / "out", format="table")
    assert texts(prepare(paths, tmp_path / "out", format="table", encoding="latin-1")) == {"1": "Les Misérables"}
    for unknown in ("latin-99", "hex"):
        with pytest.raises(SourceError, match=f"--encoding {unknown} is unknown"):
            prepare(paths, tmp_path / "other", format="table", encoding=unknown)


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_bytes(b"\xef\xbb\xbfuser_id,item_id\nu,1\n")
    (tmp_path / "movies.csv").write_bytes(b"\xef\xbb\xbfitem_id,title\n1,Heat\n")
    dataset = prepare([tmp_path / "events.csv", tmp_path / "movies.csv"], tmp_path / "out", format="table")
    assert dataset.interactions()["user_id"].to_list() == ["u"]
    (tmp_path / "users.tsv").write_bytes(b"\xef\xbb\xbfu\t1\n")
    (tmp_path / "items.tsv").write_bytes(b"\xef\xbb\xbf1\tHeat\n")
    dataset = prepare([tmp_path / "users.tsv", tmp_path / "items.tsv"], tmp_path / "two", format="sequences")
    assert dataset.interactions().rows() == [("u", "1", None)]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_empty_lines_of_delimited_text_are_passed_over(tmp_path: Path, ending: str) -> None:
    events, items = "user_id,item_id\n\nu,1\n,\nu,2\n\n\n", "item_id\ttitle\n\n1\ta\n2\t\n\n"
    paths = []
    for name, content in (("events.csv", events), ("items.tsv", items)):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content.replace("\n", ending).encode())
    dataset = prepare(paths, tmp_path / "out", format="table", drop_empty=True)
    assert dataset.interactions()["item_id"].to_list() == ["1"]
    assert texts(dataset) == {"1": "a", "2": ""}
    (tmp_path / "events.csv").write_text("user_id,item_id\n\nu,1\nu,\n")
    with pytest.raises(SourceError, match="1 interaction has no item_id"):
        prepare(paths, tmp_path / "other", format="table")


@pytest.mark.parametrize(
    ("events", "items", "message"),
    [
        (
            "user_id,item_id\nu,1\nu,1,9\n",
            "item_id,title\n1,a\n",
            r"events\.csv\.gz: line 3 has 3 fields, its header 2",
        ),
        (
            "user_id,item_id\nu,1\n",
            'item_id,title\n1,"a\nb"\n2,c,d\n',
            r"items\.csv: line 4 has 3 fields, its header 2",
        ),
        (
            "user_id;item_id\nu;1\n",
            "item_id,title\n1,a\n",
            r"events\.csv\.gz: its header is one column, whose name has semicolons \('user_id;item_id'\); expected "
            r"columns separated by commas\. Save the table with these\.$",
        ),
        (
            "user_id\titem_id\nu\t1\n",
            "item_id,title\n1,a\n",
            r"one column, whose name has tabs .* Save the table with these, or name it \.tsv\.$",
        ),
        ("", "item_id,title\n1,a\n", r"events\.csv\.gz is empty"),
        (
            "user_id,item_id\nu,1\n",
            'item_id,title\n1,"a\nb"\n2,"c\n3,d\n',
            r"^[^,]*items\.csv: a quotation mark in line 4 has none that closes it\. Correct the file",
        ),
        (
            "user_id,item_id,,,user_id\nu,1,,,v\n",
            "item_id,title\n1,a\n",
            r"events\.csv\.gz: its header has the column 'user_id' more than once",
        ),
        (
            "user_id,item_id,timestamp\nu,1,2020-01-02\nu,1,soon\nu,1,later\n",
            "item_id,title\n1,a\n",
            r"^2 of 3 timestamps cannot be read, first of them 'soon' \(\S+events\.csv\.gz, line 3\); expected a date "
            "such as the first, '2020-01-02'",
        ),
        (
            'user_id,item_id,note\nu,1,"a\nb"\n\n,1,c\n,2,d\n',
            "item_id,title\n1,a\n",
            r"^2 interactions have no user_id \(the first is \S+events\.csv\.gz, line 5\)\. Complete the column "
            r"'user_id'\.$",
        ),
        (
            "user_id,item_id,timestamp\nu,1,1\nu,1,\n",
            "item_id,title\n1,a\n",
            r"^1 of 2 interactions has no timestamp \(the first is \S+events\.csv\.gz, line 3\)\. Complete the column "
            "'timestamp', or remove it",
        ),
        (
            "user_id,item_id\n",
            "item_id,title\n1,a\n",
            r"events\.csv\.gz holds no interaction\. Expected a row for each",
        ),
        ("user_id,item_id\nu,1\n", "item_id,title\n", r"^\S+items\.csv holds no item\. Expected a row for each item"),
        (
            "user_id,item_id\nu,1\n",
            "item_id,title\n1,a\n,b\n",
            r"^\S+items\.csv: 1 item has no item_id \(the first is data row 2\)\. Complete the column 'item_id'\.$",
        ),
    ],
)
def test_a_table_out_of_shape_names_the_file_and_line(tmp_path: Path, events: str, items: str, message: str) -> None:
    (tmp_path / "events.csv.gz").write_bytes(gzip.compress(events.encode()))
    (tmp_path / "items.csv").write_text(items)
    with pytest.raises(SourceError, match=message):
        prepare([tmp_path / "events.csv.gz", tmp_path / "items.csv"], tmp_path / "out", format="table")


def test_a_missing_id_is_named_by_its_file_row_and_own_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("who,what\nu,1\n\nu,1\n")
    (tmp_path / "b.jsonl").write_text('{"who": "u", "what": "1"}\n\n{"who": null, "what": "1"}\n')
    (tmp_path / "items.csv").write_text("what,title\n1,a\n")
    pl.DataFrame({"who": ["u", None], "what": ["1", "1"]}).write_parquet(tmp_path / "c.parquet")
    columns = Columns(user="who", item="what")
    for second, place in (("b.jsonl", "line 3"), ("c.parquet", "row 2")):
        paths = [tmp_path / name for name in ("a.csv", second, "items.csv")]
        with pytest.raises(SourceError) as caught:
            prepare(paths, tmp_path / "out", format="table", columns=columns)
        assert str(caught.value) == (
            f"1 interaction has no user_id (the first is {paths[1]}, {place}). Complete the column 'who'."
        )
    with pytest.raises(SourceError, match="names 'what', the column of the items' ids. Write {item_id} for it"):
        prepare(paths, tmp_path / "out", format="table", columns=columns, text="{what}: {title}")


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_recognised_and_read_when_said(tmp_path: Path, mark: str) -> None:
    paths = [tmp_path / "events.csv", tmp_path / "items.csv"]
    for path, content in zip(paths, ("user_id,item_id\nu,1\n", "item_id,title\n1,Ö\n"), strict=True):
        path.write_bytes(f"\ufeff{content}".encode(mark))
    for encoding in (None, "latin-1"):
        with pytest.raises(SourceError, match=r"events\.csv is UTF-16, not \S+ text\. Give --encoding utf-16 if all"):
            prepare(paths, tmp_path / "out", format="table", encoding=encoding)
    assert texts(prepare(paths, tmp_path / "out", format="table", encoding="utf-16")) == {"1": "Ö"}


def test_broken_json_lines_and_parquet_are_named(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id\nu,1\n")
    for name, content, message in (
        ("a.jsonl", '{"item_id": "1", "title": "a"}\n{"item_id": \n', r"a\.jsonl: line 2 is not JSON"),
        ("b.jsonl", '{"item_id": "1", "title": "a"}\n[1]\n', r"b\.jsonl: line 2 holds no JSON object"),
        (
            "d.jsonl",
            '{"item_id": "1", "title": "a"}\n{"item_id": "2", "n": NaN}\n',
            r"d\.jsonl: line 2 .*\(NaN is no value",
        ),
        (
            "e.jsonl",
            '{"item_id": 1, "title": "a"}\n\n{"item_id": [1]}\n',
            r"line 3 has a list as 'item_id', line 1 a n",
        ),
        (
            "f.jsonl",
            '{"item_id": 1, "title": "a"}\n{"title": "\\ud800\\u0041"}\n',
            r"line 2 has half of a surrogate pair",
        ),
        ("c.parquet", "no Parquet at all", r"c\.parquet is no Parquet file"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(SourceError, match=message):
            prepare([tmp_path / "events.csv", tmp_path / name], tmp_path / "out", format="table")


def test_whole_numbers_stored_as_floats_are_ids_without_a_point(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1.0, 2.0], "item_id": [7.0, 8.0]}).write_parquet(tmp_path / "events.parquet")
    pl.DataFrame({"item_id": [7, 8], "title": ["a", "b"]}).write_parquet(tmp_path / "items.parquet")
    dataset = prepare([tmp_path / "events.parquet", tmp_path / "items.parquet"], tmp_path / "out", format="table")
    assert dataset.interactions().rows() == [("1", "7", None), ("2", "8", None)]


def test_a_damaged_gzip_file_is_one_sentence(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"user_id,item_id\n" + b"u,1\n" * 1000))
    packed[20:30] = bytes(10)
    (tmp_path / "events.csv.gz").write_bytes(packed)
    (tmp_path / "items.csv").write_text("item_id,title\n1,a\n")
    with pytest.raises(SourceError, match=r"events\.csv\.gz is damaged"):
        prepare([tmp_path / "events.csv.gz", tmp_path / "items.csv"], tmp_path / "out", format="table")
