"""Run folders: all that evaluation, recommendation and serving need, and what the run was made from (docs/runs.md)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from ssna.cache import replacing, write_atomically
from ssna.cache.files import TEMPORARY_PREFIX
from ssna.columns import HISTORY, ITEM, ITEM_INDEX, TEXT, TITLE, USER
from ssna.errors import RunError
from ssna.stage2_adapt import (
    AdaptOptions,
    Popularity,
    Recommender,
    SequenceRecommender,
    Sequences,
    Split,
    load_tensors,
)

if TYPE_CHECKING:
    from ssna.stage2_adapt import Epoch

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
ITEMS_FILE = "items.parquet"
HISTORIES_FILE = "histories.parquet"
CHECKPOINT_FILE = "checkpoint.safetensors"
METRICS_FILE = "metrics.jsonl"
RESULTS_FILE = "results.json"
STUDY_FILE = "study.json"
ADDED_FILE = "added_items.parquet"
TENSORBOARD_FOLDER = "tensorboard"
# results.json is the first to go: it marks a finished run.
_FILES = (RESULTS_FILE, ADDED_FILE, CHECKPOINT_FILE, METRICS_FILE, MODEL_FILE, ITEMS_FILE, HISTORIES_FILE, CONFIG_FILE)

_CONFIG = {
    "options": {},
    "dataset": {"name": str, "fingerprint": str, "path": str, "template": object},
    "caches": [{"name": str, "fingerprint": str, "layers": list, "path": str}],
    "device": str,
    "precision": str,
    "threads": int,
}
"""What is read of config.json"""
_AS_WRITTEN = "expected what `ssna adapt` writes. Run that again with --overwrite."

VECTOR = "vector"
"""Of items that were added"""
_TRAIN_END, _VALID_END = "train_end", "valid_end"
_RECOMMENDER_PREFIX, _ITEMS_PREFIX = "sequence.", "items."


def is_finished(path: Path) -> bool:
    """Whether the run in a folder has come to its end."""
    return (path / RESULTS_FILE).exists()


def is_run(path: Path) -> bool:
    """Whether a folder is a run's, finished or not: a config.json of our own, not that of a model.

    So is one that lost its config.json or has a damaged one, if it holds nothing but files of a run.
    """
    if not path.is_dir():
        return False
    try:
        return {"ssna", "options", "dataset"} <= set(read_json(path / CONFIG_FILE))
    except RunError:
        names = {entry.name for entry in path.iterdir() if not entry.name.startswith(TEMPORARY_PREFIX)}
        return names <= {*_FILES, TENSORBOARD_FOLDER} and not names.isdisjoint(
            (HISTORIES_FILE, METRICS_FILE, CHECKPOINT_FILE)
        )


def runs_of_study(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a study's table, by the folder's name of the run; none if the folder is no study's.

    Raises:
        RunError: if the table is damaged.
    """
    if not (path / STUDY_FILE).exists():
        return {}
    table = read_json(path / STUDY_FILE)
    check_fields(path / STUDY_FILE, table, {"runs": [{"run": str}]})
    return {line["run"]: line for line in table["runs"]}


def clear_run(path: Path) -> None:
    """Remove the files of an earlier run, and nothing else."""
    for name in _FILES:
        (path / name).unlink(missing_ok=True)
    shutil.rmtree(path / TENSORBOARD_FOLDER, ignore_errors=True)
    clear_leftovers(path)


