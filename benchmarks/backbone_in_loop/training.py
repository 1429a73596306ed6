"""The product's training loop with the LLM in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from backbone_in_loop.encoders import LiveStates, LLMEncoder, Reader
from backbone_in_loop.methods import TRAINED, UNCACHED
from backbone_in_loop.texts import ItemTokens
from ssna.columns import TEXT
from ssna.corpus import Corpus
from ssna.stage2_adapt import AdaptOptions, Preparation, Sequences, Split, Training, TrainingData, fit_preparation
from ssna.stage2_adapt.optimization import make_optimizer
from ssna.stage2_adapt.options import PreparationName

_ITEMS_AT_ONCE = 1024


@dataclass(frozen=True)
class Problem:
    """What every method is trained on."""

    sequences: Sequences
    split: Split
    num_trained: int
    """T: items 1 to T occur in training"""
    texts: Sequence[str]
    """Of items 1 to N"""

    @classmethod
    def of(cls, corpus: Corpus) -> Problem:
        """That of a dataset."""
        return cls(corpus.sequences, corpus.split, corpus.num_trained, corpus.items[TEXT].to_list())

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.texts)


class LLMTraining(Training):
    """A training whose item vectors come from an LLM that learns, at a learning rate of its own."""

    def __init__(
        self, data: TrainingData, options: AdaptOptions, device: torch.device, encoder: LLMEncoder, learning_rate: float
    ) -> None:
        super().__init__(data, options, device)  # Without states or IDs, so its own encoder is empty.
        self._encoder = encoder.to(device)  # type: ignore[assignment]
        self._modules = nn.ModuleDict({"encoder": encoder, "recommender": self._recommender})
        self._optimizer = make_optimizer(self._modules, options)
        self._share = learning_rate / options.learning_rate
        of_llm = {id(parameter) for parameter in encoder.trained}
        for group in list(self._optimizer.param_groups):
            mine = [parameter for parameter in group["params"] if id(parameter) in of_llm]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in of_llm]
            if mine:
                self._optimizer.add_param_group({**group, "params": mine, "of_llm": True})
        self._average = self._parameters() if options.averaging else None
        self._best = self._parameters()

    def _set_learning_rate(self, rate: float) -> None:
        super()._set_learning_rate(rate)
        for group in self._optimizer.param_groups:
            if group.get("of_llm"):
                group["lr"] *= self._share


def start(
    problem: Problem,
    llm: str,
    method: str,
    options: AdaptOptions,
    device: torch.device,
    *,
    checkpointing: bool = False,
    dropout: bool = True,
    learning_rate: float | None = None,
    constants_of: int | None = None,
) -> Training:
    """A training that has not begun, with the LLM in its loop; its loss is in-batch.

    Args:
        problem: what to train on.
        llm: folder or hub id.
        method: one of `METHODS`.
        options: of the recommender and, for the side network, of that.
        device: a PyTorch device.
        checkpointing: see `make_trainable`; it changes nothing where the LLM is frozen and nothing is held.
        dropout: whether that of an LLM that learns acts.
        learning_rate: of the LLM's parameters; None takes the method's.
        constants_of: texts that the states' constants are fitted on, where only time and memory matter; None for all.
    """
    options = replace(options, loss="in-batch")
    reader = Reader.of(llm, device)
    tokens = ItemTokens.of(problem.texts, reader.tokenizer)
    shared = (problem.sequences, problem.split, problem.num_items, problem.num_trained)
    # Fitted as the product fits them: on the distinct texts of the training items.
    _, first = np.unique(tokens.text_of_item[: problem.num_trained], return_index=True)
    fitted_on = np.sort(first)[:constants_of] + 1
    if method == UNCACHED:
        layers = options.for_each_llm("layers", 1)[0] or reader.files.num_blocks
        states = LiveStates(reader, tokens, layers, options.precision)
        kept = options.for_each_llm("components", 1)[0]
        states.preparation = _fit(states.raw, fitted_on, options.preparation, kept, device)
        size = (states.size[0], states.preparation.width)
        return Training(TrainingData(*shared, states, [size]), options, device)
    torch.manual_seed(options.seed)
    encoder = LLMEncoder(reader, tokens, method, options, checkpointing=checkpointing, dropout=dropout).eval()
    encoder.preparation = _fit(encoder.raw, fitted_on, "standardize", None, device)
    rate = TRAINED[method][1] if learning_rate is None else learning_rate
    return LLMTraining(TrainingData(*shared), options, device, encoder, rate)


@torch.no_grad()
def _fit(
    raw: Callable[[npt.NDArray[np.int64]], Tensor],
    items: npt.NDArray[np.int64],
    name: PreparationName,
    components: int | None,
    device: torch.device,
) -> Preparation:
    """The constants of these items' states, on the device."""
    blocks = (raw(items[first : first + _ITEMS_AT_ONCE]).cpu() for first in range(0, len(items), _ITEMS_AT_ONCE))
    fitted = fit_preparation(blocks, name, components)
    on_device = {key: value if value is None else value.to(device) for key, value in vars(fitted).items()}
    return Preparation(**on_device)
