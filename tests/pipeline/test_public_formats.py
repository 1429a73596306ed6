"""Each publisher's format, from small made-up files written exactly as the publisher writes them."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import zipfile
from pathlib import Path

import polars as pl
import pytest

from ssna import Columns, Dataset, prepare
from ssna.errors import SourceError
from ssna.sources import FORMATS, READERS


def write(folder: Path, files: dict[str, str], encoding: str = "utf-8") -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode(encoding)
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return folder


def zipped(folder: Path) -> Path:
    """The folder as a zip that holds it, as publishers make them."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def texts(dataset: Dataset) -> dict[str, str]:
    return dict(dataset.items().select("item_id", "text").rows())


def fields(dataset: Dataset) -> pl.DataFrame:
    return pl.read_parquet(dataset.path / "items.parquet")


def test_every_format_has_a_reader_and_a_line_of_help() -> None:
    assert tuple(READERS) == FORMATS
    assert all(reader.takes and len(reader.takes) < 90 for reader in READERS.values())


# https://files.grouplens.org/datasets/movielens/ml-100k-README.txt
ML_100K = {
    "u.data": "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t4\t881250948\n",
    "u.item": (
        "242|Les Misérables (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?x|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
        '302|L.A. "C" (1997)||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n'
    ),
    "u.genre": "unknown|0\nAction|1\n",
}
# https://files.grouplens.org/datasets/movielens/ml-1m-README.txt
ML_1M = {
    "ratings.dat": "196::242::3::881250949\n186::302::3::891717742\n196::302::4::881250948\n",
    "movies.dat": '242::Les Misérables (1995)::Animation|Children\'s|Comedy\n302::L.A. "C" (1997)::\n',
    "users.dat": "196::F::1::10::48067\n",
}
# https://files.grouplens.org/datasets/movielens/ml-25m-README.html
ML_25M = {
    "ratings.csv": (
        "userId,movieId,rating,timestamp\n196,242,3.0,881250949\n186,302,3.5,891717742\n196,302,4.0,881250948\n"
    ),
    "movies.csv": (
        "movieId,title,genres\n242,Les Misérables (1995),Animation|Children's|Comedy\n"
        '302,"L.A. ""C"" (1997)",(no genres listed)\n'
    ),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    ("files", "encoding"),
    [
        pytest.param(ML_100K, "latin-1", id="100k"),
        pytest.param(ML_1M, "latin-1", id="1m"),
        pytest.param(ML_1M, "utf-8", id="10m"),
        pytest.param(ML_25M, "utf-8", id="25m"),
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


# https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html
REVIEWS_2014 = (
    '{"reviewerID": "A2SU", "asin": "B0001", "reviewerName": "J. \\"x\\"", "helpful": [2, 3], "reviewText": "I do.", '
    '"overall": 5.0, "summary": "Heavenly", "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009"}\n'
    '{"reviewerID": "A2SU", "asin": "B0002", "helpful": [0, 0], "reviewText": "", "overall": 2.0, '
    '"summary": "", "unixReviewTime": 1252700000, "reviewTime": "09 12, 2009"}\n'
)
METADATA_2014 = (
    "{'asin': 'B0002', 'imUrl': 'http://x/I/a.jpg', 'categories': [['Toys & Games', 'Puzzles'], ['Toys & Games']]}\n"
    "{'asin': 'B0001', 'title': \"Girl's Tutu\\d\", 'price': 3.17, 'related': {'also_bought': ['B00J']}, "
    "'salesRank': {'Toys & Games': 211836}, 'brand': 'Coxlures', 'description': 'A \"tutu\".', "
    "'categories': [['Sports', 'Other Sports', 'Dance']]}\n"
)
# https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/
REVIEWS_2018 = (
    '{"overall": 5.0, "vote": "2", "verified": true, "reviewTime": "09 13, 2009", "reviewerID": "A2SU", '
    '"asin": "B0001", "style": {"Format:": " Hardcover"}, "reviewerName": "Abbey", "reviewText": "Great.", '
    '"summary": "Sturdy", "unixReviewTime": 1252800000, "image": ["https://x/I/7.jpg"]}\n'
    '{"overall": 2.0, "verified": true, "reviewTime": "09 12, 2009", "reviewerID": "A2SU", "asin": "B0002", '
    '"unixReviewTime": 1252700000}\n'
)
METADATA_2018 = (
    '{"category": ["Toys & Games", "Puzzles"], "tech1": "", "description": [], "fit": "", "title": "Puzzle", '
    '"also_buy": [], "brand": "", "feature": [], "rank": [], "main_cat": "Toys", "price": "", "asin": "B0002"}\n'
    '{"category": ["Sports", "Other Sports", "Dance"], "description": ["A \\"tutu\\".", "Pink"], '
    '"title": "Girl&#39;s Tutu", "brand": "Coxlures", "feature": ["Botiquecutie", "One size"], '
    '"rank": "1,234 in Toys", "price": "$3.17", "asin": "B0001", "similar_item": ""}\n'
)
# https://amazon-reviews-2023.github.io
REVIEWS_2023 = (
    '{"rating": 5.0, "title": "Such", "text": "This.", "images": [], "asin": "B0009", "parent_asin": "B0001", '
    '"user_id": "A2SU", "timestamp": 1252800000000, "helpful_vote": 0, "verified_purchase": true}\n'
    '{"rating": 2.0, "title": "", "text": "", "images": [{"small_image_url": "x"}], "asin": "B0002", '
    '"parent_asin": "B0002", "user_id": "A2SU", "timestamp": 1252700000000, "verified_purchase": false}\n'
)
METADATA_2023 = (
    '{"main_category": "Toys", "title": "Puzzle", "average_rating": 4.8, "rating_number": 10, "features": [], '
    '"description": [], "price": null, "images": [{"thumb": "https://x", "hi_res": null}], "videos": [], '
    '"store": null, "categories": [], "details": {"UPC": "6171"}, "parent_asin": "B0002", "bought_together": null}\n'
    '{"main_category": "Sports", "title": "Girl\'s Tutu", "average_rating": 4.5, "features": ["One size"], '
    '"description": ["A \\"tutu\\".", "Pink"], "price": 3.17, "store": "Coxlures", '
    '"categories": ["Sports", "Dance"], "details": {"Package": "1"}, "parent_asin": "B0001"}\n'
)
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
        ('{"overall": "five"}', r"r\.json: a field is not as it should be, from line \d on"),
    ):
        write(tmp_path, {"r.json": f"{reviews}\n\n{line}\n"})
        with pytest.raises(SourceError, match=message):
            prepare([tmp_path / "r.json", tmp_path / "m.json"], tmp_path / "other", format="amazon")


# https://www.yelp.com/dataset/documentation/main
YELP = {
    "yelp_academic_dataset_review.json": (
        '{"review_id":"KU_O","user_id":"mh_-","business_id":"XQfw","stars":3.0,"useful":0,"funny":0,"cool":0,'
        '"text":"If you","date":"2018-07-07 22:09:11"}\n'
        '{"review_id":"BiTu","user_id":"mh_-","business_id":"7ATY","stars":5.0,"useful":1,"funny":0,"cool":1,'
        '"text":"I\'ve","date":"2012-01-03 15:28:18"}\n'
    ),
    "yelp_academic_dataset_business.json": (
        '{"business_id":"XQfw","name":"Turning Point","address":"1460 Rd","city":"North Wales","state":"PA",'
        '"postal_code":"19454","latitude":40.2,"longitude":-75.1,"stars":3.0,"review_count":169,"is_open":1,'
        '"attributes":{"NoiseLevel":"u\'average\'"},"categories":"Restaurants, Breakfast & Brunch","hours":null}\n'
        '{"business_id":"7ATY","name":"Body Cycle","address":"","city":"Philadelphia","state":"PA","stars":5.0,'
        '"review_count":144,"is_open":0,"attributes":null,"categories":null,"hours":{"Monday":"6:30-20:30"}}\n'
    ),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar"])
def test_yelp(tmp_path: Path, packed: bool) -> None:
    source = write(tmp_path / "yelp_dataset", YELP)
    if packed:
        source = tmp_path / "yelp_dataset.tar"
        with tarfile.open(source, "w") as archive:
            for name in YELP:
                archive.add(tmp_path / "yelp_dataset" / name, name)
    dataset = prepare(source, tmp_path / "out", format="yelp", text="{name}. {categories}. {city}")
    assert dataset.interactions().rows() == [("mh_-", "7ATY", 1325604498_000), ("mh_-", "XQfw", 1531001351_000)]
    assert texts(dataset) == {
        "XQfw": "Turning Point. Restaurants, Breakfast & Brunch. North Wales",
        "7ATY": "Body Cycle. . Philadelphia",
    }
    assert dataset.items()["title"].to_list() == ["Turning Point", "Body Cycle"]


# https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data
STEAM_REVIEWS = (
    "{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41, u'product_id': u'725280', u'page_order': 0, "
    "u'date': u'2017-12-17', u'text': u'This would not be acceptable.', u'early_access': False, u'page': 1}\n"
    "{u'username': u\"H'\\xe9\", u'hours': 51.1, u'products': 769, u'product_id': u'328100', u'page_order': 0, "
    "u'date': u'2017-12-27', u'text': u'looks like', u'compensation': u'Product received for free', u'page': 1}\n"
)
STEAM_GAMES = (
    "{u'publisher': u'Kotoshiro', u'genres': [u'Action', u'Indie'], u'app_name': u'Lost', u'title': u'Lost Kitty', "
    "u'url': u'http://x', u'release_date': u'2018-01-04', u'tags': [u'Strategy'], u'discount_price': 4.49, "
    "u'specs': [u'Single-player'], u'price': 4.99, u'early_access': False, u'id': u'725280', u'developer': u'K'}\n"
    "{u'app_name': u'Log Challenge', u'price': u'Free to Play', u'early_access': False, u'id': u'328100'}\n"
    "{u'app_name': u'nameless', u'early_access': False}\n"
)


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


# https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md
NEWS = (
    'N1\tlifestyle\troyals\tThe "Brands"\tShop the notebooks\thttps://x/N1.html\t[{"Label": "Q"}]\t[]\n'
    "N2\thealth\tmedical\tPTSD\t\thttps://x/N2.html\t[]\t[]\n"
    "N3\tsports\tnfl\tScores\tAll of them\thttps://x/N3.html\t[]\t[]\n"
)
MIND = {
    "MINDsmall_train/behaviors.tsv": (
        "2\tU1\t11/12/2019 1:05:58 PM\tN1 N2\tN1-0 N3-1 N2-1\n"
        "1\tU1\t11/12/2019 11:05:58 AM\tN1 N2\tN1-1 N3-0\n"
        "3\tU2\t11/12/2019 6:11:30 PM\t\tN2-0 N3-1\n"
    ),
    "MINDsmall_train/news.tsv": NEWS,
    "MINDsmall_dev/behaviors.tsv": "1\tU1\t11/15/2019 8:55:22 AM\tN1 N2\tN1-0 N4-1\n",
    "MINDsmall_dev/news.tsv": NEWS + "N4\tnews\tworld\tNew\t\thttps://x/N4.html\t[]\t[]\n",
}


@pytest.mark.parametrize("together", [False, True], ids=["two-folders", "folder-of-both"])
def test_mind_is_the_history_then_the_clicks_of_all_parts_by_time(tmp_path: Path, together: bool) -> None:
    write(tmp_path / "MINDsmall", MIND)
    parts = [tmp_path / "MINDsmall" / f"MINDsmall_{part}" for part in ("train", "dev")]
    sources = [tmp_path / "MINDsmall"] if together else [zipped(parts[0]), parts[1]]
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


# https://github.com/zygmuntz/goodbooks-10k
GOODBOOKS = {
    "ratings.csv": "user_id,book_id,rating\n1,2,5\n2,1,4\n1,1,3\n",
    "books.csv": (
        "book_id,goodreads_book_id,best_book_id,work_id,books_count,isbn,isbn13,authors,original_publication_year,"
        "original_title,title,language_code,average_rating,ratings_count,work_ratings_count,work_text_reviews_count,"
        "ratings_1,ratings_2,ratings_3,ratings_4,ratings_5,image_url,small_image_url\n"
        '1,27,27,79,272,439023483,9.78e+12,S. M,2008.0,The Games,"The Games (Games, #1)",eng,4.34,4,5,6,1,2,3,4,5,u,\n'
        '2,3,3,46,491,043955493X,9.78e+12,"J. Up, M. G",1997.0,Stone,"Stone (Stones, #1)",,4.44,4,5,6,1,2,3,4,5,u,\n'
    ),
    "samples/ratings.csv": "user_id,book_id,rating\n9,9,9\n",
}


def test_goodbooks(tmp_path: Path) -> None:
    source = zipped(write(tmp_path / "goodbooks-10k-master", GOODBOOKS))
    dataset = prepare(source, tmp_path / "out", format="goodbooks", text="{title} by {authors}")
    assert dataset.interactions().rows() == [("1", "2", None), ("1", "1", None), ("2", "1", None)]
    assert texts(dataset) == {
        "1": "The Games (Games, #1) by S. M", "2": "Stone (Stones, #1) by J. Up, M. G"
    }  # fmt: skip
    assert fields(dataset)["isbn"].to_list() == ["439023483", "043955493X"]


# https://github.com/RUCAIBox/UniSRec/tree/master/dataset: a user's training lines are the longest prefix first.
HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
UNISREC = {
    "Toys.train.inter": HEADER + "0\t0 1 0\t2\n0\t0 1\t0\n0\t0\t1\n",
    "Toys.valid.inter": HEADER + "0\t0 1 0 2\t1\n1\t2\t0\n",
    "Toys.test.inter": HEADER + "0\t0 1 0 2 1\t0\n1\t2 0\t1\n",
    "Toys.text": 'item_id:token\ttext:token_seq\nB0\tTutu. Sports. Cox. \nB1\tA 3" puzzle. \nB2\tBall. \n',
    "Toys.item2index": "B0\t0\nB1\t1\nB2\t2\n",
    "Toys.user2index": "AX\t0\nAY\t1\n",
    "Toys.feat1CLS": "not text",
}


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


# https://github.com/AaronHeee/RecFormer, finetune_data
RECFORMER = {
    "train.json": {"0": [0, 1, 0], "1": [2]},
    "val.json": {"0": [2], "1": [0]},
    "test.json": {"0": [1], "1": [1]},
    "umap.json": {"AX": 0, "AY": 1},
    "smap.json": {"B0": 0, "B1": 1, "B2": 2},
    "meta_data.json": {
        "B1": {"title": "Puzzle", "brand": "", "category": "Toys Puzzles"},
        "B0": {"title": "Tutu", "brand": "Cox", "category": "Sports Dance"},
        "B2": {"title": "Ball", "brand": None, "category": "Toys"},
        "B9": {"title": "Unseen", "brand": "Cox", "category": "Toys"},
    },
}


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
    (source / "smap.json").write_text("[")
    with pytest.raises(SourceError, match=r"smap\.json is no JSON .*; expected a processed folder of RecFormer"):
        prepare(source, tmp_path / "other", format="recformer")
