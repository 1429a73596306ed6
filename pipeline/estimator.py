"""A recommender that is fitted to data frames, for notebooks: `prepare`, `extract` and `adapt` behind one object."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import polars as pl

from ssna.api.adapt import adapt
from ssna.api.add_items import AddedItems, add_items
from ssna.api.extract import extract
from ssna.api.prepare import prepare
from ssna.api.recommend import recommend_users
from ssna.api.similar import similar
from ssna.columns import ITEM, TIME, TITLE, USER
from ssna.errors import RunError, SourceError
from ssna.stage1_extract import ExtractOptions
from ssna.stage2_adapt import AdaptOptions

_DATA, _RUN = "data", "run"


class TextRecommender:
    """A frozen LLM's texts and a sequential recommender, fitted to interactions, asked for recommendations.

    Frames are of polars, or of anything whose columns can be read by name, such as pandas; answers are of the kind of
    frame that was fitted, with ids of the kind that it had.
    """

    def __init__(
        self,
        llm: Path | str | None,
        *,
        text: str | None = None,
        options: AdaptOptions | None = None,
        extraction: ExtractOptions | None = None,
        folder: Path | str | None = None,
        cache_root: Path | str | None = None,
        device: str = "auto",
    ) -> None:
        """Say what to fit; nothing is read yet.

        Args:
            llm: folder, GGUF file or hub id of the LLM; None for a model without texts (`AdaptOptions(side="none")`).
            text: template over the items' columns, such as '{title}. {genres}'; None takes the title.
            options: of the model and its training.
            extraction: how the LLM reads.
            folder: for the dataset folder and the run folder; None means a temporary one, gone with this object.
            cache_root: the folder of all caches; None means `$SSNA_CACHE`, else the user's cache folder.
            device: a PyTorch device, or `auto`.
        """
        self.llm, self.text, self.options, self.extraction = llm, text, options or AdaptOptions(), extraction
        self.cache_root, self.device = cache_root, device
        self.folder = Path(tempfile.mkdtemp(prefix="ssna-") if folder is None else folder)
        if folder is None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.results_: Mapping[str, Any] | None = None
        """What results.json of the fitted run holds"""

    @property
    def run(self) -> Path:
        """The run folder, which every command takes."""
        return self.folder / _RUN

    def fit(self, interactions: Any, items: Any) -> Self:
        """Prepare, extract what the cache lacks, and train; what was fitted in this folder before is replaced.

        Args:
            interactions: user_id, item_id and, unless they are in order already, timestamp.
            items: item_id and the columns that the text names.

        Raises:
            SsnaError: of a kind that says what is wrong with the data, the LLM or the options.
        """
        self.results_ = None
        known, described = _polars(interactions, (USER, ITEM)), _polars(items, (ITEM,))
        self._kind = pl.DataFrame if isinstance(interactions, pl.LazyFrame) else type(interactions)
        self._ids = {name: known.schema[name] for name in (USER, ITEM)}
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="ssna-") as tables:
            files = [Path(tables) / "interactions.parquet", Path(tables) / "items.parquet"]
            known.write_parquet(files[0])
            described.write_parquet(files[1])
            prepare(files, self.folder / _DATA, format="table", text=self.text, overwrite=True)
        name = None
        if self.llm is not None:
            where = {"cache_root": self.cache_root, "device": self.device}
            name = extract(self.folder / _DATA, self.llm, options=self.extraction, **where).cache  # type: ignore[arg-type]
        self.results_ = adapt(
            self.folder / _DATA, self.run, cache=name, options=self.options, device=self.device, overwrite=True
        )
        return self

    def recommend(self, users: Sequence[str | int] | None = None, k: int = 10, *, allow_repeats: bool = False) -> Any:
        """The next k items of users, of all by default: a frame of user_id, item_id, score and rank.

        Raises:
            RunError: if nothing was fitted, or there is no such user.
        """
        found = recommend_users(self._fitted(), users, k=k, allow_repeats=allow_repeats, device=self.device)
        return self._as_given(found)

    def similar(self, item: str | int, k: int = 10) -> Any:
        """The k items nearest to an item: a frame of item_id, title and score (cosine).

        Raises:
            RunError: if nothing was fitted, or there is no such item.
        """
        found = similar(self._fitted(), item, k=k, device=self.device)
        columns = {ITEM: [each.item_id for each in found], TITLE: [each.title for each in found]}
        return self._as_given(pl.DataFrame({**columns, "score": [each.score for each in found]}))

    def add_items(self, items: Any) -> AddedItems:
        """Let items be recommended that came after fitting; see `ssna.add_items`.

        Args:
            items: item_id and the columns that the text names.
        """
        run = self._fitted()
        with tempfile.TemporaryDirectory(prefix="ssna-") as tables:
            file, new = Path(tables) / "items.parquet", _polars(items, (ITEM,))
            if self._ids[ITEM].is_integer() and not new.schema[ITEM].is_integer():
                raise SourceError(f"new item ids are {new.schema[ITEM]}; expected {self._ids[ITEM]}, as those fitted.")
            new.write_parquet(file)
            reading = self.extraction or ExtractOptions()
            return add_items(
                run,
                file,
                llm=None if self.llm is None else str(self.llm),
                revision=reading.revision,
                trust_remote_code=reading.trust_remote_code,
                batch_tokens=reading.batch_tokens,
                device_map=reading.device_map,
                cache_root=self.cache_root,
                device=self.device,
            )

    def _fitted(self) -> Path:
        if self.results_ is None:
            raise RunError("nothing was fitted yet. Call fit(interactions, items) first.")
        return self.run

    def _as_given(self, frame: pl.DataFrame) -> Any:
        ids = [pl.col(name).cast(dtype) for name, dtype in self._ids.items() if name in frame.columns]
        frame = frame.with_columns(ids)
        return frame if self._kind is pl.DataFrame else self._kind(frame.to_dict(as_series=False))


def _polars(given: Any, wanted: Sequence[str]) -> pl.DataFrame:
    """A frame of polars with these columns; missing values of other libraries become null.

    Raises:
        SourceError: if it is no frame, or lacks a column.
    """
    if isinstance(given, pl.LazyFrame):
        given = given.collect()
    if not hasattr(given, "columns"):
        raise SourceError(f"expected a data frame with {', '.join(wanted)}; found {type(given).__name__}.")
    frame = given if isinstance(given, pl.DataFrame) else pl.DataFrame(_columns_of(given))
    if lacking := [name for name in wanted if name not in frame.columns]:
        raise SourceError(
            f"the frame has no column '{lacking[0]}' (found: {', '.join(frame.columns)}). Rename its own."
        )
    if TIME in frame.columns and frame.schema[TIME].is_temporal():
        frame = frame.with_columns(pl.col(TIME).cast(pl.Datetime("ms")).dt.timestamp("ms"))
    return frame


def _columns_of(frame: Any) -> dict[str, list[Any]]:
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    return {name: [_plain(value) for value in values] for name, values in columns.items()}


def _plain(value: Any) -> Any:
    """A cell without what pandas marks as missing (NaN, NaT, NA), and arrays as lists."""
    if getattr(value, "ndim", 0):
        return value.tolist()
    missing = type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    return None if missing else value
