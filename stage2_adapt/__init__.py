"""Stage two: the side network and the sequential recommender, trained from cached layer states.

The LLM is never loaded here, and `transformers` never imported.
"""

from ssna.stage2_adapt.checkpoint import load_tensors, save_tensors
from ssna.stage2_adapt.evaluation import evaluate
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
    leave_one_out,
    split_by_time,
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
    "OptionError",
    "Popularity",
    "Preparation",
    "Recommender",
    "SequenceRecommender",
    "Sequences",
    "Split",
    "Training",
    "TrainingData",
    "cases_of",
    "count_popularity",
    "evaluate",
    "fit_preparation",
    "leave_one_out",
    "load_tensors",
    "lowest_first",
    "save_tensors",
    "split_by_time",
    "top_items",
    "training_counts",
]
