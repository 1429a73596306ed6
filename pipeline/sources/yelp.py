"""`--format yelp`: the Yelp Open Dataset (https://www.yelp.com/dataset/documentation/main).

`yelp_academic_dataset_review.json` and `yelp_academic_dataset_business.json`, an object a line, in a folder or in the
tar that Yelp offers.
"""

from __future__ import annotations

import polars as pl

from ssna.columns import ITEM
from ssna.sources.json_lines import open_objects, scan_objects
from ssna.sources.request import Request
from ssna.sources.source import Source, interactions_of

_REVIEWS = "yelp_academic_dataset_review.json"
_BUSINESSES = "yelp_academic_dataset_business.json"
_EXPECTED = f"a folder or tar of the Yelp dataset with {_REVIEWS} and {_BUSINESSES}"
_REVIEW_SCHEMA: dict[str, pl.DataType] = {
    "user_id": pl.String(), "business_id": pl.String(), "stars": pl.Float64(), "date": pl.String()
}  # fmt: skip


def read_yelp(request: Request) -> Source:
    """The reviews, and the businesses as items."""
    bundle = request.without_columns().bundle("a folder or tar of the Yelp dataset")
    reviews = open_objects(request, bundle.require(_REVIEWS, _EXPECTED))
    businesses = open_objects(request, bundle.require(_BUSINESSES, _EXPECTED))
    fields = ("business_id", "name", "categories", "city", "state", "address", "stars")
    items = scan_objects(request, businesses, dict.fromkeys(fields, pl.String()))
    return Source(
        name="yelp",
        interactions=interactions_of(scan_objects(request, reviews, _REVIEW_SCHEMA), *_REVIEW_SCHEMA),
        items=items.rename({"business_id": ITEM}),
    )
