"""Text files of one record a line, whose fields are split at a mark of several letters, or only at the first ones."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ssna.errors import SourceError
from ssna.sources.files import SourceFile
from ssna.sources.request import Request


def split_lines(
    request: Request, file: SourceFile, mark: str, names: Sequence[str], encoding: str = "utf-8"
) -> pl.LazyFrame:
    """Columns `names` (String) of each line, split at its first marks; blank lines are passed over.

    Raises:
        SourceError: if a line has fewer fields; names the first one.
    """
    lines = pl.scan_lines(request.text(file, encoding), row_index_name="number", row_index_offset=1)
    # A byte order mark at the start of the file is no part of the first field.
    content = lines.with_columns(pl.col("line").str.strip_prefix("\ufeff")).filter(pl.col("line") != "")
    fields = pl.col("line").str.splitn(mark, len(names)).struct
    wrong = content.filter(fields.field(f"field_{len(names) - 1}").is_null()).head(1).collect(engine="streaming")
    if len(wrong):
        what = {"\t": "tab"}.get(mark, f"'{mark}'")
        lacks = f"no {what}" if len(names) == 2 else f"fewer than {len(names) - 1} {what}"
        raise SourceError(
            f"{file}: line {wrong['number'][0]} has {lacks} ('{wrong['line'][0][:40]}'); expected {', '.join(names)}."
        )
    return content.select(fields.field(f"field_{i}").alias(name) for i, name in enumerate(names))
