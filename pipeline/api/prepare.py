"""`ssna.prepare`: a dataset folder from a public format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ssna.cleaning import (
    DUPLICATES,
    Counts,
    Duplicates,
    Interactions,
    Step,
    at_least,
    k_core,
    without_duplicates,
)
from ssna.columns import ITEM, TEXT, TIME
from ssna.dataset import Dataset, is_dataset, open_dataset, write_dataset
from ssna.errors import DatasetError, SourceError
from ssna.folders import check_output
from ssna.rendering import render_items
from ssna.sources import (
    TIMESTAMP_UNITS,
    Columns,
    Format,
    Source,
    TimestampUnit,
    first_line,
    read_source,
    workbench,
)
from ssna.terminal import count
from ssna.timestamps import notes_on_times, span_of, timestamps_in_ms, unreadable_timestamps


def prepare(
    sources: Path | str | Sequence[Path | str],
    output: Path | str,
    *,
    format: Format,
    text: str | None = None,
    name: str | None = None,
    min_user: int = 0,
    min_item: int = 0,
    min_rating: float | None = None,
    duplicates: Duplicates = "keep",
    drop_unknown: bool = False,
    drop_empty: bool = False,
    timestamp_unit: TimestampUnit = "auto",
    timestamp_format: str | None = None,
    encoding: str | None = None,
    columns: Columns | None = None,
    licence: str | None = None,
    overwrite: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Dataset:
    """Write a dataset folder: items with their texts, and cleaned interactions in order.

    Args:
        sources: what the format takes (docs/datasets.md): a folder or zip, or the files of interactions, one or
            more, and then the file of items.
        output: the folder to write.
        format: of the sources.
        text: template of the item texts with field names in braces; None takes the title.
        name: of the dataset; None takes the source's.
        min_user: fewest interactions of a user. Users and items with fewer are removed until none is left (k-core).
        min_item: fewest interactions of an item.
        min_rating: lowest rating of an interaction that counts.
        duplicates: what happens to repeated interactions of a user with an item: `keep` all, drop `exact` repeats
            (same time as well), or keep only the `first` or `last`.
        drop_unknown: drop, and count, interactions of items that the source does not describe; else they are an error.
        drop_empty: drop, and count, interactions of items without text; else they are an error.
        timestamp_unit: of numeric timestamps; `auto` goes by their size.
        timestamp_format: of date strings, as `strftime` writes it; None recognises ISO 8601.
        encoding: of text files; None takes the format's own.
        columns: the source's column names, where they are not `user_id`, `item_id`, `rating` and `timestamp`.
        licence: a note on the source's licence, kept in dataset.json.
        overwrite: replace a dataset folder that is there.
        on_progress: called with the name of the text file that is read, its bytes that were read, and all it has.

    Returns:
        The dataset that was written.

    Raises:
        SourceError: if the sources cannot be read as asked.
        DatasetError: if interactions and items do not fit together, or nothing is left.
        OutputError: if the output folder cannot be used.
    """
    if duplicates not in DUPLICATES:
        raise SourceError(f"duplicates '{duplicates}' is unknown; expected one of {', '.join(DUPLICATES)}.")
    if timestamp_unit not in TIMESTAMP_UNITS:
        raise SourceError(f"timestamp unit '{timestamp_unit}' is unknown; expected {', '.join(TIMESTAMP_UNITS)}.")
    if min_rating is not None and min_rating != min_rating:
        raise SourceError("--min-rating nan: expected a number.")
    columns = columns or Columns()
    if not isinstance(columns, Columns):
        raise SourceError(f"columns is a {type(columns).__name__}; expected ssna.Columns(…).")
    output = Path(output)
    check_output(output, overwrite, is_dataset, "dataset folder")
    paths = [Path(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    with workbench(on_progress) as bench:
        try:
            source = read_source(format, paths, columns, encoding, name, bench)
            template, what = (source.template, "the format's template") if text is None else (text, "--text")
            where = source.items_file or ", ".join(map(str, paths))
            items, about_items = render_items(
                source.items, template, where, f"{what} '{template}'", columns.described_item
            )
            interactions, read_as = _collect(source, timestamp_unit, timestamp_format)
        except pl.exceptions.PolarsError as error:
            fault = bench.fault()
            if fault is not None:
                raise SourceError(f"{fault}. Correct the file, or give another one.") from error
            raise SourceError(
                f"{', '.join(map(str, paths))} cannot be read as {format}: {first_line(error)}. Check them "
                "against the format (docs/datasets.md), and the options that name columns and timestamps."
            ) from error
    if not len(interactions.frame):
        files = paths[:-1] if source.items_file else paths
        holds = "holds" if len(files) == 1 else "hold"
        raise SourceError(
            f"{', '.join(map(str, files))} {holds} no interaction. Expected a row for each, with a user and an item."
        )
    source_counts, times = interactions.counts(), interactions.frame[TIME]
    notes = [*about_items["notes"], *notes_on_times(times, read_as, timestamp_unit, timestamp_format)]
    if min_rating is not None:
        interactions.step(f"rating at least {min_rating:g}", lambda frame: at_least(frame, min_rating))
    if duplicates != "keep":
        interactions.step(f"duplicates ({duplicates})", lambda frame: without_duplicates(frame, duplicates))
    _drop_items(interactions, items, drop_unknown, drop_empty)
    if not len(interactions.frame):
        raise DatasetError("no interaction is left after these steps. Drop less, or lower --min-rating.")
    if min_user > 1 or min_item > 1:
        core = f"at least {min_user} a user, {min_item} an item"
        interactions.step(core, lambda frame: k_core(frame, min_user, min_item))
    description: dict[str, Any] = {
        "name": name or source.name,
        "source": {"format": format, "paths": [str(path) for path in paths], "sha256": bench.hashes},
        "licence": licence,
        **about_items,
        "timestamps": read_as,
        "time_span": span_of(times),
        "notes": notes,
        "steps": [step.as_json() for step in (_source_step(source_counts), *interactions.steps)],
    }
    write_dataset(output, items, interactions.with_ids(), description)
    return open_dataset(output)


def _source_step(counts: Counts) -> Step:
    return Step("source", counts, counts)


def _collect(source: Source, unit: TimestampUnit, date_format: str | None) -> tuple[Interactions, str | None]:
    """The interactions, and how their timestamps were read."""
    try:
        ordered, read_as = timestamps_in_ms(source.interactions, unit, date_format, source.origin)
        return Interactions.collect(ordered, source.origin), read_as
    except pl.exceptions.PolarsError as error:
        wrong = unreadable_timestamps(source.interactions, date_format, source.origin)
        if wrong is None:
            raise
        raise SourceError(wrong) from error


def _drop_items(interactions: Interactions, items: pl.DataFrame, drop_unknown: bool, drop_empty: bool) -> None:
    """Drop the interactions of unknown and empty items, or refuse them."""
    with_text = items.filter(pl.col(TEXT) != "")[ITEM]
    for what, option, drop, available, advice in (
        ("unknown items", "--drop-unknown", drop_unknown, items[ITEM], _advice_on_ids),
        ("items without text", "--drop-empty", drop_empty, with_text, _advice_on_texts),
    ):
        lacking = interactions.lacking(available)
        if len(lacking) and not drop:
            kept = interactions.without(lacking)
            if not len(kept):
                raise DatasetError(
                    f"all {count(len(interactions.frame))} interactions are with {what} "
                    f"({_examples(lacking)}){advice(lacking, items[ITEM])}"
                )
            raise DatasetError(
                f"{len(interactions.frame) - len(kept)} interactions are with {len(lacking)} {what} "
                f"({', '.join(lacking.head(5))}). Complete the items' file, or drop these interactions with {option}."
            )
        if drop:
            interactions.step(what, lambda frame, lacking=lacking: interactions.without(lacking))  # type: ignore[misc]


def _examples(ids: pl.Series) -> str:
    return f"such as {', '.join(ids.head(2))}"


def _advice_on_ids(unknown: pl.Series, known: pl.Series) -> str:
    """How the message goes on if none of the interactions' item ids is among the items'."""
    bare = [ids.str.strip_suffix(".0") for ids in (unknown, known)]
    if bare[0].is_in(bare[1].implode()).any():
        advice = "Without the .0 at their ends they are the same: write ids as whole numbers in both files."
    else:
        advice = "Expected the interactions' file first, then the items' file, with the same item ids in both."
    return f"; the items have ids {_examples(known)}. {advice}"


def _advice_on_texts(*_: pl.Series) -> str:
    return ". Name fields in --text that have values, or complete the items' file."
