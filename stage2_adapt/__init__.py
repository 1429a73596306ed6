"""Stage two: the side network and the sequential recommender, trained from cached layer states.

The LLM is never loaded here, and `transformers` never imported.
"""

from ssna.stage2_adapt.checkpoint import load_tensors, save_tensors
from ssna.stage2_adapt.evaluation import evaluate
from ssna.stage2_adapt.options import CANDIDATES, MODELS, SIDES, AdaptOptions, OptionError
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
from ssna.stage2_adapt.states import Standardization, fit_standardization, lowest_first
from ssna.stage2_adapt.training import Epoch, Training, TrainingData

__all__ = [
    "CANDIDATES",
    "MODELS",
    "SIDES",
    "SPLITS",
    "AdaptOptions",
    "Epoch",
    "OptionError",
    "Popularity",
    "Recommender",
    "SequenceRecommender",
    "Sequences",
    "Split",
    "Standardization",
    "Training",
    "TrainingData",
    "cases_of",
    "count_popularity",
    "evaluate",
    "fit_standardization",
    "leave_one_out",
    "load_tensors",
    "lowest_first",
    "save_tensors",
    "split_by_time",
    "top_items",
    "training_counts",
]
