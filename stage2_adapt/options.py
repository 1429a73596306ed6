"""What `ssna adapt` can choose, with its defaults: their one home."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ssna.cache import SsnaError
from ssna.stage2_adapt.sequences import SPLITS, SplitName

ModelName = Literal["sasrec", "popularity"]
SideName = Literal["gru", "none"]
Candidates = Literal["interacted", "all"]

MODELS: tuple[ModelName, ...] = get_args(ModelName)
SIDES: tuple[SideName, ...] = get_args(SideName)
CANDIDATES: tuple[Candidates, ...] = get_args(Candidates)


class OptionError(SsnaError):
    """Options of stage two that do not go together, or have no such value."""


@dataclass(frozen=True)
class AdaptOptions:
    """The model, its training and its evaluation."""

    model: ModelName = "sasrec"
    """`sasrec`, or `popularity`: rank by the number of training interactions"""
    side: SideName = "gru"
    """How the layers' adapters are integrated; `none` learns item IDs only and needs no LLM"""
    layers: int | None = None
    """a, the top layers to adapt; None takes all that the cache holds"""
    item_id: bool = False
    """Add a learned ID embedding to the side network's item vector"""
    split: SplitName = "leave-one-out"
    """What is held out for validation and test"""
    candidates: Candidates = "interacted"
    """What is ranked: items with an interaction, or `all` with a text"""
    width: int = 64
    """d, of adapters, item vectors and SASRec"""
    length: int = 50
    """L, the most recent interactions that SASRec reads"""
    blocks: int = 2
    """SASRec's attention blocks"""
    heads: int = 2
    """Attention heads of each"""
    dropout: float = 0.2
    """In SASRec"""
    batch_size: int = 128
    """Sequences a training step"""
    learning_rate: float = 1e-3
    """Of AdamW"""
    weight_decay: float = 0.0
    """Of AdamW, on matrices only"""
    epochs: int = 100
    """At most so many passes over the training sequences"""
    patience: int = 20
    """Epochs without a better validation NDCG@10 after which training stops"""
    seed: int = 0
    """Of initialisation, order and dropout"""

    def __post_init__(self) -> None:
        """Check each value, and values against each other.

        Raises:
            OptionError: for the first that does not fit.
        """
        for name, choices in (
            ("model", MODELS),
            ("side", SIDES),
            ("split", SPLITS),
            ("candidates", CANDIDATES),
        ):
            if getattr(self, name) not in choices:
                raise OptionError(f"--{name} {getattr(self, name)}: expected one of {', '.join(choices)}.")
        for name in ("width", "length", "blocks", "heads", "batch_size", "epochs", "patience"):
            _at_least_one(name, getattr(self, name))
        if self.layers is not None:
            _at_least_one("layers", self.layers)
            if not self.needs_states:
                raise OptionError(f"--layers {self.layers} goes with a side network; this model reads no LLM states.")
        if self.item_id and not self.needs_states:
            raise OptionError("--item-id adds IDs to the text of a side network; this model has none. Leave it out.")
        if self.width % self.heads:
            raise OptionError(f"--width {self.width} cannot be divided among --heads {self.heads}; make it a multiple.")
        for name in ("dropout", "learning_rate", "weight_decay"):
            if not math.isfinite(getattr(self, name)):
                raise OptionError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected a finite number.")
        if not 0 <= self.seed < 2**63:
            raise OptionError(f"--seed {self.seed}: expected a whole number from 0 to 2^63 - 1.")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"--dropout {self.dropout:g}: expected a share from 0 to below 1.")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise OptionError(
                f"--learning-rate {self.learning_rate:g} and --weight-decay {self.weight_decay:g}: expected a number "
                "above 0 and one of at least 0."
            )

    @property
    def needs_states(self) -> bool:
        """Whether the model reads LLM states from a cache."""
        return self.model == "sasrec" and self.side != "none"

    @property
    def learns_ids(self) -> bool:
        """Whether items have a learned ID embedding."""
        return self.model == "sasrec" and (self.side == "none" or self.item_id)


def _at_least_one(name: str, value: Any) -> None:
    if value < 1:
        raise OptionError(f"--{name.replace('_', '-')} {value}: expected at least 1.")
