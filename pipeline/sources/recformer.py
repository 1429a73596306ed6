"""`--format recformer`: the processed folders of RecFormer (https://github.com/AaronHeee/RecFormer, finetune_data).

`train.json`, `val.json` and `test.json` map a user's number to a list of items' numbers, `umap.json` and `smap.json`
the original ids of users and items to those numbers, and `meta_data.json` an item's original id to its attributes.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from ssna.columns import ITEM, TITLE, USER
from ssna.errors import SourceError
from ssna.sources.files import SourceFile
from ssna.sources.request import Request
from ssna.sources.source import Source, interactions_of
from ssna.text import without_lone_surrogates

_EXPECTED = "a processed folder of RecFormer: train.json, val.json, test.json, umap.json, smap.json and meta_data.json"
_FIELDS = (TITLE, "brand", "category")


def read_recformer(request: Request) -> Source:
    """The whole sequence of each user (training, validation, test), and all items that have attributes."""
    bundle = request.without_columns().bundle("a folder or zip of RecFormer")
    train = bundle.require("train.json", _EXPECTED)

    def content(name: str) -> dict[str, Any]:
        return _object(request, bundle.require(name, _EXPECTED, beside=train))

    users = {str(number): original for original, number in content("umap.json").items()}
    items = {str(number): original for original, number in content("smap.json").items()}
    rows = [
        (users.get(user, user), items.get(str(item), str(item)))
        for part in ("train.json", "val.json", "test.json")
        for user, sequence in content(part).items()
        for item in sequence
    ]
    attributes = content("meta_data.json")
    described = {name: [str(item.get(name) or "") for item in attributes.values()] for name in _FIELDS}
    interactions = pl.LazyFrame(rows, schema={USER: pl.String, ITEM: pl.String}, orient="row")
    return Source(
        name=train.inside.parent.name or bundle.name,
        interactions=interactions_of(interactions, USER, ITEM),
        items=pl.LazyFrame({ITEM: list(attributes), **described}, schema=dict.fromkeys((ITEM, *_FIELDS), pl.String)),
    )


def _object(request: Request, file: SourceFile) -> dict[str, Any]:
    try:
        content = json.loads(without_lone_surrogates(request.text(file).read_bytes()))
    except ValueError as error:
        raise SourceError(f"{file} is no JSON ({error}); expected {_EXPECTED}.") from error
    if not isinstance(content, dict):
        raise SourceError(f"{file} holds no JSON object; expected {_EXPECTED}.")
    return content
