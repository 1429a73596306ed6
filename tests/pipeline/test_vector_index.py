"""Vector indices, and their recall against exact search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest
import torch

from ssna.vector_index import build_index, recall_of, write_index


@dataclass
class Answers:
    """An index that answers what it was made with."""

    rows: list[list[int]]

    def search(self, queries: npt.NDArray[np.float32], k: int) -> tuple[None, npt.NDArray[np.int64]]:
        return None, np.array([row[:k] for row in self.rows])


def test_recall_is_the_share_of_the_best_items_found() -> None:
    vectors = torch.arange(12.0, 0, -1)[:, None]  # By the query 1, row 0 is best, then 1, …
    queries = torch.ones(2, 1)
    best = list(range(12))
    assert recall_of(Answers([best, best]), vectors, queries) == (1, 1)
    # Of the first query's ten best, 8 and 9 are missing; of the second's, none; of all twelve, 8 and 9, and -1 is none.
    some = [*range(8), 10, 11, -1, -1]
    assert recall_of(Answers([some, best]), vectors, queries) == (18 / 20, 22 / 24)


def test_an_item_as_good_as_the_last_of_the_best_is_one_of_them() -> None:
    vectors = torch.tensor([[2.0]] * 9 + [[1.0]] * 3)
    assert recall_of(Answers([[*range(9), 11, 9, 10]]), vectors, torch.ones(1, 1)) == (1, 1)


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_an_index_finds_the_greatest_inner_products_and_comes_back_from_its_file(kind: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, queries = (torch.randn(n, 8, generator=generator) for n in (3000, 40))
    index = build_index(vectors, kind)  # type: ignore[arg-type]
    at_10, at_100 = recall_of(index, vectors, queries)
    assert at_10 > 0.95
    assert at_100 > 0.95
    if kind == "flat":
        assert (at_10, at_100) == (1, 1)
    write_index(index, tmp_path / "index")
    again = faiss.read_index(str(tmp_path / "index"))
    assert again.metric_type == faiss.METRIC_INNER_PRODUCT
    scores, rows = again.search(queries.numpy(), 5)
    np.testing.assert_array_equal(rows, index.search(queries.numpy(), 5)[1])
    np.testing.assert_allclose(scores[:, 0], (queries @ vectors.T).amax(dim=1), rtol=1e-5)
    assert again.ntotal == 3000
