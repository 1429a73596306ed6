"""Item texts: a template over the source's fields."""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Sequence
from string import Formatter

import polars as pl

from ssna.columns import ITEM
from ssna.errors import SourceError

# A first half that no second follows, or a second half after no first. That the pattern begins with letters makes the
# search some ten times as fast as one that looks for what stands before them.
_HALF_OF_PAIR = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)


def title_field(fields: Sequence[str]) -> str | None:
    """The field that holds an item's title: called title, ending in title, called name or ending in name."""
    for word in ("title", "name"):
        for field in (word, *fields):
            if field in fields and field.lower().endswith(word):
                return field
    return None


def default_template(fields: Sequence[str]) -> str:
    """The title alone.

    Raises:
        SourceError: if no field looks like a title.
    """
    title = title_field(fields)
    if title is None:
        raise SourceError(
            f"no field looks like a title (found: {', '.join(fields)}). Say which fields make the text, "
            f"for example --text '{{{fields[0] if fields else 'title'}}}'."
        )
    return f"{{{title}}}"


def text_expression(template: str, schema: pl.Schema, where: str, what: str, own_id: str = ITEM) -> pl.Expr:
    """The rendered text of each item, `clean`; empty if no field has a value.

    Args:
        template: text with field names in braces; doubled braces stand for themselves.
        schema: the fields there are.
        where: the file or files that have them, for error messages.
        what: the template as the user knows it, likewise.
        own_id: what the source calls `item_id`, likewise.

    Raises:
        SourceError: if the template is malformed, names no field, or one that there is not (lists those there are).
    """
    parts = _parse(template, what)
    named = [field for _, field in parts if field is not None]
    if unknown := [field for field in named if field not in schema]:
        if unknown[0] == own_id:
            raise SourceError(f"{what} names '{own_id}', the column of the items' ids. Write {{{ITEM}}} for it.")
        close = difflib.get_close_matches(unknown[0], schema, n=1)
        meant = f" Did you mean {{{close[0]}}}?" if close else ""
        raise SourceError(
            f"{what} names the field '{unknown[0]}', which is not in {where} (found: {', '.join(schema)}).{meant}"
        )
    if not named:
        example = title_field(list(schema)) or next(iter(schema))
        raise SourceError(
            f"{what} names no field of {where} (found: {', '.join(schema)}). Write those that make the text in braces, "
            f"such as {{{example}}}."
        )
    pieces: list[pl.Expr] = []
    for literal, field in parts:
        pieces.append(pl.lit(literal))
        if field is not None:
            pieces.append(field_as_text(field, schema[field]))
    some_value = pl.any_horizontal(field_as_text(field, schema[field]) != "" for field in named)
    return pl.when(some_value).then(clean(pl.concat_str(pieces))).otherwise(pl.lit(""))


def field_as_text(field: str, dtype: pl.DataType) -> pl.Expr:
    """A field's values as strings; null is the empty string, a list is joined with commas.

    Raises:
        SourceError: for nested values other than lists.
    """
    column = pl.col(field)
    if isinstance(dtype, pl.Struct | pl.Object):
        raise SourceError(f"the field '{field}' holds nested records; a template takes text, numbers or lists.")
    if isinstance(dtype, pl.List):
        column = column.cast(pl.List(pl.String)).list.drop_nulls().list.join(", ")
    elif dtype.is_float():  # A year is 2000 even where the source keeps it as 2000.0.
        whole = column.cast(pl.Int64, strict=False)
        column = pl.when(column == whole).then(whole.cast(pl.String)).otherwise(column.cast(pl.String))
    return column.cast(pl.String).fill_null("").str.strip_chars()


def clean(text: pl.Expr) -> pl.Expr:
    """Text with HTML entities resolved, control characters taken out, and every run of white space made one space."""
    unescaped = text.map_batches(_unescape, return_dtype=pl.String)
    # White space such as a tab is among the control characters (C0, DEL, C1). The others mean nothing to an LLM, and
    # in a terminal they could be commands.
    return unescaped.str.replace_all(r"[\p{Cc}&&\S]+", "").str.replace_all(r"\s+", " ").str.strip_chars()


def without_lone_surrogates(text: bytes) -> bytes:
    r"""JSON without halves of surrogate pairs, such as `\ud800` alone: no UTF-8 can hold them, and polars no text."""
    return _HALF_OF_PAIR.sub(_without_half, text)


def _without_half(found: re.Match[bytes]) -> bytes:
    start = found.start()
    while found.string.endswith(b"\\", 0, start):
        start -= 1
    is_escaped = (found.start() - start) % 2 == 1  # Its backslash is a letter of the text, then.
    return found[0] if is_escaped else b""


def _unescape(texts: pl.Series) -> pl.Series:
    return pl.Series(texts.name, [html.unescape(text) if "&" in text else text for text in texts], pl.String)


def _parse(template: str, what: str) -> list[tuple[str, str | None]]:
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise SourceError(f"{what} is malformed ({error}); write fields as {{name}}.") from error
    for _, field, form, conversion in parsed:
        if form or conversion:
            raise SourceError(f"{what} formats '{field}'; write a field as {{{field}}} alone.")
    return [(literal, None if field is None else field.strip()) for literal, field, _, _ in parsed]
