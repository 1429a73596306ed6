"""`ssna.similar`: the items whose vectors are nearest to an item's."""

from __future__ import annotations

from pathlib import Path

from torch.nn import functional

from ssna.api.recommend import ScoredItem, check_number, scored_items, vectors_of
from ssna.devices import resolve_device
from ssna.errors import RunError
from ssna.runs import open_run
from ssna.sources import id_text
from ssna.stage2_adapt import nearest_items


def similar(run: Path | str, item: str | int, *, k: int = 10, device: str = "auto") -> list[ScoredItem]:
    """The k items nearest to an item by the cosine of their vectors, which is their score; nearest first.

    Args:
        run: a run folder.
        item: an item's id, of the dataset or added since.
        k: how many; fewer where there are not so many others with a vector.
        device: a PyTorch device, or `auto`.

    Raises:
        RunError: if the folder is no finished run, has no such item, or no vector of it.
    """
    k = check_number(k)
    opened = open_run(Path(run), resolve_device(device), with_added=True)
    number = opened.index_of(id_text(item))
    vectors = vectors_of(opened)
    if not vectors[number].any():
        raise RunError(
            f"{run} has no vector of the item '{item}': it learned IDs only, and the item does not occur in training. "
            "Give a run with a side network."
        )
    return scored_items(opened, *nearest_items(functional.normalize(vectors, dim=1), number, k))
