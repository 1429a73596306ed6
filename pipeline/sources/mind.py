"""`--format mind`: Microsoft News (https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md).

`behaviors.tsv` has a line an impression: the news that the user had clicked before the log begins (without times), and
the news shown, marked -1 if clicked. `news.tsv` has a line a news article. Neither has a header.

An interaction is a click. A user's are the history of the first impression, then the clicks of all impressions by time.
The history's clicks have no times, so none is kept and the order alone counts.
"""

from __future__ import annotations

import polars as pl

from ssna.columns import ITEM, TITLE, USER
from ssna.sources.bundle import open_bundle
from ssna.sources.request import Request, stacked
from ssna.sources.source import Source, interactions_of

_WHAT = "folders or zips of MIND, such as MINDsmall_train and MINDsmall_dev"
_EXPECTED = "a folder or zip of MIND with behaviors.tsv and news.tsv"
_BEHAVIOR_FIELDS = ("impression_id", USER, "time", "history", "impressions")
_NEWS_FIELDS = (ITEM, "category", "subcategory", TITLE, "abstract", "url", "title_entities", "abstract_entities")


def read_mind(request: Request) -> Source:
    """The clicks and news of all the parts together; each source may hold one part or several."""
    bundles = [open_bundle(path, _WHAT) for path in request.without_columns().paths]
    behaviors, news = [], []
    for bundle in bundles:
        parts = [file for file in bundle.files if file.name == "behaviors.tsv"]
        if not parts:
            raise bundle.lacks("behaviors.tsv", _EXPECTED)
        for part in parts:
            behaviors.append(request.delimited(part, "tsv", names=_BEHAVIOR_FIELDS))
            articles = bundle.require("news.tsv", _EXPECTED, beside=part)
            news.append(request.delimited(articles, "tsv", names=_NEWS_FIELDS))
    return Source(
        name=bundles[0].name,
        interactions=interactions_of(_clicks(stacked(behaviors)), USER, ITEM),
        items=stacked(news).select(ITEM, TITLE, "abstract", "category", "subcategory", "url"),
    )


def _clicks(behaviors: pl.LazyFrame) -> pl.LazyFrame:
    """user_id and item_id of every click, each user's in order."""
    # Only the clicked ones are taken out of the impressions, of which there are some twenty times as many.
    clicked = pl.col("impressions").str.extract_all(r"\S+-1(?:\s|$)")
    impressions = behaviors.select(
        USER,
        pl.col("time").str.to_datetime("%m/%d/%Y %I:%M:%S %p", time_unit="ms"),
        pl.col("history").str.split(" "),
        clicked.list.eval(pl.element().str.strip_chars().str.strip_suffix("-1")).alias("clicked"),
    ).sort(USER, "time", maintain_order=True)
    is_first = pl.col(USER) != pl.col(USER).shift(1)
    history = pl.when(is_first.fill_null(True)).then(pl.col("history"))
    empty = pl.lit([], pl.List(pl.String))
    return (
        impressions.with_columns(history.fill_null(empty), pl.col("clicked").fill_null(empty))
        .select(USER, pl.concat_list("history", "clicked").alias(ITEM))
        .explode(ITEM)
        .filter(pl.col(ITEM).is_not_null() & (pl.col(ITEM) != ""))
    )
