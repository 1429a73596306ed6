"""The frozen LLM: item texts in, pooled hidden states of its top layers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssna.stage1_extract.batching import TokenIds
from ssna.stage1_extract.layer_states import LayerStates
from ssna.stage1_extract.llm_files import LLMError, LLMFiles
from ssna.stage1_extract.loading import ComputeDtype, Placement, is_decoder, load_model, load_tokenizer
from ssna.stage1_extract.pooling import Pooling, pooling_weights

# What the tokenizer makes of a text takes kilobytes until only the ids are kept.
_TEXTS_AT_ONCE = 1024


@dataclass(frozen=True)
class Reading:
    """How the LLM is given a text."""

    max_tokens: int
    """Longer texts are cut"""
    prefix: str = ""
    """What goes before each text"""
    suffix: str = ""
    """What goes after it"""


class TextTokenizer:
    """Token ids of texts, as the LLM reads them."""

    def __init__(self, files: LLMFiles, reading: Reading) -> None:
        self._tokenizer: Any = load_tokenizer(files)
        self._reading = reading
        pad = self._tokenizer.pad_token_id
        self.pad_id: int = 0 if pad is None else pad  # Any id will do: padded positions are masked everywhere.

    def __call__(self, texts: Sequence[str]) -> tuple[list[TokenIds], npt.NDArray[np.bool_]]:
        """Token ids of each text, special tokens included, and which texts were cut ``(n,)``."""
        all_ids, truncated = list[TokenIds](), np.zeros(len(texts), np.bool_)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            ids, cut = self._tokenize(texts[start : start + _TEXTS_AT_ONCE])
            # A tokenizer without special tokens can leave nothing of a text of unknown characters.
            all_ids += [np.array(tokens or [self.pad_id], np.int32) for tokens in ids]
            truncated[start : start + len(cut)] = cut
        return all_ids, truncated

    def _tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], npt.NDArray[np.bool_]]:
        limit = self._reading.max_tokens
        read = [f"{self._reading.prefix}{text}{self._reading.suffix}" for text in texts]
        ids = self._ids(read, truncation=True, max_length=limit)
        truncated = np.zeros(len(read), np.bool_)
        full = [i for i, tokens in enumerate(ids) if len(tokens) == limit]
        if full:
            uncut = self._ids([read[i] for i in full])
            truncated[full] = [len(tokens) > limit for tokens in uncut]
        return ids, truncated

    def _ids(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
        encoded = self._tokenizer(
            list(texts), return_attention_mask=False, return_token_type_ids=False, verbose=False, **options
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def added_bos(self) -> int | None:
        """The token that this tokenizer puts before every text to mark its beginning, if it does so."""
        bos = self._tokenizer.bos_token_id
        with_special, without = (self._tokenizer("a", add_special_tokens=add)["input_ids"] for add in (True, False))
        return bos if bos is not None and with_special[:1] == [bos] and without[:1] != [bos] else None


def token_left_out(tokenizer: TextTokenizer, config: Any) -> int | None:
    """The first token that the pooling `mean` leaves out, if this LLM's texts begin with such a one.

    A decoder's first token is an attention sink: its states are massive and say nothing of the text.
    """
    return tokenizer.added_bos() if is_decoder(config) else None


def padded_inputs(
    token_ids: Sequence[TokenIds], pad_id: int, pooling: Pooling, left_out: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What an LLM reads of texts: ids, and the mask of those that are no padding, int64, and weights, ``(n, T)`` each.

    Padding stands on the right whatever the tokenizer prefers: positions then begin at the first token, and no token of
    a decoder sees any of it.

    Args:
        token_ids: of each text.
        pad_id: of padding.
        pooling: by which the weights make one state of the tokens'.
        left_out: see `token_left_out`.
    """
    lengths = np.array([len(tokens) for tokens in token_ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(mask.shape, pad_id, np.int64)
    padded[mask] = np.concatenate(token_ids)
    skip_first = [int(tokens[0]) == left_out for tokens in token_ids]
    weights = pooling_weights(lengths.tolist(), skip_first, pooling)
    return torch.from_numpy(padded), torch.from_numpy(mask.astype(np.int64)), torch.from_numpy(weights)


class FrozenLLM:
    """An LLM without its head, in evaluation mode, no parameter of which ever changes."""

    def __init__(
        self,
        files: LLMFiles,
        tokenizer: TextTokenizer,
        pooling: Pooling,
        dtype: ComputeDtype,
        placement: Placement,
        compiled: bool = False,
    ) -> None:
        model = load_model(files, dtype, placement)
        self._device = torch.device(placement.device)
        try:
            self._states = LayerStates(model, files.num_blocks, self._device)
        except RuntimeError as error:
            if not placement.tensor_parallel:
                raise
            raise LLMError(
                f"--tensor-parallel: {files.source} cannot be shared by {torch.distributed.get_world_size()} processes "
                f"({error}). Its attention heads (also those of keys and values) must be divisible by their number; "
                "start fewer, or leave the option out."
            ) from error
        self._pooling = pooling
        self._pad_id = tokenizer.pad_id
        self._left_out = token_left_out(tokenizer, model.config)
        if compiled:
            model.compile(dynamic=True)

    @property
    def has_final_norm(self) -> bool:
        """Whether the top layer's states are taken after a final norm."""
        return self._states.has_final_norm

    @property
    def state_width(self) -> int:
        """D."""
        return self._states.state_width

    def agreed(self, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """What the first process chose: those that share the LLM's weights must read the same texts."""
        shared = torch.from_numpy(chosen.astype(np.uint8)).to(self._device)
        torch.distributed.broadcast(shared, 0)
        return shared.cpu().numpy().astype(np.bool_)

    def pooled_states(self, token_ids: Sequence[TokenIds], layers: int) -> npt.NDArray[np.float32]:
        """Pooled states of the top `layers` layers, float32 ``(n, A, D)``, top first, of texts given as token ids."""
        inputs = padded_inputs(token_ids, self._pad_id, self._pooling, self._left_out)
        ids, attention_mask, weight = (tensor.to(self._device) for tensor in inputs)
        pooled: npt.NDArray[np.float32] = self._states(ids, attention_mask, weight, layers).cpu().numpy()
        return pooled
