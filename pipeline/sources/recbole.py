"""`--format recbole`: atomic files (https://recbole.io/docs/user_guide/data/atomic_files.html).

Tab-separated, with a header whose columns are `name:type`; of a dataset, `NAME.inter` and `NAME.item` are read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl

from ssna.errors import SourceError
from ssna.sources.files import Workbench
from ssna.sources.source import Columns, Source, interaction_columns, item_columns
from ssna.sources.tables import Table

DEFAULT_ENCODING = "utf-8"
_TYPES = ("token", "token_seq", "float", "float_seq")


@dataclass(frozen=True)
class _Atomic:
    """One atomic file: on disk, or a member of a zip."""

    path: Path
    member: str | None

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name if self.member else self.path.name

    @property
    def stem(self) -> str:
        return self.name.rsplit(".", 1)[0]

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)


def read_recbole(paths: Sequence[Path], columns: Columns, encoding: str, bench: Workbench, name: str | None) -> Source:
    """The dataset in a folder, zip or wheel; if it holds several, `name` says which."""
    if len(paths) != 1:
        raise SourceError(f"--format recbole takes one folder, zip or wheel; found {len(paths)} sources.")
    files = _atomic_files(paths[0])
    interactions = _choose([file for file in files if file.name.endswith(".inter")], paths[0], name)
    items = [file for file in files if file.name == f"{interactions.stem}.item"]
    if not items:
        raise SourceError(
            f"{paths[0]} has {interactions.name} but no {interactions.stem}.item, and item texts are what ssna "
            "works from. Add the items' atomic file."
        )
    return Source(
        name=interactions.stem,
        interactions=interaction_columns(_scan(interactions, encoding, bench), columns, str(interactions)),
        items=item_columns(_scan(items[0], encoding, bench), columns, str(items[0])),
    )


def _atomic_files(path: Path) -> list[_Atomic]:
    if path.is_dir():
        return [_Atomic(file, None) for ending in ("inter", "item") for file in sorted(path.rglob(f"*.{ending}"))]
    if not path.exists():
        raise SourceError(f"{path}: there is no such file or folder; expected a folder, zip or wheel of atomic files.")
    if not zipfile.is_zipfile(path):
        raise SourceError(f"{path} is neither a folder nor a zip; expected one of them with .inter and .item files.")
    with zipfile.ZipFile(path) as archive:
        return [_Atomic(path, member) for member in archive.namelist() if member.endswith((".inter", ".item"))]


def _choose(files: list[_Atomic], path: Path, name: str | None) -> _Atomic:
    if not files:
        raise SourceError(f"{path} holds no .inter file; expected RecBole's atomic files.")
    chosen = [file for file in files if file.stem == name] or files
    if len(chosen) > 1:
        names = ", ".join(file.stem for file in chosen)
        raise SourceError(f"{path} holds {len(chosen)} datasets ({names}). Choose one with --name.")
    return chosen[0]


def _scan(file: _Atomic, encoding: str, bench: Workbench) -> pl.LazyFrame:
    readable = bench.text_file(file.path, encoding, file.member)
    frame = bench.remember(Table(str(file), readable, "tsv", quote=None)).scan()
    names, columns = {}, []
    for header in frame.collect_schema():
        name, _, kind = header.rpartition(":")
        if not name or kind not in _TYPES:
            raise SourceError(f"{file}: the header '{header}' is not name:type, with type one of {', '.join(_TYPES)}.")
        names[header] = name
        columns.append(pl.col(header).cast(pl.Float64) if kind == "float" else pl.col(header))
    return frame.select(columns).rename(names)
