"""Grouping tokenised texts into batches of similar length, so that little is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt


def batches_by_length(lengths: Sequence[int], token_budget: int) -> Iterator[npt.NDArray[np.intp]]:
    """Positions of each batch's texts, longest texts first; every text is in exactly one batch.

    A batch holds as many texts as fit when each is padded to the longest of them, and at least one.

    Args:
        lengths: tokens of each text.
        token_budget: tokens of a batch, padding included.
    """
    counts = np.asarray(lengths)
    order = np.argsort(-counts, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(counts[order[start]]))
        size = max(1, token_budget // longest)
        yield order[start : start + size]
        start += size
