"""Where item vectors come from when the LLM runs in every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from backbone_in_loop.methods import make_trainable
from backbone_in_loop.texts import ItemTokens
from ssna.stage1_extract.frozen_llm import FrozenLLM, Reading, TextTokenizer, padded_inputs, token_left_out
from ssna.stage1_extract.llm_files import LLMFiles, find_llm
from ssna.stage1_extract.loading import Placement, load_model
from ssna.stage1_extract.pooling import pool
from ssna.stage1_extract.settings import resolve_batch_tokens, resolve_dtype, resolve_max_tokens, resolve_pooling
from ssna.stage2_adapt import AdaptOptions, Preparation
from ssna.stage2_adapt.options import Precision
from ssna.stage2_adapt.side_network import SideNetwork
from ssna.stage2_adapt.training import dtype_of_products


@dataclass(frozen=True)
class Reader:
    """How an LLM reads item texts: as stage one does with its default options."""

    files: LLMFiles
    tokenizer: TextTokenizer
    pooling: Any
    device: torch.device

    @classmethod
    def of(cls, llm: str, device: torch.device) -> Reader:
        """That of an LLM, a folder or hub id."""
        files = find_llm(llm)
        tokenizer = TextTokenizer(files, Reading(resolve_max_tokens(files, None)))
        return cls(files, tokenizer, resolve_pooling(files, None), device)

    @property
    def batch_tokens(self) -> int:
        """Tokens that are read at once."""
        return resolve_batch_tokens(None, self.device.type)

    def frozen(self, precision: Precision) -> FrozenLLM:
        """The LLM as stage one runs it, in the precision of the training."""
        dtype: Any = resolve_dtype(precision, self.device.type)
        return FrozenLLM(self.files, self.tokenizer, self.pooling, dtype, Placement(str(self.device)))


class LiveStates:
    """States that a frozen LLM computes anew whenever they are needed: a side network without a cache."""

    items_at_once: int | None = None

    def __init__(self, reader: Reader, tokens: ItemTokens, layers: int, precision: Precision) -> None:
        """Load the LLM.

        Args:
            reader: of the LLM.
            tokens: of all items.
            layers: A.
            precision: of the LLM.
        """
        self._reader, self._tokens, self._layers = reader, tokens, layers
        self._llm = reader.frozen(precision)
        self.preparation: Preparation | None = None

    @property
    def size(self) -> tuple[int, int]:
        """A and D."""
        return self._layers, self._llm.state_width

    def raw(self, items: npt.NDArray[np.int64]) -> Tensor:
        """States ``(A, n, D)`` of these items ``(n,)``, lowest layer first, as the LLM gives them."""
        texts, back = self._tokens.distinct(items)
        states = np.empty((len(texts), *self.size), np.float32)
        for batch in self._tokens.batches(texts, self._reader.batch_tokens):
            token_ids = [self._tokens.token_ids[texts[place]] for place in batch]
            states[batch] = self._llm.pooled_states(token_ids, self._layers)
        # A copy, of one layer too: NumPy calls an axis of length one contiguous whatever its stride, PyTorch does not.
        lowest_first = states[back].swapaxes(0, 1)[::-1].copy()
        return torch.from_numpy(lowest_first).to(self._reader.device)

    def of(self, items: Tensor) -> list[Tensor]:
        """See `ItemStates`."""
        assert self.preparation is not None
        return [self.preparation.apply(self.raw(items.cpu().numpy()))]

    def between(self, first: int, last: int) -> list[Tensor]:
        """See `ItemStates`."""
        return self.of(torch.arange(first + 1, last + 1))


class LLMEncoder(nn.Module):
    """Item vectors by an LLM that learns: its top layer's pooled states, standardised, a linear map and a norm.

    It stands in for `ItemEncoder`, and before its first step gives what the side network `frozen` gives.
    """

    sides: Sequence[nn.Module] = ()
    """The training loop asks: there are none, so all items of a batch come at once"""

    def __init__(
        self,
        reader: Reader,
        tokens: ItemTokens,
        method: str,
        options: AdaptOptions,
        *,
        checkpointing: bool = False,
        dropout: bool = True,
    ) -> None:
        """Load the LLM, in float32, and let parts learn.

        Args:
            reader: of the LLM.
            tokens: of all items.
            method: see `methods.TRAINED`.
            options: of the item vector; with ``precision`` bfloat16 the LLM's products are so on a CPU too.
            checkpointing: see `make_trainable`.
            dropout: likewise.
        """
        super().__init__()
        llm = load_model(reader.files, "float32", Placement(str(reader.device)))
        make_trainable(llm, method, checkpointing, dropout)
        # Not a module of this one: what never changes is then neither copied for the best epoch nor saved.
        self._llm = (llm,)
        self._left_out = token_left_out(reader.tokenizer, llm.config)
        self.trained = nn.ParameterList(parameter for parameter in llm.parameters() if parameter.requires_grad)
        self._reader, self._tokens = reader, tokens
        self._precision = dtype_of_products(options, reader.device)
        self.preparation: Preparation | None = None
        self.head = SideNetwork(1, reader.files.state_width, options.width, integration="frozen")

    def train(self, mode: bool = True) -> LLMEncoder:
        """Training mode for the LLM too: its own dropout acts, as in fine-tuning, unless it was taken away."""
        super().train(mode)
        self._llm[0].train(mode)
        return self

    def forward(self, states: Sequence[Tensor], items: Tensor) -> Tensor:
        """Vectors ``(n, d)`` of items ``(n,)``; of the cached states it reads none."""
        assert self.preparation is not None
        vectors: Tensor = self.head(self.preparation.apply(self.raw(items.cpu().numpy())))
        return vectors

    def raw(self, items: npt.NDArray[np.int64]) -> Tensor:
        """States ``(1, n, D)`` of these items ``(n,)``, as the LLM gives them, with their gradient."""
        texts, back = self._tokens.distinct(items)
        places, parts = list[npt.NDArray[np.intp]](), list[Tensor]()
        for batch in self._tokens.batches(texts, self._reader.batch_tokens):
            places.append(batch)
            parts.append(self._pooled([self._tokens.token_ids[texts[place]] for place in batch]))
        order = np.argsort(np.concatenate(places))  # Where in the batches each text is.
        return torch.cat(parts)[torch.from_numpy(order[back]).to(self._reader.device)][None]

    def _pooled(self, token_ids: Sequence[npt.NDArray[np.int32]]) -> Tensor:
        """Top layer states float32 ``(n, D)`` of one batch of texts."""
        reader = self._reader
        inputs = padded_inputs(token_ids, reader.tokenizer.pad_id, reader.pooling, self._left_out)
        ids, mask, weights = (tensor.to(reader.device) for tensor in inputs)
        mixed = self._precision != torch.float32
        with torch.autocast(reader.device.type, self._precision, enabled=mixed):
            states = self._llm[0](input_ids=ids, attention_mask=mask).last_hidden_state
        return pool(states.float(), weights)
