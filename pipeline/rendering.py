"""Items as a source describes them, with the texts that the LLM reads and the titles that people do."""

from __future__ import annotations

from typing import Any

import polars as pl

from ssna.columns import ITEM, TEXT, TITLE
from ssna.errors import SourceError
from ssna.terminal import counted
from ssna.text import clean, default_template, field_as_text, text_expression, title_field

_RAW_TEXT = "raw_text"
"""Where a source's own field called `text` goes, since `text` is the rendered one."""


def render_items(
    items: pl.LazyFrame, template: str | None, where: str, what: str, own_id: str = ITEM
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The distinct items with their texts, and what dataset.json says about them.

    Args:
        items: item_id as a string, then the source's other fields.
        template: of the texts; None takes the title.
        where: the file or files of the items, for error messages.
        what: the template as the user knows it, likewise.
        own_id: what the source calls `item_id`, likewise.

    Raises:
        SourceError: if the template does not fit the fields, an item has no id, or there is no item.
    """
    schema = items.collect_schema()
    fields = [field for field in schema if field != ITEM]
    chosen = default_template(fields) if template is None else template
    rendered = items.with_columns(text_expression(chosen, schema, where, what, own_id).alias("__text")).collect()
    if nulls := rendered[ITEM].null_count():
        row = int(rendered[ITEM].is_null().arg_max() or 0) + 1
        found = counted(nulls, "item has", "items have")
        raise SourceError(f"{where}: {found} no {ITEM} (the first is data row {row}). Complete the column '{own_id}'.")
    if not len(rendered):
        raise SourceError(
            f"{where} holds no item. Expected a row for each item, with its id and the fields of its text."
        )
    if TEXT in fields and _RAW_TEXT in fields:
        raise SourceError(f"the source has the fields '{TEXT}' and '{_RAW_TEXT}', of which one must be renamed.")
    distinct = rendered.unique(ITEM, keep="first", maintain_order=True)
    others = pl.exclude(ITEM, "__text", TEXT)
    own_text = [pl.col(TEXT).alias(_RAW_TEXT)] if TEXT in fields else []
    title = title_field(fields)
    otherwise = _described_otherwise(rendered)
    about = {
        "template": chosen,
        "title_field": _RAW_TEXT if title == TEXT else title,
        "items": len(distinct),
        "items_without_text": int((distinct["__text"] == "").sum()),
        "items_described_again": len(rendered) - len(distinct),
        "items_described_otherwise": len(otherwise),
        "notes": [_note_on_descriptions(otherwise)] if len(otherwise) else [],
    }
    return distinct.select(ITEM, pl.col("__text").alias(TEXT), *own_text, others), about


def _described_otherwise(rendered: pl.DataFrame) -> pl.Series:
    """The ids of items with several rows that are not the same, in their order."""
    different = rendered.filter(pl.col(ITEM).is_duplicated()).unique(maintain_order=True)
    return different.filter(pl.col(ITEM).is_duplicated())[ITEM].unique(maintain_order=True)


def _note_on_descriptions(items: pl.Series) -> str:
    found = counted(len(items), "item is", "items are")
    return (
        f"{found} described again with other values (the first is {items[0]}). If the first description is not the "
        "right one, mend the items' file."
    )


def with_titles(items: pl.DataFrame, title_field: str | None) -> pl.DataFrame:
    """item_id, text and title: the field that holds it, or the text where that is empty or there is none."""
    if title_field not in items.columns:
        return items.select(ITEM, TEXT, pl.col(TEXT).alias(TITLE))
    title = clean(field_as_text(str(title_field), items.schema[str(title_field)]))
    return items.select(ITEM, TEXT, pl.when(title != "").then(title).otherwise(TEXT).alias(TITLE))
