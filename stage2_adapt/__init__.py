"""Stage two: the side network and the sequential recommender, trained from cached layer states.

The LLM is never loaded here, and `transformers` never imported.
"""

from ssna.stage2_adapt.checkpoint import load_tensors, save_tensors
from ssna.stage2_adapt.evaluation import Evaluation, evaluate, evaluate_fully
from ssna.stage2_adapt.metrics import bootstrap_interval, metrics_by_case, paired_p_value
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
from ssna.stage2_adapt.recommendation import top_items
from ssna.stage2_adapt.recommenders import Popularity, Recommender, SequenceRecommender
from ssna.stage2_adapt.sequences import (
    SPLITS,
    Sequences,
    Split,
    cases_of,
    leave_last,
    left_out,
    split_by_time,
    targets_of,
    training_counts,
)
from ssna.stage2_adapt.states import Preparation, fit_preparation, lowest_first
from ssna.stage2_adapt.training import Epoch, Training, TrainingData

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
    "OptionError",
    "Popularity",
    "Preparation",
    "Recommender",
    "SequenceRecommender",
    "Sequences",
    "Split",
    "Training",
    "TrainingData",
    "bootstrap_interval",
    "cases_of",
    "count_popularity",
    "evaluate",
    "evaluate_fully",
    "fit_preparation",
    "leave_last",
    "left_out",
    "load_tensors",
    "lowest_first",
    "metrics_by_case",
    "paired_p_value",
    "save_tensors",
    "split_by_time",
    "targets_of",
    "top_items",
    "training_counts",
]
