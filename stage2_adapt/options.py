"""What `ssna adapt` can choose, with its defaults: their one home."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ssna.cache import SsnaError
from ssna.stage2_adapt.sequences import LEAVE_ONE_OUT, SPLITS, left_out

ModelName = Literal["sasrec", "gru4rec", "hstu", "fmlp", "popularity"]
SideName = Literal["gru", "gate", "residual", "mean", "concat", "last", "frozen", "none"]
PreparationName = Literal["standardize", "whiten", "none"]
ActivationName = Literal["gelu", "relu", "silu", "tanh"]
FusionName = Literal["add", "gate"]
LossName = Literal["softmax", "sampled", "in-batch", "gbce"]
ScorerName = Literal["cosine", "dot"]
ScheduleName = Literal["constant", "cosine"]
Precision = Literal["auto", "float32", "bfloat16"]
Candidates = Literal["interacted", "all"]
ForEachLLM = int | None | tuple[int | None, ...]
_OfEachLLM = Literal["layers", "text", "components", "side_width"]

MODELS: tuple[ModelName, ...] = get_args(ModelName)
SIDES: tuple[SideName, ...] = get_args(SideName)
PREPARATIONS: tuple[PreparationName, ...] = get_args(PreparationName)
ACTIVATIONS: tuple[ActivationName, ...] = get_args(ActivationName)
FUSIONS: tuple[FusionName, ...] = get_args(FusionName)
LOSSES: tuple[LossName, ...] = get_args(LossName)
SCORERS: tuple[ScorerName, ...] = get_args(ScorerName)
SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
CANDIDATES: tuple[Candidates, ...] = get_args(Candidates)
_FOR_EACH_LLM: tuple[_OfEachLLM, ...] = get_args(_OfEachLLM)


class OptionError(SsnaError):
    """Options of stage two that do not go together, or have no such value."""


@dataclass(frozen=True)
class AdaptOptions:
    """The model, its training and its evaluation."""

    model: ModelName = "sasrec"
    """`sasrec`, `gru4rec`, `hstu` or `fmlp`; or `popularity`: rank by the number of training interactions"""
    side: SideName = "residual"
    """How the layers' adapters are integrated; `none` learns item IDs only and needs no LLM"""
    layers: ForEachLLM = None
    """a, the top layers to adapt, of every LLM or of each in turn; None takes all that its cache holds"""
    text: str | tuple[str | None, ...] | None = None
    """Templates over the items' fields that were extracted, likewise; None takes the items' own text"""
    preparation: PreparationName = "standardize"
    """What is done to the states first"""
    components: ForEachLLM = None
    """K, the principal components of each layer's states that are read, of every LLM or of each; None reads all"""
    side_width: ForEachLLM = None
    """m, of the adapters and their integration, likewise; None takes `width`"""
    side_dropout: float = 0.0
    """On the adapters' outputs"""
    activation: ActivationName = "gelu"
    """Of the adapters"""
    item_id: bool = False
    """Add a learned ID embedding to the side network's item vector"""
    id_dropout: float = 0.9
    """Share of the items whose ID embedding is left out, in each training step anew, so that the text learns too"""
    fusion: FusionName = "add"
    """Of several LLMs' side networks, and of IDs: `add`, or `gate`, by weights that depend on the text"""
    split: str = LEAVE_ONE_OUT
    """What is held out for validation and test: `leave-one-out`, `leave-last-K`, or `time`"""
    candidates: Candidates = "interacted"
    """What is ranked: items with an interaction, or `all` with a text"""
    width: int = 64
    """d, of item vectors and of the sequence model"""
    length: int = 50
    """L, the most recent interactions that the sequence model reads"""
    blocks: int = 2
    """Of the sequence model"""
    heads: int = 2
    """Attention heads of each block"""
    dropout: float = 0.2
    """In the sequence model"""
    scorer: ScorerName = "cosine"
    """`cosine` with a learned temperature, or `dot` product"""
    repeat_bias: bool = True
    """Learn how likely items of the history are to come again, by how long ago they came"""
    popularity_bias: bool = True
    """Learn how much likelier items are that occur often in training, whatever the history"""
    loss: LossName = "sampled"
    """`softmax` over all training items, `sampled` or `in-batch` softmax with logQ correction, or `gbce`"""
    negatives: int = 2048
    """Items drawn a step, by the losses `sampled` and `gbce`"""
    calibration: float = 0.75
    """t of gBCE: from 0, scores as the draw makes them, to 1, scores as probabilities"""
    batch_size: int = 128
    """Sequences a training step"""
    learning_rate: float = 1e-3
    """Of AdamW, at its highest"""
    schedule: ScheduleName = "constant"
    """Of the learning rate after the warm-up: `constant`, or a half `cosine` down to 0 at the last epoch"""
    warmup: int = 0
    """Steps over which the learning rate rises from 0"""
    weight_decay: float = 0.0
    """Of AdamW, on matrices only"""
    clip: float = 1.0
    """Largest norm of the gradient"""
    averaging: float = 3.0
    """Epochs over which parameters are averaged before they are validated and used; 0 for none"""
    precision: Precision = "auto"
    """Of the computation: auto is bfloat16 (automatic mixed precision) on a GPU that has it, else float32. On a CPU
    bfloat16 is that of the products with the layer states alone"""
    compile: bool = False
    """Compile the model with torch.compile"""
    epochs: int = 200
    """At most so many passes over the training sequences"""
    patience: int = 20
    """Epochs without a better validation NDCG@10 after which training stops"""
    seed: int = 0
    """Of initialisation, order, negatives and dropout"""

    def __post_init__(self) -> None:
        """Check each value, and values against each other.

        Raises:
            OptionError: for the first that does not fit.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            plain = tuple(map(of_python, value)) if isinstance(value, tuple | list) else of_python(value)
            object.__setattr__(self, field.name, plain)
        for field in [field for field in fields(self) if field.name not in _FOR_EACH_LLM]:
            value, expected = getattr(self, field.name), _KINDS.get(type(field.default))
            if expected is not None and type(value) not in expected.types:
                raise OptionError(f"--{_flag(field.name)} {value!r}: expected {expected.name}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(f"--{_flag(name)} {getattr(self, name)}: expected one of {', '.join(choices)}.")
        try:
            left_out(self.split)
        except ValueError as error:
            raise OptionError(
                f"--split {self.split}: expected one of {', '.join(SPLITS)}, with K a whole number of at least 1."
            ) from error
        whole = ("width", "length", "blocks", "heads", "negatives", "batch_size", "epochs", "patience")
        given = [(name, getattr(self, name)) for name in whole]
        for name in ("layers", "components", "side_width"):
            value = getattr(self, name)
            given += [(name, one) for one in (value if isinstance(value, tuple) else [value])]
        for name, value in given:
            if value is not None and type(value) is not int:
                raise OptionError(f"--{_flag(name)} {value!r}: expected a whole number.")
            if value is not None and value < 1:
                raise OptionError(f"--{_flag(name)} {value}: expected at least 1.")
        for name in ("layers", "text"):
            if (value := getattr(self, name)) is not None and not self.needs_states:
                raise OptionError(f"--{name} {value} goes with a side network; this model reads no LLM states.")
        if self.item_id and not self.needs_states:
            raise OptionError("--item-id adds IDs to the text of a side network; this model has none. Leave it out.")
        if self.model in ("sasrec", "hstu") and self.width % self.heads:
            raise OptionError(f"--width {self.width} cannot be divided among --heads {self.heads}; make it a multiple.")
        shares = ("dropout", "side_dropout", "id_dropout")
        for name in (*shares, "learning_rate", "weight_decay", "calibration", "clip", "averaging"):
            if not math.isfinite(getattr(self, name)):
                raise OptionError(f"--{_flag(name)} {getattr(self, name)}: expected a finite number.")
        if not 0 <= self.seed < 2**63:
            raise OptionError(f"--seed {self.seed}: expected a whole number from 0 to 2^63 - 1.")
        for name in shares:
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"--{_flag(name)} {getattr(self, name):g}: expected a share from 0 to below 1.")
        if not 0 <= self.calibration <= 1:
            raise OptionError(f"--calibration {self.calibration:g}: expected a number from 0 to 1.")
        for name in ("learning_rate", "clip"):
            if getattr(self, name) <= 0:
                raise OptionError(f"--{_flag(name)} {getattr(self, name):g}: expected a number above 0.")
        for name in ("weight_decay", "warmup", "averaging"):
            if getattr(self, name) < 0:
                raise OptionError(f"--{_flag(name)} {getattr(self, name):g}: expected at least 0.")

    def check_for(self, num_llms: int) -> None:
        """Check what depends on how many LLMs there are.

        Raises:
            OptionError: if options are given for another number of LLMs, or fuse what is only one part.
        """
        for name in _FOR_EACH_LLM:
            self.for_each_llm(name, num_llms)
        if self.fusion == "gate" and num_llms + self.learns_ids < 2:
            raise OptionError(
                "--fusion gate weighs the parts of an item vector, of which there is one here. Add --item-id or a "
                "second --llm, or leave --fusion out."
            )

    def for_each_llm(self, name: _OfEachLLM, count: int) -> list[Any]:
        """The value of an option for each of so many LLMs.

        Raises:
            OptionError: if another number of values was given than one for all or one for each.
        """
        value = getattr(self, name)
        if not isinstance(value, tuple):
            return [value] * count
        if len(value) != count:
            raise OptionError(
                f"--{_flag(name)} was given {len(value)} times, for {count} LLM{'s' if count > 1 else ''}. Give it "
                "once for all, or once for each in their order."
            )
        return list(value)

    @property
    def needs_states(self) -> bool:
        """Whether the model reads LLM states from a cache."""
        return self.model != "popularity" and self.side != "none"

    @property
    def learns_ids(self) -> bool:
        """Whether items have a learned ID embedding."""
        return self.model != "popularity" and (self.side == "none" or self.item_id)


class _Kind(NamedTuple):
    types: tuple[type, ...]
    name: str


_KINDS = {
    bool: _Kind((bool,), "True or False"),
    int: _Kind((int,), "a whole number"),
    float: _Kind((float, int), "a number"),
}
"""Of an option's default: the types that its value may have, and how they are called"""
_CHOICES: dict[str, tuple[str, ...]] = {
    "model": MODELS,
    "side": SIDES,
    "preparation": PREPARATIONS,
    "activation": ACTIVATIONS,
    "fusion": FUSIONS,
    "candidates": CANDIDATES,
    "scorer": SCORERS,
    "loss": LOSSES,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
}


def of_python(value: Any) -> Any:
    """A number of NumPy as one of Python, which JSON takes; all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _flag(name: str) -> str:
    return name.replace("_", "-")
