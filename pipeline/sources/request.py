"""What `prepare` asks of the reader of a format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ssna.errors import SourceError
from ssna.sources.bundle import Bundle, open_bundle
from ssna.sources.files import SourceFile, Workbench, require_file
from ssna.sources.source import Columns, Format
from ssna.sources.tables import Table, TableKind


@dataclass(frozen=True)
class Request:
    """The sources to read, and how."""

    format: Format
    paths: Sequence[Path]
    columns: Columns
    encoding: str | None
    """Of text files; None for the format's own"""
    name: str | None
    """Of the dataset within a source that holds several"""
    bench: Workbench

    def without_columns(self) -> Request:
        """Itself.

        Raises:
            SourceError: if columns are named, since the format's names are its own.
        """
        if self.columns != Columns():
            raise SourceError(f"--format {self.format} has its own column names. Leave out the options --…-column.")
        return self

    def bundle(self, what: str) -> Bundle:
        """The files of the one source; `what` it should be, for messages.

        Raises:
            SourceError: if there are several sources, or it is no folder or archive.
        """
        if len(self.paths) != 1:
            raise SourceError(f"--format {self.format} takes {what}; found {len(self.paths)} sources before OUT.")
        return open_bundle(self.paths[0], what)

    def interactions_and_items(self, interactions: str, items: str) -> tuple[list[SourceFile], SourceFile]:
        """The files of interactions (one or more) and the last one, of items; both kinds named for messages.

        Raises:
            SourceError: if there are fewer than two sources, or one is no file.
        """
        if len(self.paths) < 2:
            raise SourceError(
                f"--format {self.format} takes {interactions} and {items}; found {len(self.paths)} before OUT. Name "
                "the interactions first (there may be several files of them), the items last."
            )
        *first, last = self.paths
        files = [SourceFile(require_file(path, interactions)) for path in first]
        return files, SourceFile(require_file(last, items))

    def text(self, file: SourceFile, encoding: str = "utf-8") -> Path:
        """A text file as UTF-8 on disk; `encoding` is the format's own."""
        return self.bench.text_file(file, self.encoding or encoding)

    def text_blocks(self, file: SourceFile) -> Iterator[bytes]:
        """A text file as UTF-8, a megabyte at a time."""
        return self.bench.text_blocks(file, self.encoding or "utf-8")

    def delimited(
        self,
        file: SourceFile,
        kind: TableKind,
        *,
        names: Sequence[str] | None = None,
        encoding: str = "utf-8",
        quote: str | None = None,
    ) -> pl.LazyFrame:
        """The rows of delimited text, every value a string; `names` are those of a file without a header."""
        readable = self.text(file, encoding)
        header = None if names is None else tuple(names)
        return self.bench.remember(Table(str(file), readable, kind, quote=quote, names=header)).scan()


def stacked(frames: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """The rows of several files one after another, numbers of different kinds made the wider one."""
    return frames[0] if len(frames) == 1 else pl.concat(frames, how="vertical_relaxed")
