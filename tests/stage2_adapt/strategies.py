"""Made-up sequences."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ssna.stage2_adapt import Sequences

NUM_ITEMS = 9


def pack(histories: list[list[int]]) -> Sequences:
    """Sequences of these histories."""
    items = np.array([item for history in histories for item in history], np.int64)
    return Sequences(items, np.cumsum([0, *map(len, histories)]))


histories = st.lists(st.lists(st.integers(1, NUM_ITEMS), min_size=1, max_size=12), min_size=1, max_size=8)
