"""`--format unisrec`: the processed folders of UniSRec (https://github.com/RUCAIBox/UniSRec/tree/master/dataset).

`NAME.train.inter`, `NAME.valid.inter` and `NAME.test.inter` are atomic files with a line a prediction: user, the items
before (the last 50 at most), the item. The training lines of a user go from the longest prefix down to one item, so
that one item and the predicted ones, read upwards, are the whole sequence. `NAME.text` has the items' texts by their
original ids, and `NAME.user2index` and `NAME.item2index` map those to the numbers in the other files.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ssna.columns import ITEM, TEXT, USER
from ssna.errors import SourceError
from ssna.sources.recbole import choose_dataset, scan_atomic
from ssna.sources.request import Request
from ssna.sources.source import Source, interactions_of

_WHAT = "a folder or zip of UniSRec"
_EXPECTED = "a processed folder of UniSRec: NAME.train.inter, .valid.inter, .test.inter, .text and .item2index"
_BEFORE = "item_id_list"


def read_unisrec(request: Request) -> Source:
    """The whole sequence of each user, and the items' texts; `--name` chooses among several datasets."""
    bundle = request.without_columns().bundle(_WHAT)
    train, name = choose_dataset(bundle, ".train.inter", request.name, _EXPECTED)
    endings = ("valid.inter", "test.inter", "user2index", "item2index", "text")
    valid, test, users, items, item_texts = (
        bundle.require(f"{name}.{ending}", _EXPECTED, beside=train) for ending in endings
    )
    sequences = _sequences([scan_atomic(request, part) for part in (train, valid, test)], str(train))
    for column, file in ((USER, users), (ITEM, items)):
        original = request.delimited(file, "tsv", names=("original", column))
        sequences = sequences.join(original, on=column, how="left", maintain_order="left")
        sequences = sequences.with_columns(pl.col("original").alias(column)).drop("original")
    return Source(
        name=name,
        interactions=interactions_of(sequences, USER, ITEM),
        items=scan_atomic(request, item_texts).select(ITEM, TEXT),
        template=f"{{{TEXT}}}",
    )


def _sequences(splits: Sequence[pl.LazyFrame], name: str) -> pl.LazyFrame:
    """user_id and item_id of every interaction of train, valid and test, by their numbers, each user's in order.

    Raises:
        SourceError: if the last training line of a user does not start from one item.
    """
    train, valid, test = splits
    lines = train.with_columns(pl.col(_BEFORE).str.split(" "))
    starts = lines.group_by(USER, maintain_order=True).agg(pl.col(_BEFORE).last())
    wrong = starts.filter(pl.col(_BEFORE).list.len() != 1).head(1).collect()
    if len(wrong):
        raise SourceError(
            f"{name}: the last line of user {wrong[USER][0]} has {len(wrong[_BEFORE][0])} items before the predicted "
            "one; expected one, as UniSRec writes it (longest first). Take the published file, or --format table."
        )
    # A user with one training item has no training line; that item is what precedes the validation item.
    alone = valid.join(starts, on=USER, how="anti").select(USER, pl.col(_BEFORE).str.split(" "))
    parts = (
        pl.concat([starts, alone]).explode(_BEFORE).select(USER, pl.col(_BEFORE).alias(ITEM)),
        lines.reverse().select(USER, ITEM),
        valid.select(USER, ITEM),
        test.select(USER, ITEM),
    )
    numbered = [part.with_columns(pl.lit(number).alias("part")) for number, part in enumerate(parts)]
    return pl.concat(numbered).sort(USER, "part", maintain_order=True).select(USER, ITEM)
