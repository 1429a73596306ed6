"""`--format amazon`: reviews and metadata of the McAuley lab, of 2014, 2018 or 2023, plain or gzipped.

Documentation: 2014 https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html (metadata are Python literals),
2018 https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/ and 2023 https://amazon-reviews-2023.github.io. Reviews may
be full files, 5-core files, or the ratings alone as CSV.
"""

from __future__ import annotations

import polars as pl

from ssna.columns import ITEM, TITLE
from ssna.errors import SourceError
from ssna.sources.files import SourceFile
from ssna.sources.json_lines import Objects, as_list, open_objects, scan_objects
from ssna.sources.request import Request, stacked
from ssna.sources.source import Source, interactions_of

_REVIEWS = "reviews' files (JSON Lines, or CSV of ratings)"
_METADATA = "the metadata's file (meta_….json.gz or .jsonl.gz)"
# Fields of the metadata by year, those that hold lists marked; each year calls them otherwise.
_TEXTS = (TITLE, "brand", "store", "main_cat", "main_category", "price")
_LISTS = ("categories", "category", "features", "feature", "description")
# user, item, rating and time in seconds (2014, 2018) or milliseconds (2023).
_REVIEW_FIELDS: dict[str, tuple[str, str, str, str]] = {
    "reviewerID": ("reviewerID", "asin", "overall", "unixReviewTime"),
    "user_id": ("user_id", "parent_asin", "rating", "timestamp"),
}


def read_amazon(request: Request) -> Source:
    """The reviews of one or several files as interactions, and the items of the metadata."""
    files, last = request.without_columns().interactions_and_items(_REVIEWS, _METADATA)
    metadata = open_objects(request, last)
    item = next((field for field in ("parent_asin", "asin") if field in metadata.fields), None)
    if item is None or not metadata.fields.isdisjoint(_REVIEW_FIELDS):
        raise SourceError(
            f"{last}: the first line has {', '.join(sorted(metadata.fields))}; expected Amazon's metadata, with asin "
            "or parent_asin. Name the reviews first, the metadata last."
        )
    return Source(
        name=_name(files[0]),
        interactions=stacked([_reviews(request, file, metadata) for file in files]),
        items=_items(request, metadata, item),
        items_file=str(last),
    )


def _reviews(request: Request, file: SourceFile, metadata: Objects) -> pl.LazyFrame:
    if ".csv" in file.path.suffixes:
        return _ratings(request, file, metadata)
    reviews = open_objects(request, file)
    fields = next((fields for mark, fields in _REVIEW_FIELDS.items() if mark in reviews.fields), None)
    if fields is None:
        raise SourceError(
            f"{file}: the first line has {', '.join(sorted(reviews.fields))}; expected Amazon's reviews, with "
            "reviewerID and asin, or user_id and parent_asin. Name the reviews first, the metadata last."
        )
    user, item, rating, time = fields
    schema: dict[str, pl.DataType] = {user: pl.String(), item: pl.String(), rating: pl.Float64(), time: pl.Int64()}
    return interactions_of(scan_objects(request, reviews, schema), *fields)


def _ratings(request: Request, file: SourceFile, metadata: Objects) -> pl.LazyFrame:
    """Ratings alone: with a header in 2023, without one before, and in 2018 the item comes first."""
    if "parent_asin" in metadata.fields:
        return interactions_of(request.delimited(file, "csv", quote='"'), *_REVIEW_FIELDS["user_id"])
    fields = _REVIEW_FIELDS["reviewerID"]
    order = ("asin", "reviewerID", *fields[2:]) if metadata.is_json else fields
    return interactions_of(request.delimited(file, "csv", names=order), *fields)


def _items(request: Request, metadata: Objects, item: str) -> pl.LazyFrame:
    frame = scan_objects(request, metadata, dict.fromkeys((item, *_TEXTS, *_LISTS), pl.String()))
    some = frame.select(pl.col(*_TEXTS[1:], *_LISTS).is_not_null().any()).collect(engine="streaming").row(0, named=True)
    texts = [name for name in _TEXTS[1:] if some[name]]
    lists = [as_list(name) for name in _LISTS if some[name]]
    return frame.select(pl.col(item).alias(ITEM), TITLE, *texts, *lists)


def _name(file: SourceFile) -> str:
    return file.name.split(".")[0].removeprefix("reviews_").removeprefix("ratings_").removesuffix("_5")
