"""`--format movielens`: the folders and zips that GroupLens offers (https://grouplens.org/datasets/movielens/).

Each release has a README: 100K (https://files.grouplens.org/datasets/movielens/ml-100k-README.txt) has `u.data` and
`u.item`, 1M (ml-1m-README.txt) and 10M (ml-10m-README.html) have `ratings.dat` and `movies.dat`, and 20M, 25M, 32M and
latest (ml-20m-README.html, ml-25m-README.html, ml-32m-README.html, ml-latest-README.html, ml-latest-small-README.html)
have `ratings.csv` and `movies.csv`.
"""

from __future__ import annotations

import polars as pl

from ssna.columns import ITEM, RATING, TIME, TITLE, USER
from ssna.sources.files import SourceFile
from ssna.sources.lines import split_lines
from ssna.sources.request import Request
from ssna.sources.source import Source, interactions_of

_EXPECTED = "a folder or zip of MovieLens: u.data and u.item, ratings.dat and movies.dat, or ratings.csv and movies.csv"
_RATING_FIELDS = (USER, ITEM, RATING, TIME)
# The order of the last fields of u.item, as u.genre gives it.
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


def read_movielens(request: Request) -> Source:
    """The ratings (times in seconds) and movies of a release, whichever it is."""
    bundle = request.without_columns().bundle("a folder or zip of MovieLens")
    for ratings_name, movies_name, read in (
        ("u.data", "u.item", _read_100k),
        ("ratings.dat", "movies.dat", _read_dat),
        ("ratings.csv", "movies.csv", _read_csv),
    ):
        ratings = bundle.find(ratings_name)
        if ratings is not None:
            movies = bundle.require(movies_name, _EXPECTED, beside=ratings)
            interactions, items = read(request, ratings, movies)
            name = ratings.inside.parent.name or bundle.name
            return Source(name, interactions_of(interactions, *_RATING_FIELDS), items)
    raise bundle.lacks("ratings", _EXPECTED)


def _read_100k(request: Request, ratings: SourceFile, movies: SourceFile) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    fields = (ITEM, TITLE, "release_date", "video_release_date", "imdb_url", *_GENRES_100K)
    frame = request.delimited(movies, "psv", names=fields, encoding="latin-1")
    genres = pl.concat_list(
        pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES_100K if genre != "unknown"
    ).list.drop_nulls()
    items = frame.select(ITEM, TITLE, genres.alias("genres"), "release_date", "imdb_url")
    return request.delimited(ratings, "tsv", names=_RATING_FIELDS), items


def _read_dat(request: Request, ratings: SourceFile, movies: SourceFile) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    encoding = request.bench.first_fitting(movies, ("utf-8", "latin-1"))  # 10M is the one, 1M the other.
    items = split_lines(request, movies, "::", (ITEM, TITLE, "genres"), encoding)
    return split_lines(request, ratings, "::", _RATING_FIELDS), items.with_columns(_genre_list())


def _read_csv(request: Request, ratings: SourceFile, movies: SourceFile) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    names = {"userId": USER, "movieId": ITEM}
    interactions = request.delimited(ratings, "csv", quote='"').rename(names)
    items = request.delimited(movies, "csv", quote='"').select(pl.col("movieId").alias(ITEM), TITLE, _genre_list())
    return interactions, items


def _genre_list() -> pl.Expr:
    genres = pl.col("genres")
    return pl.when(genres != "(no genres listed)").then(genres.str.split("|")).alias("genres")
