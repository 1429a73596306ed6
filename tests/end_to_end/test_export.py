"""`ssna export`: what its files hold, how they are used without ssna, and a user's mistakes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file

import ssna
from ssna import AdaptOptions, Dataset, adapt
from ssna.errors import ExportError, RunError
from ssna.runs import open_run
from tests.helpers import ssna_in_process

ROOT = Path(__file__).parents[2]
NAMES = [
    "export.json",
    "item_ids.json",
    "item_vectors.npy",
    "item_vectors.faiss",
    "item_vectors.parquet",
    "item_vectors.safetensors",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """A folder with a run of each model, and an export of each as the command line makes it."""
    folder = tmp_path_factory.mktemp("place")
    for model in ("sasrec", "gru4rec", "hstu", "fmlp"):
        options = AdaptOptions(
            model=model, side="none", width=16, length=6, batch_size=16, epochs=3, learning_rate=0.01
        )  # type: ignore[arg-type]
        adapt(dataset.path, folder / model, options=options, device="cpu")
        done = ssna_in_process("export", model, f"{model}-export", cwd=folder)
        assert done.returncode == 0, done.stderr
    adapt(dataset.path, folder / "popularity", options=AdaptOptions(model="popularity"))
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_files_hold_the_same_vectors_in_the_order_of_the_ids(place: Path) -> None:
    folder, run = place / "sasrec-export", open_run(place / "sasrec", torch.device("cpu"))
    assert sorted(files_of(folder)) == sorted([*NAMES, "queries.onnx"])
    ids = json.loads((folder / "item_ids.json").read_text())
    assert ids == run.items["item_id"].to_list()
    tensors, vectors = load_file(folder / "item_vectors.safetensors"), np.load(folder / "item_vectors.npy")
    assert (vectors.shape, vectors.dtype) == ((24, 17), np.float32)
    np.testing.assert_array_equal(tensors["vectors"], vectors)
    model: Any = run.recommender
    np.testing.assert_array_equal(tensors["embeddings"], model.item_embeddings[1:])
    np.testing.assert_array_equal(tensors["repeat_biases"], model.repeat_biases().detach())
    rows = pl.read_parquet(folder / "item_vectors.parquet")
    assert rows.columns == ["item_index", "item_id", "title", "vector"]
    assert rows.drop("vector").equals(run.items.select("item_index", "item_id", "title"))
    np.testing.assert_array_equal(rows["vector"].to_numpy(), vectors)
    index = faiss.read_index(str(folder / "item_vectors.faiss"))
    np.testing.assert_array_equal(index.reconstruct_n(0, 24), vectors)


def test_the_description_says_what_was_made_and_measured(place: Path) -> None:
    said = json.loads((place / "gru4rec-export" / "export.json").read_text())
    assert (said["model"], said["scorer"], said["items"], said["dimensions"]) == ("gru4rec", "cosine", 24, 17)
    assert (said["history_length"], said["repeats_remembered"], len(said["repeat_biases"])) == (6, 1000, 6)
    assert said["index"] == {"kind": "flat", "recall_at_10": 1, "recall_at_100": 1, "queries": 60}
    assert 0 <= said["onnx"]["difference"] < 1e-4 < said["onnx"]["largest"]
    assert said["files"] == {
        "safetensors": "item_vectors.safetensors", "parquet": "item_vectors.parquet", "npy": "item_vectors.npy",
        "onnx": "queries.onnx", "faiss": "item_vectors.faiss", "ids": "item_ids.json", "description": "export.json",
    }  # fmt: skip


@pytest.mark.parametrize("model", ["sasrec", "gru4rec", "hstu", "fmlp"])
def test_the_code_of_the_document_recommends_what_ssna_does(place: Path, tmp_path: Path, model: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "serving").symlink_to(place / f"{model}-export")
    # At the end, which of our own modules it had loaded.
    code = "\n".join([*blocks, "print([m for m in sys.modules if m.split('.')[0] in ('ssna', 'torch')])"])
    (tmp_path / "recommend.py").write_text(code)
    history = ["i3", "i4", "i9", "i4", "i5", "i6", "i7", "i20", "i7", "i8"]  # With repeats, and longer than L.
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "recommend.py", *history],
        cwd=tmp_path, env=variables, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    for shown, repeats in ((lines[:10], False), (lines[10:], True)):
        expected = ssna.recommend(place / model, history=history, k=10, allow_repeats=repeats).items
        assert [line.split()[0] for line in shown] == [item.item_id for item in expected]
        assert [float(line.split()[1]) for line in shown] == pytest.approx([i.score for i in expected], abs=1e-3)


def test_formats_are_chosen_and_python_gives_what_the_command_prints(place: Path, tmp_path: Path) -> None:
    chosen = ["--format", "npy", "--format", "onnx", "--format", "npy"]
    done = ssna_in_process("export", place / "hstu", tmp_path / "one", *chosen, "--json")
    printed = json.loads(done.stdout)
    assert sorted(files_of(tmp_path / "one")) == ["export.json", "item_ids.json", "item_vectors.npy", "queries.onnx"]
    made = ssna.export(place / "hstu", tmp_path / "two", formats=["npy", "onnx"])
    assert made.onnx is not None
    assert (made.num_items, made.dimensions, made.index) == (24, 17, None)
    assert {name: path.name for name, path in made.files.items()} == {
        name: Path(path).name for name, path in printed["files"].items()
    }
    assert (printed["onnx"]["difference"], printed["index"]) == (made.onnx.difference, None)
    assert all(path.is_file() for path in made.files.values())
    shown = ssna_in_process("export", place / "hstu", tmp_path / "three").stdout
    assert "24 items, vectors of 17 dimensions" in shown
    assert (
        "index: exact search, recall@10 1.0000, recall@100 1.0000 against exact search (the histories of 60 users)"
        in shown
    )


def test_a_run_without_biases_is_exported(dataset: Dataset, tmp_path: Path) -> None:
    options = AdaptOptions(
        side="none", width=16, length=6, epochs=1, scorer="dot", popularity_bias=False, repeat_bias=False
    )
    adapt(dataset.path, tmp_path / "run", options=options, device="cpu")
    ssna.export(tmp_path / "run", tmp_path / "out")
    assert set(load_file(tmp_path / "out" / "item_vectors.safetensors")) == {"vectors", "embeddings"}
    vectors = np.load(tmp_path / "out" / "item_vectors.npy")
    np.testing.assert_array_equal(vectors[:, -1], 0)
    np.testing.assert_array_equal(
        vectors[:, :-1], load_file(tmp_path / "out" / "item_vectors.safetensors")["embeddings"]
    )
    assert json.loads((tmp_path / "out" / "export.json").read_text())["repeat_biases"] is None


@pytest.mark.parametrize("items", [1, 100_000])
def test_the_index_is_the_one_that_was_chosen(
    ids_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: int
) -> None:
    monkeypatch.setattr("ssna.api.export.FLAT_ITEMS", items)
    for name, kind, said in (
        ("flat", faiss.IndexFlatIP, "exact search"),
        ("hnsw", faiss.IndexHNSWFlat, "approximate search (HNSW)"),
    ):
        command = ["export", ids_run, tmp_path / "out", "--format", "faiss", "--index", name, "--overwrite"]
        done = ssna_in_process(*command)
        assert f"index: {said}, recall@10 1.0000, recall@100 1.0000 against exact search" in done.stdout
        assert type(faiss.read_index(str(tmp_path / "out" / "item_vectors.faiss"))) is kind
        made = ssna.export(ids_run, tmp_path / "out", formats=["faiss"], index=name, overwrite=True).index  # type: ignore[arg-type]
        assert made is not None
        assert (made.kind, made.recall_at_10, made.queries) == (name, 1, 60)


def test_an_index_that_is_not_to_be_written_is_refused(ids_run: Path, tmp_path: Path) -> None:
    done = ssna_in_process("export", ids_run, tmp_path / "out", "--format", "npy", "--index", "flat")
    assert done.stderr == (
        "Error: --index flat is about the format faiss, which is not to be written. Name that too.\n"
    )
    with pytest.raises(ExportError, match="--index ivf: expected one of auto, flat, hnsw"):
        ssna.export(ids_run, tmp_path / "out", index="ivf")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_large_catalogue_gets_an_approximate_index(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssna.api.export.FLAT_ITEMS", 23)
    done = ssna_in_process("export", place / "sasrec", tmp_path / "out", "--format", "faiss")
    assert "index: approximate search (HNSW), recall@10 1.0000, recall@100 1.0000 against exact search" in done.stdout
    assert json.loads((tmp_path / "out" / "export.json").read_text())["index"]["kind"] == "hnsw"
    assert isinstance(faiss.read_index(str(tmp_path / "out" / "item_vectors.faiss")), faiss.IndexHNSWFlat)


def test_an_export_is_replaced_when_asked_and_leaves_no_file_of_the_old_one(place: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(place / "sasrec-export", tmp_path / "out"))
    (out / "notes.txt").write_text("mine")
    before = files_of(out)
    done = ssna_in_process("export", place / "hstu", out, "--format", "npy")
    assert done.returncode == 1
    assert done.stderr == f"Error: {out} exists and is not empty. Give another folder, or --overwrite to replace it.\n"
    assert files_of(out) == before
    assert ssna_in_process("export", place / "hstu", out, "--format", "npy", "--overwrite").returncode == 0
    assert sorted(files_of(out)) == ["export.json", "item_ids.json", "item_vectors.npy", "notes.txt"]
    assert files_of(out)["item_vectors.npy"] == files_of(place / "hstu-export")["item_vectors.npy"]


def test_overwrite_never_touches_a_folder_that_is_no_export(place: Path, tmp_path: Path) -> None:
    (tmp_path / "items.parquet").write_text("somebody's")  # As dataset and run folders have one.
    for folder in (tmp_path, place / "sasrec"):
        before = files_of(folder)
        done = ssna_in_process("export", place / "sasrec", folder, "--overwrite")
        assert done.returncode == 1
        assert "is not empty and is no export, so --overwrite does not touch it" in done.stderr
        assert files_of(folder) == before


def test_a_failing_export_leaves_what_was_there(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Path(shutil.copytree(place / "sasrec-export", tmp_path / "out"))
    before = files_of(out)
    monkeypatch.setattr("ssna.onnx_model.TOLERANCE", 0)
    for overwrite, folder in ((True, out), (False, tmp_path / "new")):
        with pytest.raises(ExportError, match="differ from PyTorch's"):
            ssna.export(place / "hstu", folder, overwrite=overwrite)
    assert files_of(out) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("missing out", 1, "the run folder missing does not exist; expected a folder made by `ssna adapt`."),
        (
            "popularity out",
            1,
            "popularity is a popularity baseline, which has no vectors. Give a run of another --model.",
        ),
        (
            "sasrec out --format csv",
            2,
            "Invalid value for '--format': 'csv' is not one of 'safetensors', 'parquet', 'npy'",
        ),
        (
            "sasrec popularity/config.json",
            1,
            "popularity/config.json is a file; expected the name of a new or empty folder",
        ),
        ("unfinished out", 1, "unfinished is not finished (it has no results.json)."),
        ("study out", 1, "study is a study of layers. Give one of its runs: study/layers-1"),
        ("sasrec", 2, "Missing argument 'OUTPUT'. See `ssna export --help`."),
    ],
)
def test_mistakes_end_in_one_sentence(place: Path, arguments: str, status: int, message: str) -> None:
    if not (place / "study").exists():
        shutil.copytree(place / "sasrec", place / "unfinished")
        (place / "unfinished" / "results.json").unlink()
        (place / "study").mkdir()
        (place / "study" / "study.json").write_text('{"runs": [{"layers": 1, "run": "layers-1", "results": {}}]}')
    done = ssna_in_process("export", *arguments.split(), cwd=place)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (place / "out").exists()


def test_mistakes_from_python(place: Path, tmp_path: Path) -> None:
    for formats, message in (
        (["csv"], "found 'csv' as a format"),
        ([], "found none"),
        ("npy", r"expected a list, such as \['npy'\]"),
    ):
        with pytest.raises(ExportError, match=message):
            ssna.export(place / "sasrec", tmp_path / "out", formats=formats)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="does not exist"):
        ssna.export(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "package"), [("onnx", "onnxruntime"), ("faiss", "faiss")])
def test_a_missing_package_is_named_before_anything_is_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == package else there(asked))
    done = ssna_in_process("export", place / "sasrec", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: the format {name} needs the package {package}, which is not installed. Install it: pip install "
        "'ssna[export]', or name the other formats (--format).\n"
    )
    assert not (tmp_path / "out").exists()
    ssna.export(place / "sasrec", tmp_path / "out", formats=["safetensors", "parquet", "npy"])
