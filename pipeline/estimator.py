"""A recommender that is fitted to data frames, for notebooks: `prepare`, `extract` and `adapt` behind one object."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from inspect import signature
from numbers import Real
from pathlib import Path
from typing import Any, Self

import polars as pl
import torch

from ssna import __version__
from ssna.api.adapt import adapt
from ssna.api.add_items import AddedItems, add_items
from ssna.api.extract import extract
from ssna.api.prepare import prepare
from ssna.api.recommend import NEAREST_ITEMS, recommend_users
from ssna.api.similar import similar
from ssna.cache import sweep_leftovers, write_atomically
from ssna.cache.files import TEMPORARY_PREFIX, signals_held_back
from ssna.cleaning import Duplicates
from ssna.columns import ITEM, TIME, TITLE, USER
from ssna.dataset import DATASET_FILES, Dataset, copy_dataset, is_dataset, move_dataset
from ssna.errors import RunError, SourceError
from ssna.folders import check_output
from ssna.frames import FRAME_KINDS, FrameKind, in_kind, interactions_frame, kind_of, polars_frame
from ssna.runs import is_finished, open_run, write_json
from ssna.sources import TimestampUnit, first_line
from ssna.stage1_extract import ExtractOptions, NameTakenError
from ssna.stage2_adapt import AdaptOptions, OptionError, of_python
from ssna.terminal import count, counted, print_note, training_progress, work_progress
from ssna.timestamps import UNITS, timestamps_in_ms, unreadable_timestamps

_DATA, _RUN, _ABOUT = "data", "run", "recommender.json"
# What `prepare` is told besides, under the same names.
_CLEANING = (
    "min_user", "min_item", "min_rating", "duplicates", "drop_unknown", "drop_empty", "timestamp_unit",
    "timestamp_format",
)  # fmt: skip
# Ids of other types come back as text.
_ID_TYPES: dict[str, type[pl.DataType]] = {
    kind.__name__: kind
    for kind in (
        pl.String, pl.Categorical, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64,
        pl.Float32, pl.Float64,
    )
}  # fmt: skip


class TextRecommender:
    """A frozen LLM's texts and a sequential recommender, fitted to interactions, asked for recommendations.

    Frames are of polars or pandas; answers are of the kind of frame that was fitted, with ids of the type that it had.
    What was fitted in a `folder` is there again after a restart, by `load`. Copies and pickles name the folder and do
    not hold what is in it; without `folder` there are none.
    """

    def __init__(
        self,
        llm: Path | str | None,
        *,
        text: str | None = None,
        options: AdaptOptions | None = None,
        extraction: ExtractOptions | None = None,
        min_user: int = 0,
        min_item: int = 0,
        min_rating: float | None = None,
        duplicates: Duplicates = "keep",
        drop_unknown: bool = False,
        drop_empty: bool = False,
        timestamp_unit: TimestampUnit = "auto",
        timestamp_format: str | None = None,
        folder: Path | str | None = None,
        cache_root: Path | str | None = None,
        device: str = "auto",
        verbose: bool = True,
    ) -> None:
        """Say what to fit; nothing is read yet.

        Args:
            llm: folder, GGUF file or hub id of the LLM; None for a model without texts (`AdaptOptions(side="none")`).
            text: template over the items' columns, such as '{title}. {genres}'; None takes the title.
            options: of the model and its training.
            extraction: how the LLM reads.
            min_user: fewest interactions of a user. Users and items with fewer are removed until none is left (k-core).
            min_item: fewest interactions of an item.
            min_rating: lowest value of a column `rating` with which an interaction counts.
            duplicates: what happens to repeated interactions of a user with an item: `keep` all, drop `exact` repeats
                (same time as well), or keep only the `first` or `last`.
            drop_unknown: drop interactions of items that are not described; else they are an error.
            drop_empty: drop interactions of items without text; else they are an error.
            timestamp_unit: of numeric timestamps; `auto` goes by their size.
            timestamp_format: of dates that are text, as `strftime` writes it; None recognises ISO 8601.
            folder: for the dataset folder and the run folder; None means a temporary one, gone with this object.
            cache_root: the folder of all caches; None means `$SSNA_CACHE`, else the user's cache folder.
            device: a PyTorch device, or `auto`.
            verbose: say on stderr what is going on and how far it is, since an LLM may read for hours; False is silent.
        """
        self.llm, self.text, self.options, self.extraction = llm, text, options or AdaptOptions(), extraction
        self.min_user, self.min_item, self.min_rating, self.duplicates = min_user, min_item, min_rating, duplicates
        self.drop_unknown, self.drop_empty = drop_unknown, drop_empty
        self.timestamp_unit, self.timestamp_format = timestamp_unit, timestamp_format
        self.cache_root, self.device, self.verbose = cache_root, device, verbose
        self.results_: Mapping[str, Any] | None = None
        """What results.json of the fitted run holds"""
        self._use(folder)

    def _use(self, folder: Path | str | None) -> None:
        """Take a folder in which nothing was fitted by this object; None makes a temporary one."""
        self._is_temporary = folder is None
        if folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="ssna-"))
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        else:
            self.folder = folder if isinstance(folder, Path) else Path(folder)
        self.results_ = None

    def __repr__(self) -> str:
        defaults = {name: parameter.default for name, parameter in signature(type(self)).parameters.items()}
        given = {name: value for name, value in self.get_params().items() if value != defaults[name]}
        if self.options == AdaptOptions():
            given.pop("options", None)
        made = [_shown(self.llm), *(f"{name}={_shown(value)}" for name, value in given.items() if name != "llm")]
        return f"<{type(self).__name__}({', '.join(made)}), {'not ' if self.results_ is None else ''}fitted>"

    def __getstate__(self) -> dict[str, Any]:
        if self._is_temporary:
            raise RunError(
                "a TextRecommender without folder= keeps all in a temporary folder, which goes with it, and cannot be "
                "copied or pickled. Make it with folder=…, which stays."
            )
        return self.__dict__

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What it was made with, by name, as scikit-learn's `clone` asks.

        Args:
            deep: without effect, as no parameter has parameters.
        """
        given = {name: getattr(self, name) for name in signature(type(self)).parameters}
        return {**given, "folder": None if self._is_temporary else self.folder}

    def set_params(self, **params: Any) -> Self:
        """Change what it was made with, for the next `fit`.

        Another `folder` begins without anything fitted. A clone has the folder of its original, whose fitted model its
        `fit` would replace: give it one of its own.

        Raises:
            OptionError: if there is no such parameter.
        """
        known = signature(type(self)).parameters
        if unknown := [name for name in params if name not in known]:
            raise OptionError(f"there is no parameter '{unknown[0]}'; expected one of {', '.join(known)}.")
        for name, value in params.items():
            if name == "folder":
                self._use(value)
            else:
                setattr(self, name, value)
        return self

    @property
    def run(self) -> Path:
        """The run folder, which every command takes."""
        return self.folder / _RUN

    def fit(self, interactions: Any, items: Any) -> Self:
        """Prepare, extract what the cache lacks, and train; what was fitted in this folder before is replaced.

        A call that fails before its training begins leaves what was fitted before.

        The last two interactions of a user never train, unless there are fewer than three: the one before the last
        chooses the epoch, the last gives the figures in `results_`, and nothing is trained again on all of them.
        `recommend` reads them, as part of the history. `AdaptOptions(split="time")` leaves out the latest fifth of all
        interactions instead; no split trains on everything.

        Args:
            interactions: user_id, item_id and, unless they are in order already, timestamp. Without a column of that
                name, the only one of dates, or called datetime (as RecTools has it), time or date, is taken for it.
            items: item_id and the columns that the text names.

        Raises:
            SsnaError: of a kind that says what is wrong with the data, the LLM or the options.
        """
        (known, times), described = interactions_frame(interactions), polars_frame(items, (ITEM,))
        check_output(self.folder / _DATA, True, is_dataset, "dataset folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_leftovers(self.folder)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=self.folder) as beside:
            fresh = Path(beside) / _DATA
            with tempfile.TemporaryDirectory(prefix="ssna-") as tables:
                files = [Path(tables) / "interactions.parquet", Path(tables) / "items.parquet"]
                known.write_parquet(files[0])
                described.write_parquet(files[1])
                cleaning: dict[str, Any] = {name: getattr(self, name) for name in _CLEANING}
                prepared = prepare(files, fresh, format="table", text=self.text, **cleaning)
                for note in (_prepared(prepared, times), *prepared.description["notes"]):
                    self._note(note)
            cache = None
            if self.llm is not None:
                try:
                    cache = self._extracted(fresh, self.llm, None)
                except NameTakenError as error:  # Nobody chose the name, so nobody need choose another.
                    cache = self._extracted(fresh, self.llm, error.free_name)
            results = self._adapted(fresh, Path(beside) / "earlier", cache)
        self._kind: FrameKind = kind_of(interactions, (USER, ITEM))
        self._ids = {name: _id_type(known.schema[name]) for name in (USER, ITEM)}
        self.results_ = results
        self._keep()
        return self

    def _extracted(self, dataset: Path, llm: Path | str, name: str | None) -> str:
        """The folder of the cache that has the states of all texts by now."""
        with work_progress("extracting", "texts", shown=self.verbose) as on_progress:
            return extract(
                dataset,
                llm,
                name=name,
                options=self.extraction,
                cache_root=self.cache_root,
                device=self.device,
                on_progress=on_progress,
            ).cache

    def _adapted(self, fresh: Path, kept: Path, cache: str | None) -> Mapping[str, Any]:
        """Results of training on a fresh dataset folder, which takes its place for it.

        Args:
            fresh: the dataset folder; its files are moved.
            kept: where the earlier one stays until it is clear that it is not needed again.
            cache: of the states.
        """
        data, about = self.folder / _DATA, self.folder / _ABOUT
        earlier = about.read_text(encoding="utf-8") if about.exists() else None
        is_whole = all((data / name).is_file() for name in DATASET_FILES)
        if is_whole:
            copy_dataset(data, kept)
        about.unlink(missing_ok=True)  # From here on data and run may be others than it says.
        try:
            move_dataset(fresh, data)
            with training_progress(shown=self.verbose) as (on_epoch, on_step):
                return adapt(
                    data,
                    self.run,
                    cache=cache,
                    options=self.options,
                    device=self.device,
                    overwrite=True,
                    on_epoch=on_epoch,
                    on_step=on_step,
                    on_note=self._note,
                )
        except BaseException:
            with signals_held_back():
                if not is_finished(self.run):  # The earlier one was removed for it; these are its data.
                    self.results_ = None
                else:
                    if is_whole:
                        move_dataset(kept, data)
                    if earlier is not None:
                        write_atomically(about, earlier)
            raise

    def recommend(
        self,
        users: Iterable[str | int] | None = None,
        k: int = 10,
        *,
        histories: Any = None,
        allow_repeats: bool = False,
        explain: bool = False,
    ) -> Any:
        """The next k items of users, of all by default: a frame of user_id, item_id, score and rank.

        Args:
            users: ids of users who were fitted.
            k: how many items.
            histories: of any other users instead: a frame with user_id and item_id, oldest first (or in any order with
                timestamp, found as `fit` finds it), or a mapping from each user to a list of item ids, oldest first.
            allow_repeats: whether items of a user's history may be recommended again.
            explain: say too which items of the history each one is nearest to, nearest first: in nearest_item_ids and
                nearest_cosines, columns of lists, in pandas of Python lists.

        Raises:
            RunError: if nothing was fitted, there is no such user or item, or there are no item vectors to explain by.
            SourceError: if the histories cannot be read.
        """
        run, given = self._fitted(), histories
        users_type: pl.DataType | None = None
        if isinstance(histories, Mapping):
            are_whole = all(isinstance(user, Real) and float(user).is_integer() for user in histories)
            users_type = pl.Int64() if are_whole else pl.String()
        elif histories is not None:
            given = self._in_time(interactions_frame(histories)[0])
            users_type = _id_type(given.schema[USER])
        with work_progress("ranking", "users", shown=self.verbose) as on_progress:
            found = recommend_users(
                run,
                users,
                histories=given,
                k=k,
                allow_repeats=allow_repeats,
                explain=explain,
                device=self.device,
                on_progress=on_progress,
            )
        return self._as_given(found, users_type)

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
            file, new = Path(tables) / "items.parquet", polars_frame(items, (ITEM,))
            if self._ids[ITEM].is_integer() and not new.schema[ITEM].is_integer():
                raise SourceError(f"new item ids are {new.schema[ITEM]}; expected {self._ids[ITEM]}, as those fitted.")
            new.write_parquet(file)
            reading = self.extraction or ExtractOptions()
            with work_progress("extracting", "texts", shown=self.verbose) as on_progress:
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
                    on_progress=on_progress,
                )

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        cache_root: Path | str | None = None,
        device: str = "auto",
        verbose: bool = True,
    ) -> Self:
        """What was fitted in a folder before, to go on with it: in a notebook that was restarted, say.

        Args:
            folder: the one that was given to the object which was fitted.
            cache_root: the folder of all caches, if that is another one now.
            device: a PyTorch device, or `auto`.
            verbose: as of the object which was fitted.

        Raises:
            RunError: if nothing was fitted there, or it is damaged.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            kind = FRAME_KINDS[FRAME_KINDS.index(about["frames"])]
            ids = {name: _ID_TYPES[about["ids"][name]]() for name in (USER, ITEM)}
            extraction = None if about["extraction"] is None else ExtractOptions(**about["extraction"])
            llm, text, root = about["llm"], about["text"], about["cache_root"]
            cleaning = {name: about["cleaning"][name] for name in _CLEANING}
        except FileNotFoundError as error:
            raise RunError(
                f"{folder} has no {_ABOUT}. Give the folder of a TextRecommender whose fit() came to its end."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{folder / _ABOUT} is damaged ({error!r}). Call fit(interactions, items) again.") from error
        if importlib.util.find_spec(kind) is None:
            raise RunError(f"{folder} was fitted to frames of {kind}, which is not installed here. Install it.")
        run = open_run(folder / _RUN, torch.device("cpu"))
        root = root if cache_root is None else cache_root
        loaded = cls(
            llm,
            text=text,
            options=run.options,
            extraction=extraction,
            **cleaning,
            folder=folder,
            cache_root=root,
            device=device,
            verbose=verbose,
        )
        loaded._kind, loaded._ids, loaded.results_ = kind, ids, run.results
        return loaded

    def _keep(self) -> None:
        """Write what `load` needs besides the run folder."""
        about = {
            "ssna": __version__,
            "frames": self._kind,
            "ids": {name: dtype.base_type().__name__ for name, dtype in self._ids.items()},
            "llm": _lasting(self.llm),
            "text": self.text,
            "cleaning": {name: of_python(getattr(self, name)) for name in _CLEANING},
            "extraction": None if self.extraction is None else asdict(self.extraction),
            "cache_root": _lasting(self.cache_root),
        }
        write_json(self.folder / _ABOUT, about)

    def _note(self, text: str) -> None:
        if self.verbose:
            print_note(text)

    def _in_time(self, histories: pl.DataFrame) -> pl.DataFrame:
        """Histories with their timestamps read as those that are fitted."""
        if TIME not in histories.columns:
            return histories
        try:
            return timestamps_in_ms(histories.lazy(), self.timestamp_unit, self.timestamp_format)[0].collect()
        except pl.exceptions.PolarsError as error:
            wrong = unreadable_timestamps(histories.lazy(), self.timestamp_format)
            wrong = wrong or f"{first_line(error)}. Correct them, or leave the column out."
            raise SourceError(f"the histories: {wrong}") from error

    def _fitted(self) -> Path:
        if self.results_ is None:
            raise RunError(
                "nothing is fitted: fit was not called yet, or did not come to its end. Call fit(interactions, items)."
            )
        return self.run

    def _as_given(self, frame: pl.DataFrame, users: pl.DataType | None = None) -> Any:
        """A frame of the kind that was fitted, ids as there; `users` is the type of their ids if it is another one."""
        types = {USER: users or self._ids[USER], ITEM: self._ids[ITEM], NEAREST_ITEMS: pl.List(self._ids[ITEM])}
        ids = [pl.col(name).cast(dtype) for name, dtype in types.items() if name in frame.columns]
        return in_kind(frame.with_columns(ids), self._kind)


def _prepared(dataset: Dataset, times: str | None) -> str:
    """A line about what is fitted: how much of it, in what order, and what was dropped before.

    Args:
        dataset: prepared.
        times: what the frame calls its column of times; None if it has none.
    """
    left, read_as = dataset.steps[-1]["after"], dataset.description["timestamps"]
    order = "their rows" if read_as is None else f"the column '{times}' ({UNITS.get(read_as, read_as)})"
    lost = [
        f"{step['name']}: {count(step['before']['interactions'] - step['after']['interactions'])} dropped"
        for step in dataset.steps
        if step["before"]["interactions"] != step["after"]["interactions"]
    ]
    number = counted(left["interactions"], "interaction")
    what = f"{number} of {counted(left['users'], 'user')} with {counted(left['items'], 'item')}"
    return "; ".join([f"{what}, in the order of {order}", *lost])


def _shown(value: Any) -> str:
    """A parameter in a line: a path as text, of options those that are not as they are anyway."""
    if isinstance(value, Path):
        return repr(str(value))
    if not is_dataclass(value):
        return repr(value)
    chosen = {field.name: getattr(value, field.name) for field in fields(value)}
    unusual = [f"{field.name}={chosen[field.name]!r}" for field in fields(value) if chosen[field.name] != field.default]
    return f"{type(value).__name__}({', '.join(unusual)})"


def _id_type(dtype: pl.DataType) -> pl.DataType:
    """The type in which ids of a type come back."""
    return dtype if dtype.base_type() in _ID_TYPES.values() else pl.String()


def _lasting(path: Path | str | None) -> str | None:
    """A path that also holds from another folder; a hub id as it is."""
    if path is None:
        return None
    place = Path(path).expanduser()
    return str(place.resolve()) if place.exists() else str(path)
