"""A recommender's query network as an ONNX file that was found to compute what PyTorch does."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssna.errors import ExportError
from ssna.stage2_adapt import QueryNetwork

# Of the largest value of all queries: what sums in another order may differ by, and a wrong graph does not stay below.
TOLERANCE = 1e-4
HISTORIES, COUNTS, QUERIES = "histories", "counts", "queries"
_OPSET = 17
_BATCHES = (1, 2, 16)
_MOST_BYTES = 2**31  # Of a protobuf message.


@dataclass(frozen=True)
class OnnxCheck:
    """How an ONNX file's queries compare with PyTorch's, over random histories of several lengths and batch sizes."""

    difference: float
    """The greatest, of any value of any query"""
    largest: float
    """The largest value of all queries"""
    histories: int
    """How many were compared"""


@torch.no_grad()
def write_onnx(network: QueryNetwork, path: Path) -> OnnxCheck:
    """Write the network, item embeddings included, and compare it with PyTorch.

    Args:
        network: in evaluation mode, on the CPU.
        path: the file.

    Raises:
        ExportError: if it is too large for ONNX, or computes something else.
    """
    num_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    if num_bytes >= _MOST_BYTES:
        raise ExportError(
            f"the model has {num_bytes:,} bytes with its item embeddings, and an ONNX file holds fewer than "
            f"{_MOST_BYTES:,}. Export the other formats (--format)."
        )
    # Longer than what the network reads, so that the trace has the step that takes the last items.
    histories, counts = _random_histories(network, 2, network.model.read_length + 1)
    with warnings.catch_warnings():
        # Not the exporter of torch.export: that one cannot export a GRU (PyTorch 2.13), and takes ten times as long.
        # This one warns that it is the older one, and of sizes that might have become constants: the check would tell.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (histories, counts),
            str(path),
            input_names=[HISTORIES, COUNTS],
            output_names=[QUERIES],
            dynamic_axes={HISTORIES: {0: "batch", 1: "length"}, COUNTS: {0: "batch"}, QUERIES: {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
        )
    return check_onnx(network, path)


def check_onnx(network: QueryNetwork, path: Path) -> OnnxCheck:
    """Compare a file with the network that it was made from.

    Raises:
        ExportError: if they differ by more than `TOLERANCE` of the largest value.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    length = network.model.read_length
    differences, values, compared = list[Tensor](), list[Tensor](), 0
    for long in sorted({1, 2, max(1, length // 2), length, length + 1, 2 * length}):
        for batch in _BATCHES:
            histories, counts = _random_histories(network, batch, long)
            expected = network(histories, counts)
            (found,) = session.run(None, {HISTORIES: histories.numpy(), COUNTS: counts.numpy()})
            differences.append((torch.from_numpy(found) - expected).abs().max())
            values.append(expected.abs().max())
            compared += batch
    difference, largest = float(torch.stack(differences).max()), float(torch.stack(values).max())
    if not difference <= TOLERANCE * largest:  # NaN is not either.
        raise ExportError(
            f"the ONNX model's queries differ from PyTorch's by {difference:.1e}, more than {TOLERANCE:.0e} of their "
            f"largest value {largest:.3g}, so nothing was written. This is a defect of ssna or of these versions: "
            f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}. Export the other formats (--format)."
        )
    return OnnxCheck(difference, largest, compared)


def _random_histories(network: QueryNetwork, batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Left-aligned histories ``(B, L)``, the first of them of the full length, and how many items each has."""
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    counts = torch.randint(1, length + 1, (batch,), generator=generator)
    counts[0] = length
    items = torch.randint(1, network.model.num_items + 1, (batch, length), generator=generator)
    return torch.where(torch.arange(length) < counts[:, None], items, 0), counts
