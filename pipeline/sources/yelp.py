"""`--format yelp`: the Yelp Open Dataset (https://www.yelp.com/dataset/documentation/main).

`yelp_academic_dataset_review.json` and `yelp_academic_dataset_business.json`, an object a line, in a folder or in the
tar that Yelp offers, which is compressed by gzip in spite of its name, and stands in `Yelp-JSON.zip`.
"""

from __future__ import annotations

import polars as pl

from ssna.columns import ITEM
from ssna.sources.bundle import Bundle, open_bundle
from ssna.sources.json_lines import open_objects, scan_objects
from ssna.sources.request import Request
from ssna.sources.source import Source, interactions_of

_REVIEWS = "yelp_academic_dataset_review.json"
_BUSINESSES = "yelp_academic_dataset_business.json"
_WHAT = "a folder, zip or tar of the Yelp dataset"
_EXPECTED = f"{_WHAT} with {_REVIEWS} and {_BUSINESSES}"
_REVIEW_SCHEMA: dict[str, pl.DataType] = {
    "user_id": pl.String(), "business_id": pl.String(), "stars": pl.Float64(), "date": pl.String()
}  # fmt: skip


def read_yelp(request: Request) -> Source:
    """The reviews, and the businesses as items."""
    bundle = _with_reviews(request, request.without_columns().bundle(_WHAT))
    reviews = open_objects(request, bundle.require(_REVIEWS, _EXPECTED))
    businesses = open_objects(request, bundle.require(_BUSINESSES, _EXPECTED))
    fields = ("business_id", "name", "categories", "city", "state", "address", "stars")
    items = scan_objects(request, businesses, dict.fromkeys(fields, pl.String()))
    return Source(
        name="yelp",
        interactions=interactions_of(scan_objects(request, reviews, _REVIEW_SCHEMA), *_REVIEW_SCHEMA),
        items=items.rename({"business_id": ITEM}),
    )


def _with_reviews(request: Request, bundle: Bundle) -> Bundle:
    """The bundle itself, or the tar in it that holds the reviews."""
    if bundle.find(_REVIEWS) is None:
        for file in bundle.files:
            if file.name.endswith(".tar"):
                inner = open_bundle(request.bench.unpacked(file), _EXPECTED, archive_name=str(file))
                if inner.find(_REVIEWS) is not None:
                    return inner
    return bundle
