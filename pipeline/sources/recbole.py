"""`--format recbole`: atomic files (https://recbole.io/docs/user_guide/data/atomic_files.html).

Tab-separated, with a header whose columns are `name:type`; of a dataset, `NAME.inter` and `NAME.item` are read.
"""

from __future__ import annotations

import polars as pl

from ssna.errors import SourceError
from ssna.sources.bundle import Bundle
from ssna.sources.files import SourceFile
from ssna.sources.request import Request
from ssna.sources.source import Origin, Source, interaction_columns, item_columns

_TYPES = ("token", "token_seq", "float", "float_seq")


def read_recbole(request: Request) -> Source:
    """The dataset in a folder, zip or wheel; if it holds several, `--name` says which."""
    bundle = request.bundle("a folder, zip or wheel of atomic files (.inter and .item)")
    interactions, name = choose_dataset(bundle, ".inter", request.name, "RecBole's atomic files")
    items = bundle.find(f"{name}.item", beside=interactions)
    if items is None:
        raise SourceError(
            f"{bundle.path} has {interactions.name} but no {name}.item, and item texts are what ssna "
            "works from. Add the items' atomic file."
        )
    return Source(
        name=name,
        interactions=interaction_columns(scan_atomic(request, interactions), request.columns, str(interactions)),
        items=item_columns(scan_atomic(request, items), request.columns, str(items)),
        origin=Origin(columns=request.columns),
    )


def choose_dataset(bundle: Bundle, ending: str, name: str | None, expected: str) -> tuple[SourceFile, str]:
    """The file with that ending, and its name without it; `name` chooses among several.

    Raises:
        SourceError: if there is none (says what was `expected`), or it is not clear which.
    """
    found = [(file, file.name.removesuffix(ending)) for file in bundle.files if file.name.endswith(ending)]
    if not found:
        raise bundle.lacks(f"{ending} file", expected)
    chosen = [entry for entry in found if entry[1] == name] or found
    if len(chosen) > 1:
        names = ", ".join(stem for _, stem in chosen)
        raise SourceError(f"{bundle.path} holds {len(chosen)} datasets ({names}). Choose one with --name.")
    return chosen[0]


def scan_atomic(request: Request, file: SourceFile) -> pl.LazyFrame:
    """An atomic file's rows, the columns without their types; `float` columns are numbers, all others strings.

    Raises:
        SourceError: if a header is not `name:type`.
    """
    frame = request.delimited(file, "tsv")
    names, columns = {}, []
    for header in frame.collect_schema():
        name, _, kind = header.rpartition(":")
        if not name or kind not in _TYPES:
            raise SourceError(f"{file}: the header '{header}' is not name:type, with type one of {', '.join(_TYPES)}.")
        names[header] = name
        columns.append(pl.col(header).cast(pl.Float64) if kind == "float" else pl.col(header))
    return frame.select(columns).rename(names)
