"""Stage two: the side network and the sequential recommender, trained from cached layer states.

The LLM is never loaded here, and `transformers` never imported. Names are imported when they are first used, so that
what serves a trained recommender loads nothing that trains one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssna.stage2_adapt.checkpoint import facts_of, load_tensors, save_tensors
    from ssna.stage2_adapt.evaluation import Evaluation, evaluate_fully
    from ssna.stage2_adapt.inner_products import QueryNetwork, item_vectors
    from ssna.stage2_adapt.metrics import bootstrap_interval, metrics_by_case, paired_p_value
    from ssna.stage2_adapt.new_items import encode_new_items
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
    )
    from ssna.stage2_adapt.popularity import count_popularity
    from ssna.stage2_adapt.processes import Processes, processes_of_torchrun
    from ssna.stage2_adapt.recommendation import nearest_items, top_items, top_items_of_all
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
        read_lowest_first,
    )
    from ssna.stage2_adapt.training import Epoch, Training, TrainingData, dtype_of_products

__all__ = [
    "ACTIVATIONS",
    "CANDIDATES",
    "FUSIONS",
    "LOSSES",
    "MODELS",
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
    "item_vectors",
    "leave_last",
    "left_out",
    "load_tensors",
    "metrics_by_case",
    "nearest_items",
    "paired_p_value",
    "processes_of_torchrun",
    "read_lowest_first",
    "save_tensors",
    "split_by_time",
    "targets_of",
    "top_items",
    "top_items_of_all",
    "training_counts",
]

_HOMES = {
    "ACTIVATIONS": "ssna.stage2_adapt.options",
    "CANDIDATES": "ssna.stage2_adapt.options",
    "FUSIONS": "ssna.stage2_adapt.options",
    "LOSSES": "ssna.stage2_adapt.options",
    "MODELS": "ssna.stage2_adapt.options",
    "PRECISIONS": "ssna.stage2_adapt.options",
    "PREPARATIONS": "ssna.stage2_adapt.options",
    "SCHEDULES": "ssna.stage2_adapt.options",
    "SCORERS": "ssna.stage2_adapt.options",
    "SIDES": "ssna.stage2_adapt.options",
    "SPLITS": "ssna.stage2_adapt.sequences",
    "AdaptOptions": "ssna.stage2_adapt.options",
    "Epoch": "ssna.stage2_adapt.training",
    "Evaluation": "ssna.stage2_adapt.evaluation",
    "ItemStates": "ssna.stage2_adapt.states",
    "OptionError": "ssna.stage2_adapt.options",
    "Popularity": "ssna.stage2_adapt.recommenders",
    "Preparation": "ssna.stage2_adapt.states",
    "Processes": "ssna.stage2_adapt.processes",
    "QueryNetwork": "ssna.stage2_adapt.inner_products",
    "Recommender": "ssna.stage2_adapt.recommenders",
    "ResidentStates": "ssna.stage2_adapt.states",
    "SequenceRecommender": "ssna.stage2_adapt.recommenders",
    "Sequences": "ssna.stage2_adapt.sequences",
    "Split": "ssna.stage2_adapt.sequences",
    "StreamedStates": "ssna.stage2_adapt.states",
    "Training": "ssna.stage2_adapt.training",
    "TrainingData": "ssna.stage2_adapt.training",
    "blocks_of": "ssna.stage2_adapt.states",
    "bootstrap_interval": "ssna.stage2_adapt.metrics",
    "bytes_of_states": "ssna.stage2_adapt.states",
    "cases_of": "ssna.stage2_adapt.sequences",
    "count_popularity": "ssna.stage2_adapt.popularity",
    "dtype_of_products": "ssna.stage2_adapt.training",
    "encode_new_items": "ssna.stage2_adapt.new_items",
    "evaluate_fully": "ssna.stage2_adapt.evaluation",
    "facts_of": "ssna.stage2_adapt.checkpoint",
    "fit_preparation": "ssna.stage2_adapt.states",
    "gather_spans": "ssna.stage2_adapt.sequences",
    "item_vectors": "ssna.stage2_adapt.inner_products",
    "leave_last": "ssna.stage2_adapt.sequences",
    "left_out": "ssna.stage2_adapt.sequences",
    "load_tensors": "ssna.stage2_adapt.checkpoint",
    "metrics_by_case": "ssna.stage2_adapt.metrics",
    "nearest_items": "ssna.stage2_adapt.recommendation",
    "paired_p_value": "ssna.stage2_adapt.metrics",
    "processes_of_torchrun": "ssna.stage2_adapt.processes",
    "read_lowest_first": "ssna.stage2_adapt.states",
    "save_tensors": "ssna.stage2_adapt.checkpoint",
    "split_by_time": "ssna.stage2_adapt.sequences",
    "targets_of": "ssna.stage2_adapt.sequences",
    "top_items": "ssna.stage2_adapt.recommendation",
    "top_items_of_all": "ssna.stage2_adapt.recommendation",
    "training_counts": "ssna.stage2_adapt.sequences",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
