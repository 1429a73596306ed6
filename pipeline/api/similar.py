"""`ssna.similar`: the items whose vectors are nearest to an item's."""

from __future__ import annotations

from pathlib import Path

from ssna.api.recommend import ScoredItem, check_number, described_items
from ssna.devices import resolve_device
from ssna.errors import RunError
from ssna.runs import open_run
from ssna.stage2_adapt import SequenceRecommender, nearest_items


def similar(run: Path | str, item: str | int, *, k: int = 10, device: str = "auto") -> list[ScoredItem]:
    """The k items nearest to an item by the cosine of their vectors, which is their score; nearest first.

    Args:
        run: a run folder.
        item: an item's id, of the dataset or added since.
        k: how many.
        device: a PyTorch device, or `auto`.

    Raises:
        RunError: if the folder is no finished run, has no such item, or no vector of it.
    """
    check_number(k)
    opened = open_run(Path(run), resolve_device(device), with_added=True)
    number = opened.index_of(str(item))
    if not isinstance(opened.recommender, SequenceRecommender):
        raise RunError(f"{run} ranks by popularity and has no item vectors. Give a run with a side network or IDs.")
    vectors = opened.recommender.item_embeddings
    if not vectors[number].any():
        raise RunError(
            f"{run} has no vector of the item '{item}': it learned IDs only, and the item does not occur in training. "
            "Give a run with a side network."
        )
    near, cosines = nearest_items(vectors, [number], None, min(k, opened.recommender.num_items - 1))
    described = described_items(opened, near[0].tolist())
    return [ScoredItem(*each, cosine) for each, cosine in zip(described, cosines[0].tolist(), strict=True)]
