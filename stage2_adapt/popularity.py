"""The popularity baseline."""

from __future__ import annotations

import torch

from ssna.stage2_adapt.recommenders import Popularity
from ssna.stage2_adapt.sequences import Sequences, Split, training_counts


def count_popularity(sequences: Sequences, split: Split, num_items: int) -> Popularity:
    """A recommender that ranks by the number of training interactions."""
    model = Popularity(num_items)
    counts = training_counts(sequences, split, num_items)[1:]
    model.training_counts.copy_(torch.from_numpy(counts))
    return model.eval()
