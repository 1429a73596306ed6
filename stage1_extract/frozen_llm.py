"""The frozen LLM: item texts in, pooled hidden states of its top layers out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssna.stage1_extract.llm_files import LLMError, LLMFiles

ComputeDtype = Literal["float32", "bfloat16", "float16"]
POOLING = "mean"


class FrozenLLM:
    """An encoder LLM without its head, in evaluation mode, no parameter of which ever changes."""

    def __init__(self, files: LLMFiles, device: torch.device, dtype: ComputeDtype) -> None:
        # Imported here: it takes seconds, and nothing but an extraction that has texts to read needs it.
        import transformers

        transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.device = device
        self.num_blocks = files.num_blocks
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(files.folder, local_files_only=True)
            model, loading = transformers.AutoModel.from_pretrained(
                files.folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # Damaged or unknown models raise errors of many libraries; the cause is kept.
            raise LLMError(
                f"{files.folder} cannot be loaded by transformers {transformers.__version__} "
                f"({type(error).__name__}: {_first_line(error)}). Expected a sound text encoder; copy it again."
            ) from error
        _check_is_encoder(files, model.config)
        _check_loading(files, loading["missing_keys"])
        self._model: Any = model.eval().requires_grad_(False).to(device)
        pad = self._tokenizer.pad_token_id
        self._pad_id: int = 0 if pad is None else pad  # Any id will do: padded positions are masked everywhere.

    def tokenize(self, texts: Sequence[str], max_tokens: int) -> tuple[list[list[int]], npt.NDArray[np.bool_]]:
        """Token ids of each text, special tokens included, and which texts were cut to `max_tokens`."""
        ids = self._ids(texts, truncation=True, max_length=max_tokens)
        truncated = np.zeros(len(texts), np.bool_)
        full = [i for i, tokens in enumerate(ids) if len(tokens) == max_tokens]
        if full:
            uncut = self._ids([texts[i] for i in full])
            truncated[full] = [len(tokens) > max_tokens for tokens in uncut]
        return ids, truncated

    def _ids(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
        encoded = self._tokenizer(
            list(texts), return_attention_mask=False, return_token_type_ids=False, verbose=False, **options
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    @torch.inference_mode()
    def pooled_states(self, token_ids: Sequence[Sequence[int]], layers: int) -> npt.NDArray[np.float32]:
        """Mean of the hidden states over each text's tokens, float32 ``(n, A, D)``, top layer first.

        Layer 0 of the result is the output of the LLM's last block, as `transformers` gives it in `hidden_states`.
        """
        width = max(len(tokens) for tokens in token_ids)
        padded = np.full((len(token_ids), width), self._pad_id, np.int64)
        mask = np.zeros((len(token_ids), width), np.int64)
        for row, tokens in enumerate(token_ids):
            padded[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        attention_mask = torch.from_numpy(mask).to(self.device)
        output = self._model(
            input_ids=torch.from_numpy(padded).to(self.device),
            attention_mask=attention_mask,
            output_hidden_states=True,
        )
        top_first = output.hidden_states[: -layers - 1 : -1]
        pooled = torch.stack([masked_mean(hidden, attention_mask) for hidden in top_first], dim=1)
        result: npt.NDArray[np.float32] = pooled.cpu().numpy()
        return result


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that the mask keeps: ``(n, T, D)`` and ``(n, T)`` to float32 ``(n, D)``."""
    weights = mask.to(torch.float32) / mask.sum(dim=1, keepdim=True)
    return torch.bmm(weights[:, None], hidden.to(torch.float32)).squeeze(1)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:200]


def _check_is_encoder(files: LLMFiles, config: Any) -> None:
    """Refuse LLMs whose tokens do not see each other in both directions: their pooling needs other rules."""
    from transformers.models.auto import modeling_auto

    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    is_decoder = config.model_type in causal and config.model_type not in masked
    if config.is_encoder_decoder or is_decoder:
        kind = "an encoder-decoder" if config.is_encoder_decoder else "a decoder"
        raise LLMError(
            f"{files.folder} is {kind} ({files.architecture}); this version takes encoders, such as BERT, MPNet, "
            "MiniLM or DeBERTa. Give one of these."
        )


def _check_loading(files: LLMFiles, missing: Sequence[str]) -> None:
    """Refuse weights that would leave part of the LLM random; the pooler is not read, so it may be missing."""
    needed = sorted(key for key in missing if "pooler" not in key)
    if needed:
        raise LLMError(
            f"{files.folder}: the weights lack {len(needed)} of the LLM's tensors ({needed[0]}), which would be "
            "random. Expected the weights of the architecture that config.json names; copy the model again."
        )
