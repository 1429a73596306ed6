"""A FAISS index of item vectors, and how much of an exact search's answer it finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

IndexKind = Literal["flat", "hnsw"]
# Up to so many items an exact search takes about two milliseconds on a CPU core, as HNSW does (docs/export.md).
FLAT_ITEMS = 100_000
# HNSW (Malkov and Yashunin, arXiv 1603.09320): links of an item, and candidates while it is built and searched.
_LINKS, _BUILD_CANDIDATES, _SEARCH_CANDIDATES = 32, 200, 512
_CUTOFFS = (10, 100)
_QUERIES_AT_ONCE = 64


@dataclass(frozen=True)
class IndexCheck:
    """What of the exact best items an index finds, for the histories of users."""

    kind: IndexKind
    """`flat` searches exactly, `hnsw` approximately"""
    recall_at_10: float
    recall_at_100: float
    queries: int
    """Users whose histories were asked for"""


def build_index(vectors: Tensor, kind: IndexKind) -> Any:
    """A FAISS index of vectors ``(N, d + 1)`` for the greatest inner product; its ids are rows, from 0."""
    import faiss

    width = vectors.shape[1]
    index: Any
    if kind == "flat":
        index = faiss.IndexFlatIP(width)
    else:
        index = faiss.IndexHNSWFlat(width, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = _BUILD_CANDIDATES, _SEARCH_CANDIDATES
    index.add(vectors.numpy())
    return index


def write_index(index: Any, path: Path) -> None:
    """The index as a file that `faiss.read_index` reads; the number of candidates of a search is in it."""
    import faiss

    faiss.write_index(index, str(path))


def recall_of(index: Any, vectors: Tensor, queries: Tensor) -> tuple[float, float]:
    """Recall@10 and @100 against exact search: the share of the k best items (of all, where there are fewer).

    An item whose score is that of the last of them counts as one of them, so that ties, and the last bit of a sum, do
    not make an exact index inexact.

    Args:
        index: of the vectors.
        vectors: ``(N, d + 1)``.
        queries: ``(Q, d + 1)``, at least one.
    """
    found = dict.fromkeys(_CUTOFFS, 0)
    deepest = min(max(_CUTOFFS), len(vectors))
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        some = queries[start : start + _QUERIES_AT_ONCE]
        scores = some @ vectors.T  # (Q, N)
        best = scores.topk(deepest, dim=1).values
        rows = torch.from_numpy(index.search(some.numpy(), deepest)[1])  # Of what is not found, -1.
        got = scores.gather(1, rows.clamp_min(0)).masked_fill(rows < 0, -torch.inf)
        for k in _CUTOFFS:
            last = best[:, : min(k, deepest)][:, -1:]
            slack = 1e-6 * best.abs().amax(dim=1, keepdim=True)
            found[k] += int((got[:, :k] >= last - slack).sum())
    at_10, at_100 = (found[k] / (len(queries) * min(k, deepest)) for k in _CUTOFFS)
    return at_10, at_100
