"""`--format steam`: reviews and games (version 2) of the McAuley lab, whose lines are Python literals.

https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data: `steam_reviews.json.gz` and `steam_games.json.gz`. A review
has a user's name, a game's id and a day, but no rating.
"""

from __future__ import annotations

import polars as pl

from ssna.columns import ITEM, TITLE
from ssna.errors import SourceError
from ssna.sources.files import SourceFile
from ssna.sources.json_lines import Objects, as_list, open_objects, scan_objects
from ssna.sources.request import Request, stacked
from ssna.sources.source import Source, interactions_of

_REVIEWS = "the reviews' file (steam_reviews.json.gz)"
_GAMES = "the games' file (steam_games.json.gz)"
_REVIEW_FIELDS = ("username", "product_id", "date")
_TEXTS = ("id", TITLE, "app_name", "developer", "publisher", "release_date", "price")
_LISTS = ("genres", "tags", "specs")


def read_steam(request: Request) -> Source:
    """The reviews of one or several files as interactions, and the games as items."""
    files, last = request.without_columns().interactions_and_items(_REVIEWS, _GAMES)
    frames = [scan_objects(request, _with(request, file, "product_id"), _strings(_REVIEW_FIELDS)) for file in files]
    games = scan_objects(request, _with(request, last, "app_name"), _strings((*_TEXTS, *_LISTS)))
    user, item, time = _REVIEW_FIELDS
    return Source(
        name="steam",
        interactions=stacked([interactions_of(frame, user, item, timestamp=time) for frame in frames]),
        items=games.filter(pl.col("id").is_not_null()).select(
            pl.col("id").alias(ITEM),
            pl.coalesce(TITLE, "app_name").alias(TITLE),
            *_TEXTS[3:],
            *(as_list(name) for name in _LISTS),
        ),
        items_file=str(last),
    )


def _strings(fields: tuple[str, ...]) -> dict[str, pl.DataType]:
    return dict.fromkeys(fields, pl.String())


def _with(request: Request, file: SourceFile, field: str) -> Objects:
    objects = open_objects(request, file)
    if field not in objects.fields:
        raise SourceError(
            f"{file}: the first line has {', '.join(sorted(objects.fields))}, and no {field}; expected {_REVIEWS}, "
            f"then {_GAMES}, both of version 2."
        )
    return objects
