"""Each publisher's format, from the small made-up files of `tests.samples`."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

import polars as pl
import pytest

from ssna import Columns, Dataset, prepare
from ssna.errors import SourceError
from ssna.sources import FORMATS, READERS
from tests.samples import (
    GOODBOOKS,
    HEADER,
    METADATA_2014,
    METADATA_2018,
    METADATA_2023,
    MIND,
    ML_1M,
    ML_10M,
    ML_25M,
    ML_100K,
    RECFORMER,
    REVIEWS_2014,
    REVIEWS_2018,
    REVIEWS_2023,
    STEAM_GAMES,
    STEAM_REVIEWS,
    UNISREC,
    YELP,
    write,
    yelp_zip,
    zipped,
)


def texts(dataset: Dataset) -> dict[str, str]:
    return dict(dataset.items().select("item_id", "text").rows())


def fields(dataset: Dataset) -> pl.DataFrame:
    return pl.read_parquet(dataset.path / "items.parquet")


def test_every_format_has_a_reader_and_a_line_of_help() -> None:
    assert tuple(READERS) == FORMATS
    assert all(reader.takes and len(reader.takes) < 90 for reader in READERS.values())


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    ("files", "encoding"),
    [
        pytest.param(ML_100K, "latin-1", id="100k"),
        pytest.param(ML_1M, "latin-1", id="1m"),
        pytest.param(ML_25M, "utf-8", id="20m-25m-32m-latest"),
    ],
)
def test_movielens(tmp_path: Path, files: dict[str, str], encoding: str, packed: bool) -> None:
    source = write(tmp_path / "ml-made-up", files, encoding)
    source = zipped(source) if packed else source
    dataset = prepare(source, tmp_path / "out", format="movielens", text="{title}. Genres: {genres}")
    assert dataset.name == "ml-made-up"
    assert dataset.interactions().rows() == [
        ("186", "302", 891717742_000), ("196", "302", 881250948_000), ("196", "242", 881250949_000)
    ]  # fmt: skip
    assert texts(dataset) == {
        "242": "Les Misérables (1995). Genres: Animation, Children's, Comedy",
        "302": 'L.A. "C" (1997). Genres:',
    }
    rated = prepare(source, tmp_path / "rated", format="movielens", min_rating=3.5).interactions()
    assert len(rated) == (2 if files is ML_25M else 1)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_movielens_10m_has_half_stars_and_utf_8(tmp_path: Path, packed: bool) -> None:
    source = write(tmp_path / "ml-10M100K", ML_10M)
    source = zipped(source) if packed else source
    dataset = prepare(source, tmp_path / "out", format="movielens", text="{title} [{genres}]", min_rating=3.5)
    assert dataset.name == "ml-10M100K"
    assert dataset.interactions().rows() == [("186", "302", 891717742_000), ("196", "302", 881250948_000)]
    assert texts(dataset) == {"242": "Misérables, Les (1995) [Drama, War]", "302": 'L.A. "C" Ō (1997) []'}
    assert len(prepare(source, tmp_path / "all", format="movielens", min_rating=3).interactions()) == 3
    assert len(prepare(source, tmp_path / "none", format="movielens", min_rating=3.6).interactions()) == 1


def test_movielens_folders_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    write(tmp_path / "books", {"ratings.csv": "user_id,book_id\n", "books.csv": "book_id\n"})
    with pytest.raises(SourceError, match=r"has no movies\.csv \(found: books\.csv, ratings\.csv\); expected a folder"):
        prepare(tmp_path / "books", tmp_path / "out", format="movielens")
    write(tmp_path / "photos", {f"{n}.jpg": "" for n in range(10)})
    with pytest.raises(SourceError, match=r"has no ratings \(found: 0\.jpg, .*7\.jpg and 2 more\); expected .*u\."):
        prepare(tmp_path / "photos", tmp_path / "out", format="movielens")
    write(tmp_path / "both" / "ml-20m", ML_25M)
    write(tmp_path / "both" / "ml-25m", ML_25M)
    with pytest.raises(SourceError, match=r"several files ratings\.csv .*Give its own folder"):
        prepare(tmp_path / "both", tmp_path / "out", format="movielens")
    write(tmp_path / "1m", ML_1M | {"ratings.dat": "1::242::3\n"})
    with pytest.raises(SourceError, match=r"ratings\.dat: line 1 has fewer than 3 '::' \('1::242::3'\)"):
        prepare(tmp_path / "1m", tmp_path / "out", format="movielens")
    write(tmp_path / "100k", ML_100K | {"u.data": "1\t242\t3\t8\n1\t242\t3\t8\t9\n"}, "latin-1")
    with pytest.raises(SourceError, match=r"u\.data: line 2 has 5 fields, the format 4"):
        prepare(tmp_path / "100k", tmp_path / "out", format="movielens")
    with pytest.raises(SourceError, match="--format movielens has its own column names"):
        prepare(tmp_path / "100k", tmp_path / "out", format="movielens", columns=Columns(user="u"))
    with pytest.raises(SourceError, match="--format movielens takes a folder or zip of MovieLens; found 2 sources"):
        prepare([tmp_path / "100k", tmp_path / "1m"], tmp_path / "out", format="movielens")


ROWS = [("A2SU", "B0002", 1252700000_000), ("A2SU", "B0001", 1252800000_000)]


@pytest.mark.parametrize(
    ("reviews", "metadata", "template", "expected"),
    [
        pytest.param(
            {"reviews_Toys_5.json.gz": REVIEWS_2014},
            {"meta_Toys.json.gz": METADATA_2014},
            "{title} / {brand} / {categories} / {price} / {description}",
            {
                "B0002": "/ / Toys & Games, Puzzles / /",
                "B0001": 'Girl\'s Tutu\\d / Coxlures / Sports, Other Sports, Dance / 3.17 / A "tutu".',
            },
            id="2014",
        ),
        pytest.param(
            {"ratings_Toys.csv": "A2SU,B0001,5.0,1252800000\nA2SU,B0002,2.0,1252700000\n"},
            {"meta_Toys.json.gz": METADATA_2014},
            "{title}{categories}",
            {"B0002": "Toys & Games, Puzzles", "B0001": "Girl's Tutu\\dSports, Other Sports, Dance"},
            id="2014-ratings",
        ),
        pytest.param(
            {"Toys_5.json.gz": REVIEWS_2018},
            {"meta_Toys.json.gz": METADATA_2018},
            "{title} / {brand} / {category} / {feature} / {price} / {description}",
            {
                "B0002": "Puzzle / / Toys & Games, Puzzles / / /",
                "B0001": "Girl's Tutu / Coxlures / Sports, Other Sports, Dance / Botiquecutie, One size / $3.17 / "
                'A "tutu"., Pink',
            },
            id="2018",
        ),
        pytest.param(
            {"Toys.csv": "B0001,A2SU,5.0,1252800000\nB0002,A2SU,2.0,1252700000\n"},
            {"meta_Toys.json.gz": METADATA_2018},
            "{title}",
            {"B0002": "Puzzle", "B0001": "Girl's Tutu"},
            id="2018-ratings",
        ),
        pytest.param(
            {"Toys.jsonl": REVIEWS_2023},
            {"meta_Toys.jsonl.gz": METADATA_2023},
            "{title} / {store} / {categories} / {features} / {price} / {description}",
            {
                "B0002": "Puzzle / / / / /",
                "B0001": 'Girl\'s Tutu / Coxlures / Sports, Dance / One size / 3.17 / A "tutu"., Pink',
            },
            id="2023",
        ),
        pytest.param(
            {
                "Toys.train.csv.gz": "user_id,parent_asin,rating,timestamp\nA2SU,B0002,2.0,1252700000000\n",
                "Toys.test.csv": ("user_id,parent_asin,rating,timestamp,history\nA2SU,B0001,5.0,1252800000000,B0002\n"),
            },
            {"meta_Toys.jsonl": METADATA_2023},
            "{title}",
            {"B0002": "Puzzle", "B0001": "Girl's Tutu"},
            id="2023-ratings-in-two-files",
        ),
    ],
)
def test_amazon(
    tmp_path: Path, reviews: dict[str, str], metadata: dict[str, str], template: str, expected: dict[str, str]
) -> None:
    write(tmp_path, reviews | metadata)
    sources = [tmp_path / name for name in (*reviews, *metadata)]
    dataset = prepare(sources, tmp_path / "out", format="amazon", text=template)
    assert dataset.name == "Toys"
    assert dataset.interactions().rows() == ROWS
    assert texts(dataset) == expected
    assert prepare(sources, tmp_path / "rated", format="amazon", text=template, min_rating=3).interactions().rows() == [
        ROWS[1]
    ]


def test_amazon_fields_are_those_of_the_year_title_first(tmp_path: Path) -> None:
    write(tmp_path, {"r.jsonl": REVIEWS_2023, "m.jsonl": METADATA_2023})
    dataset = prepare([tmp_path / "r.jsonl", tmp_path / "m.jsonl"], tmp_path / "out", format="amazon")
    assert texts(dataset) == {"B0002": "Puzzle", "B0001": "Girl's Tutu"}
    assert fields(dataset).columns == [
        "item_id", "text", "title", "store", "main_category", "price", "categories", "features", "description"
    ]  # fmt: skip


def test_backslashes_and_quotes_of_texts_and_of_lists_stay(tmp_path: Path) -> None:
    listed = ["C:\\dir", '5" pipe', "a\\new", 'x\\" y', "\\\\server", "u\\u00e9", "[1] \\"]
    lines = [{"asin": "B0001", "title": 'a \\ b\\" c', "description": listed}, {"asin": "B0002", "title": "plain"}]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    write(tmp_path, {"r.json": REVIEWS_2018, "m.json": content})
    sources = [tmp_path / "r.json", tmp_path / "m.json"]
    dataset = prepare(sources, tmp_path / "out", format="amazon", text="{title}")
    assert texts(dataset) == {"B0001": 'a \\ b\\" c', "B0002": "plain"}
    assert fields(dataset).sort("item_id")["description"].to_list()[0] == listed


def test_amazon_files_in_the_wrong_order_or_damaged_are_one_sentence(tmp_path: Path) -> None:
    write(tmp_path, {"r.json": REVIEWS_2018, "m.json": METADATA_2018, "l.json": METADATA_2014 + "{'asin': \n"})
    for first, last, message in (
        ("m.json", "r.json", r"r\.json: the first line has .*; expected Amazon's metadata.* the metadata last"),
        ("m.json", "m.json", r"m\.json: the first line has .*; expected Amazon's reviews.* the metadata last"),
        ("r.json", "l.json", r"l\.json: line 3 is neither JSON nor a Python literal \('\{'asin':'\)"),
    ):
        with pytest.raises(SourceError, match=message):
            prepare([tmp_path / first, tmp_path / last], tmp_path / "out", format="amazon")
    with pytest.raises(SourceError, match="--format amazon takes reviews' files .*; found 1 before OUT. Name the"):
        prepare(tmp_path / "r.json", tmp_path / "out", format="amazon")


@pytest.mark.parametrize("size", [1, 100, 2**25])
def test_objects_are_the_same_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("ssna.sources.files._CHUNK", max(7, size // 3))
    monkeypatch.setattr("ssna.sources.json_lines._BLOCK", size)
    reviews = REVIEWS_2018.replace("\n", "\r\n\n")
    write(tmp_path, {"r.json": "\ufeff" + reviews, "m.json": "\n" + METADATA_2014.rstrip()})
    dataset = prepare([tmp_path / "r.json", tmp_path / "m.json"], tmp_path / "out", format="amazon", drop_empty=True)
    assert dataset.interactions().rows() == ROWS[1:]
    assert fields(dataset)["categories"].to_list() == [["Toys & Games", "Puzzles"], ["Sports", "Other Sports", "Dance"]]
    digest = hashlib.sha256((tmp_path / "r.json").read_bytes()).hexdigest()
    assert dataset.description["source"]["sha256"][str(tmp_path / "r.json")] == digest
    for line, message in (
        ("[1]", r"r\.json: line 7 is no object \('\[1\]'\)"),
        ('{"asin": ', r"r\.json: line 7 is not JSON"),
        (
            '{"overall": "five"}',
            r"r\.json: in line 7 the field 'overall' .* \(cannot parse 'five'.*\)\. Correct it, or",
        ),
        ('{"unixReviewTime": 1e999}', r"r\.json: in line 7 the field 'unixReviewTime' is not as it should be"),
    ):
        write(tmp_path, {"r.json": f"{reviews}\n\n{line}\n"})
        with pytest.raises(SourceError, match=message):
            prepare([tmp_path / "r.json", tmp_path / "m.json"], tmp_path / "other", format="amazon")


def test_the_very_line_with_a_wrong_field_is_named_among_many(tmp_path: Path) -> None:
    lines = [json.dumps({"reviewerID": "A", "asin": "B0001", "overall": 5, "unixReviewTime": n}) for n in range(40)]
    write(tmp_path, {"m.json": METADATA_2018})
    for wrong in (0, 1, 17, 39):
        broken = list(lines)
        broken[wrong] = broken[wrong].replace("5", "NaN").replace(f" {wrong}", ' "yesterday"')
        write(tmp_path, {"r.json": "\n".join([*broken, broken[wrong]])})
        with pytest.raises(SourceError, match=rf"r\.json: in line {wrong + 1} the field 'unixReviewTime' is not"):
            prepare([tmp_path / "r.json", tmp_path / "m.json"], tmp_path / "out", format="amazon")


def test_nan_as_python_writes_it_is_null(tmp_path: Path) -> None:
    reviews = REVIEWS_2018.replace("5.0", "NaN")
    metadata = METADATA_2018.replace('"price": ""', '"price": NaN').replace('"rank": []', '"rank": -Infinity')
    assert "NaN" in reviews
    assert "-Infinity" in metadata
    write(tmp_path, {"r.json": reviews, "m.json": metadata})
    sources = [tmp_path / "r.json", tmp_path / "m.json"]
    dataset = prepare(sources, tmp_path / "out", format="amazon")
    assert dataset.interactions().rows() == ROWS
    assert fields(dataset)["price"].to_list() == [None, "$3.17"]
    assert fields(dataset)["category"].to_list() == [["Toys & Games", "Puzzles"], ["Sports", "Other Sports", "Dance"]]
    with pytest.raises(SourceError, match="1 of 2 interactions have no rating, or one that is no number"):
        prepare(sources, tmp_path / "rated", format="amazon", min_rating=3)


def test_control_characters_and_halves_of_letters_are_taken_out_of_objects(tmp_path: Path) -> None:
    brand = "\x1b[31mred\x9b\x07\ttoy \ud800\ud83d\ude00\udc00 \\ud800"
    assert json.dumps(brand).endswith(r"\\ud800" + '"')
    metadata = [{"asin": f"B000{n}", "title": brand, "description": ["a\tb", brand]} for n in (1, 2)]
    write(tmp_path, {"r.json": REVIEWS_2018})
    for write_line in (json.dumps, repr):
        write(tmp_path, {"m.json": "\n".join(map(write_line, metadata))})
        name = write_line.__name__
        dataset = prepare([tmp_path / "r.json", tmp_path / "m.json"], tmp_path / name, format="amazon")
        assert texts(dataset) == dict.fromkeys(("B0001", "B0002"), "[31mred toy \U0001f600 \\ud800")
        assert [each[0] for each in fields(dataset)["description"]] == ["a\tb", "a\tb"]


@pytest.mark.parametrize("mode", ["w:gz", "w"])
@pytest.mark.parametrize(
    ("source", "files_at"),
    [
        ("content", "content"),
        ("Yelp-JSON.zip", "Yelp-JSON.zip/Yelp JSON/yelp_dataset.tar"),
        (".", "Yelp JSON/yelp_dataset.tar"),
        ("Yelp JSON", "Yelp JSON/yelp_dataset.tar"),
        ("Yelp JSON/yelp_dataset.tar", "Yelp JSON/yelp_dataset.tar"),
    ],
)
def test_yelp(tmp_path: Path, source: str, files_at: str, mode: Literal["w", "w:gz"]) -> None:
    folder = yelp_zip(tmp_path / "raw", mode).parent
    if source != "content":
        shutil.rmtree(folder / "content")
    dataset = prepare(folder / source, tmp_path / "out", format="yelp", text="{name}. {categories}. {city}")
    hashes = dataset.description["source"]["sha256"]
    assert hashes == {
        f"{folder}/{files_at}/{name}": hashlib.sha256(content.encode()).hexdigest() for name, content in YELP.items()
    }
    assert dataset.interactions().rows() == [("mh_-", "7ATY", 1325604498_000), ("mh_-", "XQfw", 1531001351_000)]
    assert texts(dataset) == {
        "XQfw": "Turning Point. Restaurants, Breakfast & Brunch. North Wales",
        "7ATY": "Body Cycle. . Philadelphia",
    }
    assert dataset.items()["title"].to_list() == ["Turning Point", "Body Cycle"]


def test_the_headers_of_a_tar_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = yelp_zip(tmp_path).parent / "Yelp JSON" / "yelp_dataset.tar"
    headers, read = list[str](), tarfile.TarFile.next

    def read_header(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        entry = read(archive)
        headers.append("" if entry is None else entry.name)
        return entry

    monkeypatch.setattr(tarfile.TarFile, "next", read_header)
    prepare(source, tmp_path / "out", format="yelp")
    # Whoever opens a tar reads its first header; the others are read only to find what there is.
    assert [headers.count(name) for name in YELP] == [1, 1]


def test_archives_without_yelps_reviews_or_damaged_are_one_sentence(tmp_path: Path) -> None:
    folder = yelp_zip(tmp_path / "raw").parent
    inner = folder / "Yelp JSON" / "yelp_dataset.tar"
    whole = inner.read_bytes()
    shutil.rmtree(folder / "content")
    for content, message in (
        (
            b"no tar",
            r"yelp_dataset\.tar is neither a folder nor a zip or tar; expected a folder, zip or tar of the Yelp",
        ),
        (whole[: len(whole) // 2], r"yelp_dataset\.tar is damaged \(.*\): download it again"),
    ):
        inner.write_bytes(content)
        with zipfile.ZipFile(tmp_path / "yelp.zip", "w") as archive:
            archive.write(inner, inner.name)
        for source in (inner, folder, tmp_path / "yelp.zip"):
            with pytest.raises(SourceError, match=message) as raised:
                prepare(source, tmp_path / "out", format="yelp")
            assert str(source) in str(raised.value)
    with tarfile.open(inner, "w") as photos:
        photos.add(folder / "Yelp-JSON.zip", "photos.json")
    with pytest.raises(SourceError, match=r"raw has no yelp_academic_dataset_review\.json \(found: .*\); expected"):
        prepare(folder, tmp_path / "out", format="yelp")


def test_steam(tmp_path: Path) -> None:
    write(tmp_path, {"steam_reviews.json.gz": STEAM_REVIEWS, "steam_games.json.gz": STEAM_GAMES})
    sources = [tmp_path / "steam_reviews.json.gz", tmp_path / "steam_games.json.gz"]
    dataset = prepare(sources, tmp_path / "out", format="steam", text="{title}. {genres}. {tags}. {price}")
    assert dataset.interactions().rows() == [
        ("Chaos Syren", "725280", 1513468800_000), ("H'é", "328100", 1514332800_000)
    ]  # fmt: skip
    assert texts(dataset) == {
        "725280": "Lost Kitty. Action, Indie. Strategy. 4.99",
        "328100": "Log Challenge. . . Free to Play",
    }
    with pytest.raises(SourceError, match=r"steam_games\.json\.gz: the first line has .* no product_id; expected"):
        prepare(sources[::-1], tmp_path / "other", format="steam")


@pytest.mark.parametrize("given", ["zip and folder", "zips of files alone", "folder of both"])
def test_mind_is_the_history_then_the_clicks_of_all_parts_by_time(tmp_path: Path, given: str) -> None:
    write(tmp_path / "MINDsmall", MIND)
    parts = [tmp_path / "MINDsmall" / f"MINDsmall_{part}" for part in ("train", "dev")]
    sources = {
        "zip and folder": lambda: [zipped(parts[0]), parts[1]],
        "zips of files alone": lambda: [zipped(part, flat=True) for part in parts],
        "folder of both": lambda: [tmp_path / "MINDsmall"],
    }[given]()
    dataset = prepare(sources, tmp_path / "out", format="mind", text="{title}. {abstract}")
    assert dataset.interactions().group_by("user_id", maintain_order=True).agg("item_id").rows() == [
        ("U1", ["N1", "N2", "N1", "N3", "N2", "N4"]),
        ("U2", ["N3"]),
    ]
    assert dataset.description["timestamps"] is None
    assert texts(dataset) == {
        "N1": 'The "Brands". Shop the notebooks', "N2": "PTSD.", "N3": "Scores. All of them", "N4": "New."
    }  # fmt: skip
    with pytest.raises(SourceError, match=r"out has no behaviors\.tsv \(found: .*\); expected a folder or zip of MIND"):
        prepare(tmp_path / "out", tmp_path / "other", format="mind")


@pytest.mark.parametrize("flat", [False, True])
def test_goodbooks(tmp_path: Path, flat: bool) -> None:
    folder = write(tmp_path / "goodbooks-10k-master", GOODBOOKS)
    dataset = prepare(zipped(folder, flat), tmp_path / "out", format="goodbooks", text="{title} by {authors}")
    assert dataset.interactions().rows() == [("1", "2", None), ("1", "1", None), ("2", "1", None)]
    assert texts(dataset) == {
        "1": "The Games (Games, #1) by S. M", "2": "Stone (Stones, #1) by J. Up, M. G"
    }  # fmt: skip
    assert fields(dataset)["isbn"].to_list() == ["439023483", "043955493X"]


def test_unisrec_gives_back_whole_sequences_under_their_original_ids(tmp_path: Path) -> None:
    source = write(tmp_path / "downstream" / "Toys", UNISREC)
    dataset = prepare(source, tmp_path / "out", format="unisrec")
    assert dataset.name == "Toys"
    assert dataset.interactions().group_by("user_id", maintain_order=True).agg("item_id").rows() == [
        ("AX", ["B0", "B1", "B0", "B2", "B1", "B0"]),
        ("AY", ["B2", "B0", "B1"]),
    ]
    assert texts(dataset) == {"B0": "Tutu. Sports. Cox.", "B1": 'A 3" puzzle.', "B2": "Ball."}
    write(source, {"Toys.train.inter": HEADER + "0\t0\t1\n0\t0 1\t0\n0\t0 1 0\t2\n"})
    with pytest.raises(SourceError, match=r"the last line of user 0 has 3 items before .*longest first"):
        prepare(source, tmp_path / "other", format="unisrec")
    (source / "Toys.item2index").unlink()
    with pytest.raises(SourceError, match=r"has no Toys\.item2index \(found: .*\); expected a processed folder"):
        prepare(source, tmp_path / "other", format="unisrec")


def test_recformer(tmp_path: Path) -> None:
    source = write(tmp_path / "Toys", {name: json.dumps(content) for name, content in RECFORMER.items()})
    dataset = prepare(source, tmp_path / "out", format="recformer", text="{title}. {brand}. {category}")
    assert dataset.name == "Toys"
    assert dataset.interactions().group_by("user_id", maintain_order=True).agg("item_id").rows() == [
        ("AX", ["B0", "B1", "B0", "B2", "B1"]),
        ("AY", ["B2", "B0", "B1"]),
    ]
    assert texts(dataset) == {
        "B1": "Puzzle. . Toys Puzzles", "B0": "Tutu. Cox. Sports Dance", "B2": "Ball. . Toys", "B9": "Unseen. Cox. Toys"
    }  # fmt: skip
    half = (source / "meta_data.json").read_text().replace("Unseen", r"Un\ud800seen")
    (source / "meta_data.json").write_text(half)
    assert texts(prepare(source, tmp_path / "half", format="recformer"))["B9"] == "Unseen"
    (source / "smap.json").write_text("[")
    with pytest.raises(SourceError, match=r"smap\.json is no JSON .*; expected a processed folder of RecFormer"):
        prepare(source, tmp_path / "other", format="recformer")
