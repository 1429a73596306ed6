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
    items: pl.LazyFrame, template: str | None, where: str, what: str
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The distinct items with their texts, and what dataset.json says about them.

    Args:
        items: item_id as a string, then the source's other fields.
        template: of the texts; None takes the title.
        where: the file or files of the items, for error messages.
        what: the template as the user knows it, likewise.

    Raises:
        SourceError: if the template does not fit the fields, or an item has no id.
    """
    schema = items.collect_schema()
    fields = [field for field in schema if field != ITEM]
    chosen = default_template(fields) if template is None else template
    rendered = items.with_columns(text_expression(chosen, schema, where, what).alias("__text")).collect()
    if nulls := rendered[ITEM].null_count():
        raise SourceError(f"{counted(nulls, 'item has', 'items have')} no {ITEM}. Complete the items' file.")
    if TEXT in fields and _RAW_TEXT in fields:
        raise SourceError(f"the source has the fields '{TEXT}' and '{_RAW_TEXT}', of which one must be renamed.")
    distinct = rendered.unique(ITEM, keep="first", maintain_order=True)
    others = pl.exclude(ITEM, "__text", TEXT)
    own_text = [pl.col(TEXT).alias(_RAW_TEXT)] if TEXT in fields else []
    title = title_field(fields)
    about = {
        "template": chosen,
        "title_field": _RAW_TEXT if title == TEXT else title,
        "items": len(distinct),
        "items_without_text": int((distinct["__text"] == "").sum()),
        "items_described_again": len(rendered) - len(distinct),
        "items_described_otherwise": _described_otherwise(rendered),
    }
    return distinct.select(ITEM, pl.col("__text").alias(TEXT), *own_text, others), about


def _described_otherwise(rendered: pl.DataFrame) -> int:
    """How many items have several rows that are not the same."""
    different = rendered.filter(pl.col(ITEM).is_duplicated()).unique()
    return different.filter(pl.col(ITEM).is_duplicated())[ITEM].n_unique()


def with_titles(items: pl.DataFrame, title_field: str | None) -> pl.DataFrame:
    """item_id, text and title: the field that holds it, or the text where that is empty or there is none."""
    if title_field not in items.columns:
        return items.select(ITEM, TEXT, pl.col(TEXT).alias(TITLE))
    title = clean(field_as_text(str(title_field), items.schema[str(title_field)]))
    return items.select(ITEM, TEXT, pl.when(title != "").then(title).otherwise(TEXT).alias(TITLE))