def clear_leftovers(path: Path) -> None:
    """Remove what a process that was killed while it wrote has left in its run folder."""
    for leftover in path.glob(f"{TEMPORARY_PREFIX}*"):
        leftover.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented JSON, written whole or not at all."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def options_as_json(options: AdaptOptions) -> dict[str, Any]:
    """The options as they come back from config.json: with lists."""
    as_json: dict[str, Any] = json.loads(json.dumps(asdict(options)))
    return as_json


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        RunError: if the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path.parent} has no {path.name}; expected a run folder made by `ssna adapt`.") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); run `ssna adapt --overwrite` again.") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} holds no JSON object; run `ssna adapt --overwrite` again.")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a run folder, in which nothing is missing that is read of it.

    Raises:
        RunError: if the file is missing, damaged or another one; says what it lacks.
    """
    config = read_json(path / CONFIG_FILE)
    check_fields(path / CONFIG_FILE, config, _CONFIG)
    return config


def check_fields(path: Path, content: Any, expected: Any, name: str = "") -> None:
    """Return if a file's JSON has what is expected of it.

    Args:
        path: of the file, for the message.
        content: of the file, or of a part of it.
        expected: a type or several, a list of what each entry shall be, or an object of what its fields shall be.
        name: of the part.

    Raises:
        RunError: if something is missing or of another type; says what.
    """
    if not isinstance(content, type(expected) if isinstance(expected, (list, dict)) else expected):
        raise RunError(f"{path}: {name} is not as it should be; {_AS_WRITTEN}")
    if isinstance(expected, list):
        for number, each in enumerate(content):
            check_fields(path, each, expected[0], f"{name}[{number}]")
    elif isinstance(expected, dict):
        for field, its in expected.items():
            where = f"{name}.{field}" if name else field
            if field not in content:
                raise RunError(f"{path} lacks {where}; {_AS_WRITTEN}")
            check_fields(path, content[field], its, where)


def write_metrics(path: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    """A metrics.jsonl of these epochs: those that the checkpoint knows of."""
    write_atomically(path, "".join(json.dumps(epoch) + "\n" for epoch in epochs))


def histories_frame(user_ids: pl.Series, sequences: Sequences, split: Split) -> pl.DataFrame:
    """What `histories.parquet` holds: each user's item indices, oldest first, and where training and validation end."""
    starts = sequences.starts[:-1]
    rows = pl.DataFrame(
        {
            USER: np.repeat(np.arange(sequences.num_users), sequences.lengths),
            HISTORY: sequences.items.astype(np.uint32),
        }
    )
    return pl.DataFrame(
        {
            USER: user_ids,
            HISTORY: rows.group_by(USER, maintain_order=True).agg(HISTORY)[HISTORY],
            _TRAIN_END: (split.train_end - starts).astype(np.uint32),
            _VALID_END: (split.valid_end - starts).astype(np.uint32),
        }
    )


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder alone."""

    path: Path
    options: AdaptOptions
    recommender: Recommender
    """In evaluation mode"""
    items: pl.DataFrame
    """item_index (1 to N, in order), item_id, title and text; those that were added come last"""
    user_ids: pl.Series
    sequences: Sequences
    split: Split
    results: Mapping[str, Any]
    """What results.json says"""

    def history_of(self, user_id: str) -> list[int]:
        """All item indices of a user, oldest first.

        Raises:
            RunError: if the run has no such user.
        """
        place = self.user_ids.index_of(user_id)
        if place is None:
            raise self._lacks_user(user_id)
        start, end = self.sequences.starts[place : place + 2]
        history: list[int] = self.sequences.items[start:end].tolist()
        return history

    def places_of(self, user_ids: Sequence[str]) -> list[int]:
        """Where users stand among all, from 0.

        Raises:
            RunError: if the run has not one of them.
        """
        wanted = pl.DataFrame({USER: user_ids}, schema={USER: pl.String})
        all_users = self.user_ids.to_frame(USER).with_row_index("place")
        places = wanted.join(all_users, on=USER, how="left", maintain_order="left")["place"]
        if places.null_count():
            raise self._lacks_user(wanted[USER].filter(places.is_null())[0])
        return places.to_list()

    def _lacks_user(self, user_id: str) -> RunError:
        examples = ", ".join(self.user_ids.head(5))
        return RunError(f"{self.path} has no user '{user_id}' among its {len(self.user_ids)} (such as {examples}).")

    def index_of(self, item_id: str) -> int:
        """An item's index.

        Raises:
            RunError: if the run has no such item.
        """
        found = self.items[ITEM].index_of(item_id)
        if found is None:
            examples = ", ".join(self.items[ITEM].head(5))
            titled = self.items.filter(pl.col(TITLE) == item_id)[ITEM]
            hint = f" It is a title: give the item's id, {titled[0]}." if len(titled) else ""
            hint = hint or (" Give --history once for each item." if "," in item_id else "")
            hint = hint or " An item that it was not trained with can be added (`ssna add-items`)."
            raise RunError(
                f"{self.path} has no item '{item_id}' among its {len(self.items)} (such as {examples}).{hint}"
            )
        return found + 1


def open_run(path: Path, device: torch.device, with_added: bool = False) -> Run:
    """The finished run in a folder.

    Args:
        path: of the folder.
        device: for the recommender.
        with_added: whether items that `ssna add-items` added are candidates too. Metrics are of those without.

    Raises:
        RunError: if the folder is missing, is no run, or the run is not finished.
    """
    if not path.is_dir():
        found = "is a file" if path.exists() else "does not exist"
        raise RunError(f"the run folder {path} {found}; expected a folder made by `ssna adapt`.")
    if runs := runs_of_study(path):
        raise RunError(
            f"{path} is a study of layers. Give one of its runs: {', '.join(str(path / run) for run in runs)}."
        )
    config = read_json(path / CONFIG_FILE)
    if not is_run(path):
        raise RunError(
            f"{path} is no run folder (its {CONFIG_FILE} is another one); expected one made by `ssna adapt`."
        )
    if not is_finished(path):
        raise RunError(
            f"{path} is not finished (it has no {RESULTS_FILE}). Run `ssna adapt` with --resume to finish it."
        )
    try:
        options = AdaptOptions(**config["options"])
        items = pl.read_parquet(path / ITEMS_FILE, columns=[ITEM_INDEX, ITEM, TITLE, TEXT])
        histories = pl.read_parquet(path / HISTORIES_FILE, columns=[USER, HISTORY, _TRAIN_END, _VALID_END])
    except (KeyError, TypeError, OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{path} is damaged ({error}); run `ssna adapt --overwrite` again.") from error
    recommender = _load_recommender(path / MODEL_FILE, options, len(items), device)
    if with_added and len(added := read_added(path, options.width)):
        assert isinstance(recommender, SequenceRecommender)
        recommender.add_items(torch.from_numpy(np.stack(added[VECTOR].to_list())))
        items = pl.concat([items, added.drop(VECTOR).with_row_index(ITEM_INDEX, offset=len(items) + 1)])
    starts = np.concatenate([[0], np.cumsum(histories[HISTORY].list.len().to_numpy().astype(np.int64))])
    sequences = Sequences(histories[HISTORY].explode().to_numpy().astype(np.int64), starts)
    split = Split(*(starts[:-1] + histories[column].to_numpy().astype(np.int64) for column in (_TRAIN_END, _VALID_END)))
    return Run(
        path=path,
        options=options,
        recommender=recommender,
        items=items,
        user_ids=histories[USER],
        sequences=sequences,
        split=split,
        results=read_json(path / RESULTS_FILE),
    )


def read_added(path: Path, width: int) -> pl.DataFrame:
    """item_id, title, text and vector of the items that were added to a run, in their order.

    Raises:
        RunError: if the file is damaged, or its vectors have not the width of this run's.
    """
    schema = {ITEM: pl.String(), TITLE: pl.String(), TEXT: pl.String(), VECTOR: pl.List(pl.Float32)}
    if not (path / ADDED_FILE).exists():
        return pl.DataFrame(schema=schema)
    try:
        added = pl.read_parquet(path / ADDED_FILE, columns=list(schema))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{path / ADDED_FILE} is damaged ({error}); remove it and add the items again.") from error
    if added.schema != schema or not (added[VECTOR].list.len() == width).all():
        raise RunError(f"{path / ADDED_FILE} is not of this run; remove it and add the items again.")
    return added


def item_parameters(path: Path) -> dict[str, torch.Tensor]:
    """The item encoder's part of a run's model.safetensors; see `encode_new_items`."""
    tensors, _ = load_tensors(path / MODEL_FILE)
    return {
        name.removeprefix(_ITEMS_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_ITEMS_PREFIX)
    }


def _load_recommender(path: Path, options: AdaptOptions, num_items: int, device: torch.device) -> Recommender:
    tensors, _ = load_tensors(path)
    own = {
        name.removeprefix(_RECOMMENDER_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(_RECOMMENDER_PREFIX)
    }
    popularity = options.model == "popularity"
    model = Popularity(num_items) if popularity else SequenceRecommender(num_items, options)
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        raise RunError(f"{path} does not fit the options in {CONFIG_FILE} ({error}).") from error
    return model.to(device).eval()


def tensors_of_model(
    model: Popularity | SequenceRecommender, item_encoder: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What model.safetensors holds: the recommender, item embeddings included, and what `item_parameters` gives."""
    return {
        **{_ITEMS_PREFIX + name: tensor for name, tensor in item_encoder.items()},
        **{_RECOMMENDER_PREFIX + name: tensor for name, tensor in model.state_dict().items()},
    }


def append_epoch(path: Path, epoch: Epoch) -> None:
    """Add an epoch's line to metrics.jsonl."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(vars(epoch)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """A Parquet file, written whole or not at all."""
    with replacing(path) as temporary:
        frame.write_parquet(temporary)
