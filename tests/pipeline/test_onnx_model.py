"""The ONNX file computes what PyTorch does, and one that does not is refused."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch

from ssna.errors import ExportError
from ssna.onnx_model import check_onnx, write_onnx
from ssna.stage2_adapt import AdaptOptions, QueryNetwork, SequenceRecommender


def make(model: str = "sasrec") -> QueryNetwork:
    torch.manual_seed(0)
    recommender = SequenceRecommender(9, AdaptOptions(model=model, width=8, length=4, heads=2))  # type: ignore[arg-type]
    torch.nn.init.normal_(recommender.item_embeddings)
    return QueryNetwork(recommender).eval()


@pytest.mark.parametrize("model", ["sasrec", "gru4rec", "hstu", "fmlp"])
@torch.no_grad()
def test_every_model_is_exported_for_any_batch_and_length(model: str, tmp_path: Path) -> None:
    network = make(model)
    checked = write_onnx(network, tmp_path / "queries.onnx")
    assert checked.difference < 1e-5 < 0.1 < checked.largest
    session = onnxruntime.InferenceSession(tmp_path / "queries.onnx", providers=["CPUExecutionProvider"])
    for lengths in ([1], [3, 1], [4, 4, 2], [11, 5, 1, 4, 7]):
        counts = torch.tensor(lengths)
        items = torch.randint(1, 10, (len(lengths), max(lengths)))
        histories = torch.where(torch.arange(max(lengths)) < counts[:, None], items, 0)
        (found,) = session.run(None, {"histories": histories.numpy(), "counts": counts.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), network(histories, counts), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_file_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    network = make()
    write_onnx(network, tmp_path / "queries.onnx")
    network.model.network.norm.bias += 0.01  # type: ignore[operator, union-attr]
    with pytest.raises(ExportError, match="queries differ from PyTorch's by .* so nothing was written"):
        check_onnx(network, tmp_path / "queries.onnx")


def test_queries_that_are_nan_are_refused(tmp_path: Path) -> None:
    network = make()
    network.model.item_embeddings[1:] = torch.nan
    with pytest.raises(ExportError, match="differ from PyTorch's by nan"):
        write_onnx(network, tmp_path / "queries.onnx")


def test_a_model_beyond_what_onnx_files_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssna.onnx_model._MOST_BYTES", 1000)
    with pytest.raises(
        ExportError, match=r"with its item embeddings, and an ONNX file holds fewer than 1,000\. Export"
    ):
        write_onnx(make(), tmp_path / "queries.onnx")
    assert not (tmp_path / "queries.onnx").exists()
