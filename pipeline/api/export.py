"""`ssna.export`: a finished run as files for serving systems that have neither ssna nor PyTorch (docs/export.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ssna import __version__
from ssna.cache.files import TEMPORARY_PREFIX
from ssna.columns import ITEM, ITEM_INDEX, TITLE
from ssna.errors import ExportError
from ssna.extras import check_installed
from ssna.folders import check_output, filling
from ssna.onnx_model import OnnxCheck, write_onnx
from ssna.runs import Run, open_run, write_json
from ssna.stage2_adapt import QueryNetwork, SequenceRecommender, gather_spans, item_vectors, save_tensors
from ssna.vector_index import FLAT_ITEMS, IndexCheck, IndexKind, build_index, recall_of, write_index

ExportFormat = Literal["safetensors", "parquet", "npy", "onnx", "faiss"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

IndexChoice = Literal["auto", "flat", "hnsw"]
INDEXES: tuple[IndexChoice, ...] = get_args(IndexChoice)

_FILE_OF: dict[ExportFormat, str] = {
    "safetensors": "item_vectors.safetensors",
    "parquet": "item_vectors.parquet",
    "npy": "item_vectors.npy",
    "onnx": "queries.onnx",
    "faiss": "item_vectors.faiss",
}
_IDS_FILE = "item_ids.json"
_DESCRIPTION_FILE = "export.json"  # Written last, so it marks a whole export.
_ALL_FILES = {*_FILE_OF.values(), _IDS_FILE, _DESCRIPTION_FILE}
_NEEDS: dict[ExportFormat, tuple[str, ...]] = {"onnx": ("onnx", "onnxruntime"), "faiss": ("faiss",)}

# Users whose histories measure the index; chosen at random, with this seed.
_MEASURED_USERS, _SEED = 1000, 0


@dataclass(frozen=True)
class Export:
    """What was written, and how it compares with the model."""

    output: Path
    files: dict[str, Path]
    """By format, and `ids` and `description`, which are always written"""
    num_items: int
    dimensions: int
    """d + 1, of the vectors"""
    onnx: OnnxCheck | None
    """None if that format was not asked for"""
    index: IndexCheck | None
    """Likewise"""


def export(
    run: Path | str,
    output: Path | str,
    *,
    formats: Sequence[ExportFormat] = FORMATS,
    index: IndexChoice = "auto",
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Export:
    """Write a run's item vectors, its query network as ONNX and an index, each on its own or together.

    The inner product of a query and an item vector is the model's score. The ONNX file is compared with PyTorch, and
    the index with exact search over the histories of the run's users, before anything takes its place.

    Args:
        run: a run folder.
        output: a folder; made if it is missing.
        formats: of `FORMATS`; all by default.
        index: of the format `faiss`: `flat` searches exactly, `hnsw` approximately, in a graph; `auto` takes `flat` for
            up to 100,000 items. The recall of either is measured.
        overwrite: whether an export that is there may be replaced, files of formats not asked for removed.
        on_progress: called with the formats that are written (and compared with the model) and their number.

    Raises:
        ExportError: if a format or index is unknown, the run has no vectors (popularity), or the ONNX model differs
            from PyTorch.
        PackageError: if a format's package is not installed.
        RunError: if the folder is no finished run.
        OutputError: if the output is a file, or not empty and not to be replaced.
    """
    wanted = _checked(formats)
    if index not in INDEXES:
        raise ExportError(f"--index {index}: expected one of {', '.join(INDEXES)}.")
    if index != "auto" and "faiss" not in wanted:
        raise ExportError(f"--index {index} is about the format faiss, which is not to be written. Name that too.")
    run, output = Path(run), Path(output)
    check_output(output, overwrite, _is_export, "export")
    opened = open_run(run, torch.device("cpu"), with_added=True)
    model = opened.recommender
    if not isinstance(model, SequenceRecommender):
        raise ExportError(f"{run} is a popularity baseline, which has no vectors. Give a run of another --model.")
    names: dict[str, str] = {name: _FILE_OF[name] for name in wanted}
    names |= {"ids": _IDS_FILE, "description": _DESCRIPTION_FILE}
    progress, num_vector_files = on_progress or (lambda done, total: None), sum(name not in _NEEDS for name in wanted)
    with torch.no_grad(), filling(output, list(names.values())) as folder:
        vectors, network = item_vectors(model), QueryNetwork(model).eval()
        places = {name: folder / file for name, file in names.items()}
        progress(0, len(wanted))
        _write_vectors(opened, model, vectors, places)
        progress(num_vector_files, len(wanted))
        onnx = write_onnx(network, places["onnx"]) if "onnx" in places else None
        progress(num_vector_files + (onnx is not None), len(wanted))
        check = _write_index(opened, network, vectors, index, places["faiss"]) if "faiss" in places else None
        places["ids"].write_text(json.dumps(opened.items[ITEM].to_list(), ensure_ascii=False) + "\n", encoding="utf-8")
        write_json(places["description"], _description(opened, model, vectors, names, onnx, check))
    for stale in _ALL_FILES - set(names.values()):
        (output / stale).unlink(missing_ok=True)
    return Export(
        output=output,
        files={name: output / file for name, file in names.items()},
        num_items=len(vectors),
        dimensions=vectors.shape[1],
        onnx=onnx,
        index=check,
    )


def _checked(formats: Sequence[ExportFormat]) -> list[ExportFormat]:
    """The formats, each once, if all are known and can be written."""
    if isinstance(formats, str):
        raise ExportError(f"formats is the text '{formats}'; expected a list, such as ['{formats}'].")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        found = f"found '{unknown[0]}'" if unknown else "found none"
        raise ExportError(f"{found} as a format to export; expected one or more of {', '.join(FORMATS)}.")
    for name in formats:
        for package in _NEEDS.get(name, ()):
            check_installed(package, "export", f"the format {name}", "or name the other formats (--format)")
    return list(dict.fromkeys(formats))


def _is_export(path: Path) -> bool:
    """Whether a folder holds an export, whole or in part."""
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(TEMPORARY_PREFIX)}
    return _DESCRIPTION_FILE in names or names <= _ALL_FILES


def _write_vectors(run: Run, model: SequenceRecommender, vectors: Tensor, places: dict[str, Path]) -> None:
    """Those of the three forms of item vectors that have a place."""
    if "safetensors" in places:
        tensors = {"vectors": vectors, "embeddings": model.item_embeddings[1:]}
        biases = model.repeat_biases()
        if biases is not None:
            tensors["repeat_biases"] = biases
        save_tensors(places["safetensors"], tensors, {"ssna": __version__})
    if "parquet" in places:
        column = pl.Series("vector", vectors.numpy(), dtype=pl.Array(pl.Float32, vectors.shape[1]))
        run.items.select(ITEM_INDEX, ITEM, TITLE).with_columns(column).write_parquet(places["parquet"])
    if "npy" in places:
        np.save(places["npy"], vectors.numpy())


def _write_index(run: Run, network: QueryNetwork, vectors: Tensor, choice: IndexChoice, path: Path) -> IndexCheck:
    by_size: IndexKind = "flat" if len(vectors) <= FLAT_ITEMS else "hnsw"
    kind = by_size if choice == "auto" else choice
    index = build_index(vectors, kind)
    write_index(index, path)
    queries = queries_of_users(run, network)
    return IndexCheck(kind, *recall_of(index, vectors, queries), len(queries))


def queries_of_users(run: Run, network: QueryNetwork) -> Tensor:
    """Queries ``(Q, d + 1)`` of some users' whole histories, from which `recommend` recommends."""
    users = np.flatnonzero(run.sequences.lengths)
    chosen = np.random.default_rng(_SEED).permutation(users)[:_MEASURED_USERS]
    start, end = (torch.from_numpy(run.sequences.starts[chosen + after]) for after in (0, 1))
    items = torch.from_numpy(run.sequences.items)
    histories, counts = gather_spans(items, start, end, network.model.read_length)
    queries: Tensor = network(histories, counts)
    return queries


def _description(
    run: Run,
    model: SequenceRecommender,
    vectors: Tensor,
    names: dict[str, str],
    onnx: OnnxCheck | None,
    index: IndexCheck | None,
) -> dict[str, Any]:
    """What export.json says (docs/export.md)."""
    biases = model.repeat_biases()
    return {
        "ssna": __version__,
        "run": str(run.path),
        "model": run.options.model,
        "scorer": run.options.scorer,
        "items": len(vectors),
        "dimensions": vectors.shape[1],
        "history_length": model.read_length,
        "repeat_biases": None if biases is None else biases.tolist(),
        "repeats_remembered": None if biases is None else model.length,
        "files": names,
        "onnx": None if onnx is None else asdict(onnx),
        "index": None if index is None else asdict(index),
    }
