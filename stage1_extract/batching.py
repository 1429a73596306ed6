"""Grouping tokenised texts into batches of similar length, so that little is padding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TokenIds = npt.NDArray[np.int32]
"""Of one text, ``(length,)``"""


def longest_first(lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
    """Positions of the texts, longest first: consecutive ones make a batch with little padding.

    A batch that is too large for the memory then shows at once, not after hours.
    """
    return np.argsort(-lengths.astype(np.int64), kind="stable")


def batch_size(longest: int, token_budget: int) -> int:
    """How many texts, padded to the longest of them, have at most `token_budget` tokens; at least one."""
    return max(1, token_budget // max(1, longest))
