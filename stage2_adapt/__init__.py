"""Stage two: the side network and the sequential recommender, trained from cached layer states.

The LLM is never loaded here, and `transformers` never imported. What serves a trained recommender loads nothing that
trains one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ssna.stage2_adapt.checkpoint import facts_of, load_tensors, save_tensors
from ssna.stage2_adapt.evaluation import POPULARITY_GROUPS, Evaluation, evaluate_fully
from ssna.stage2_adapt.inner_products import QueryNetwork, item_vectors
from ssna.stage2_adapt.metrics import (
    bootstrap_interval,
    intervals_by_group,
    intervals_of,
    metrics_by_case,
    paired_p_value,
)
from ssna.stage2_adapt.options import (
    ACTIVATIONS,
    CANDIDATES,
    FUSIONS,
    LOSSES,
    MODELS,
    PRECISIONS,
    PREPARATIONS,
    SCHEDULES,
    SCORERS,
    SIDES,
    AdaptOptions,
    OptionError,
    of_python,
)
from ssna.stage2_adapt.popularity import count_popularity
from ssna.stage2_adapt.processes import Processes, processes_of_torchrun
from ssna.stage2_adapt.recommendation import nearest_in_histories, nearest_items, top_items, top_items_of_all
from ssna.stage2_adapt.recommenders import Popularity, Recommender, SequenceRecommender
from ssna.stage2_adapt.sequences import (
    SPLITS,
    Sequences,
    Split,
    cases_of,
    gather_spans,
    leave_last,
    left_out,
    split_by_time,
    targets_of,
    training_counts,
)
from ssna.stage2_adapt.states import (
    ItemStates,
    Preparation,
    ResidentStates,
    StreamedStates,
    blocks_of,
    bytes_of_states,
    fit_preparation,
)

if TYPE_CHECKING:
    from ssna.stage2_adapt.new_items import encode_new_items
    from ssna.stage2_adapt.training import Epoch, Training, TrainingData, dtype_of_products

__all__ = [
    "ACTIVATIONS",
    "CANDIDATES",
    "FUSIONS",
    "LOSSES",
    "MODELS",
    "POPULARITY_GROUPS",
    "PRECISIONS",
    "PREPARATIONS",
    "SCHEDULES",
    "SCORERS",
    "SIDES",
    "SPLITS",
    "AdaptOptions",
    "Epoch",
    "Evaluation",
    "ItemStates",
    "OptionError",
    "Popularity",
    "Preparation",
    "Processes",
    "QueryNetwork",
    "Recommender",
    "ResidentStates",
    "SequenceRecommender",
    "Sequences",
    "Split",
    "StreamedStates",
    "Training",
    "TrainingData",
    "blocks_of",
    "bootstrap_interval",
    "bytes_of_states",
    "cases_of",
    "count_popularity",
    "dtype_of_products",
    "encode_new_items",
    "evaluate_fully",
    "facts_of",
    "fit_preparation",
    "gather_spans",
    "intervals_by_group",
    "intervals_of",
    "item_vectors",
    "leave_last",
    "left_out",
    "load_tensors",
    "metrics_by_case",
    "nearest_in_histories",
    "nearest_items",
    "of_python",
    "paired_p_value",
    "processes_of_torchrun",
    "save_tensors",
    "split_by_time",
    "targets_of",
    "top_items",
    "top_items_of_all",
    "training_counts",
]

# What trains, and what it needs, is imported when it is first used.
_TRAINING = {
    "Epoch": "ssna.stage2_adapt.training",
    "Training": "ssna.stage2_adapt.training",
    "TrainingData": "ssna.stage2_adapt.training",
    "dtype_of_products": "ssna.stage2_adapt.training",
    "encode_new_items": "ssna.stage2_adapt.new_items",
}


def __getattr__(name: str) -> Any:
    if name not in _TRAINING:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_TRAINING[name]), name)
