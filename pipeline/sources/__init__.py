"""Public dataset formats, each read into the same two lazy tables (`Source`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssna.errors import SourceError
from ssna.sources.amazon import read_amazon
from ssna.sources.files import Workbench, check_encoding, first_line, workbench
from ssna.sources.goodbooks import read_goodbooks
from ssna.sources.mind import read_mind
from ssna.sources.movielens import read_movielens
from ssna.sources.recbole import read_recbole
from ssna.sources.recformer import read_recformer
from ssna.sources.request import Request
from ssna.sources.sequences import read_sequences
from ssna.sources.source import (
    FORMATS,
    NO_ORIGIN,
    TIMESTAMP_UNITS,
    Columns,
    Format,
    Origin,
    Source,
    TimestampUnit,
    id_strings,
    id_text,
)
from ssna.sources.steam import read_steam
from ssna.sources.table import read_histories_table, read_items_table, read_table
from ssna.sources.unisrec import read_unisrec
from ssna.sources.yelp import read_yelp

__all__ = [
    "FORMATS",
    "NO_ORIGIN",
    "READERS",
    "TIMESTAMP_UNITS",
    "Columns",
    "Format",
    "Origin",
    "Reader",
    "Source",
    "TimestampUnit",
    "Workbench",
    "first_line",
    "id_strings",
    "id_text",
    "read_histories_table",
    "read_items_table",
    "read_source",
    "workbench",
]


@dataclass(frozen=True)
class Reader:
    """A format: its function, and the sources that it takes in a line of help."""

    read: Callable[[Request], Source]
    takes: str


READERS: dict[Format, Reader] = {
    "table": Reader(read_table, "interactions' files, then items' file (CSV, TSV, Parquet, JSON Lines)"),
    "sequences": Reader(read_sequences, "users' TSV files (user, item ids in order), then items' TSV (item, title)"),
    "recbole": Reader(read_recbole, "one folder, zip or wheel with RecBole's atomic files"),
    "movielens": Reader(read_movielens, "one folder or zip: 100K, 1M, 10M, 20M, 25M, 32M or latest"),
    "amazon": Reader(read_amazon, "reviews' files, then the metadata's file, of 2014, 2018 or 2023"),
    "yelp": Reader(read_yelp, "one folder, zip or tar of the Yelp Open Dataset"),
    "steam": Reader(read_steam, "the McAuley lab's steam_reviews.json.gz, then steam_games.json.gz"),
    "mind": Reader(read_mind, "folders or zips of MIND, such as MINDsmall_train and MINDsmall_dev"),
    "goodbooks": Reader(read_goodbooks, "one folder or zip of Goodbooks-10k"),
    "unisrec": Reader(read_unisrec, "one processed folder of UniSRec"),
    "recformer": Reader(read_recformer, "one processed folder of RecFormer"),
}


def read_source(
    format: Format,
    paths: Sequence[Path],
    columns: Columns,
    encoding: str | None,
    name: str | None,
    bench: Workbench,
) -> Source:
    """A source's interactions and items, as they stand in its files; to be collected before `bench` goes.

    Args:
        format: which reader.
        paths: what the format takes: a folder or zip, or the interactions' and the items' files.
        columns: names of the source's columns where they are not the format's own.
        encoding: of text files; None for the format's own.
        name: of the dataset within a source that holds several.
        bench: unpacks and hashes the files.

    Raises:
        SourceError: if files or columns are missing, or a file is not of the format or encoding.
    """
    if format not in READERS:
        raise SourceError(f"format '{format}' is unknown; expected one of {', '.join(FORMATS)}.")
    codec = None if encoding is None else check_encoding(encoding)
    return READERS[format].read(Request(format, paths, columns, codec, name, bench))
