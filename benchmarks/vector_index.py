"""Recall and time of the indices of `ssna export`, and of HNSW if the items' bias were not divided by the scale.

    python benchmarks/vector_index.py RUN

Prints the table of docs/export.md. One thread; exact search is the reference. The last row is the reason for the
form of the vectors (stage2_adapt/inner_products.py).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import faiss
import torch
from torch import Tensor

from ssna.api.export import queries_of_users
from ssna.runs import open_run
from ssna.stage2_adapt import QueryNetwork, SequenceRecommender, item_vectors
from ssna.terminal import print_table
from ssna.vector_index import build_index, recall_of


@click.command()
@click.argument("run", metavar="RUN")
@torch.no_grad()
def main(run: str) -> None:
    """Measure the indices of RUN."""
    faiss.omp_set_num_threads(1)
    opened = open_run(Path(run), torch.device("cpu"))
    model = opened.recommender
    assert isinstance(model, SequenceRecommender)
    vectors, queries = item_vectors(model), queries_of_users(opened, QueryNetwork(model).eval())
    scale = queries[0, -1]
    plain_vectors, plain_queries = vectors.clone(), queries.clone()
    plain_vectors[:, -1] *= scale
    plain_queries[:, -1] = 1
    rows = []
    for kind in ("flat", "hnsw"):
        rows.append([kind, *measured(lambda kind=kind: build_index(vectors, kind), vectors, queries)])
    plain = measured(lambda: build_index(plain_vectors, "hnsw"), plain_vectors, plain_queries)
    rows.append(["hnsw, bias not divided by the scale", *plain])
    print_table(["index", "recall@10", "recall@100", "build", "query"], rows)


def measured(build: Any, vectors: Tensor, queries: Tensor) -> list[str]:
    """Recall, seconds to build, and milliseconds of a query for a hundred items."""
    begun = time.perf_counter()
    index = build()
    built = time.perf_counter()
    index.search(queries.numpy(), 100)
    searched = time.perf_counter()
    at_10, at_100 = recall_of(index, vectors, queries)
    milliseconds = 1000 * (searched - built) / len(queries)
    return [f"{at_10:.4f}", f"{at_100:.4f}", f"{built - begun:.1f} s", f"{milliseconds:.2f} ms"]


if __name__ == "__main__":
    main()
