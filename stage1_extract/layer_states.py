"""The pooled states of an LLM's top layers, taken while it runs.

A layer is a block of the LLM; the last block is the top layer. Where an architecture applies a final norm to the
output of its last block (Llama, GPT-2, T5, ModernBERT, …), the top layer's state is taken after it. This is the
numbering of `transformers`' `hidden_states`, whose first entry, the embeddings, is left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssna.stage1_extract.pooling import pool


class LayerStates:
    """Runs an LLM and pools each layer's hidden states as soon as its block gives them.

    So the token-level states of only one layer exist at a time. What the blocks give is held against `transformers`'
    own `hidden_states` once, at the start; an architecture whose blocks cannot be read in this way (ALBERT shares one
    block among all layers, XLNet's are time-major) is pooled from `hidden_states` instead, which takes more memory.
    """

    def __init__(self, model: nn.Module, num_blocks: int, device: torch.device) -> None:
        """Find out how the model gives its states, by one short run.

        Args:
            model: gives `last_hidden_state` and, when asked, `hidden_states`.
            num_blocks: of the model.
            device: of its inputs.
        """
        self._model, self._num_blocks = model, num_blocks
        self._weights: Tensor = torch.empty(0)
        self._pooled: dict[int, Tensor] = {}
        self._wanted = num_blocks
        blocks = _blocks_of(model, num_blocks)
        seen: dict[int, Tensor] = {}
        watchers = [
            block.register_forward_hook(lambda module, given, output, i=i: seen.__setitem__(i, _hidden(output)))
            for i, block in enumerate(blocks)
        ]
        hidden_states, last = self._probe(num_blocks, device)
        for watcher in watchers:
            watcher.remove()
        self._by_block = bool(blocks) and all(_same(seen.get(i), hidden_states[i]) for i in range(num_blocks - 1))
        # Some models project their output to another width (OPT-350M): then the last block's own output is the top.
        widths = {hidden.shape[2] for hidden in hidden_states[:-1]} or {last.shape[2]}
        self._top_by_block = self._by_block and widths != {last.shape[2]}
        self.state_width = seen[num_blocks - 1].shape[2] if self._top_by_block else last.shape[2]
        self.has_final_norm = self._by_block and not self._top_by_block and not _same(seen.get(num_blocks - 1), last)
        if self._by_block:
            for i, block in enumerate(blocks if self._top_by_block else blocks[:-1]):
                block.register_forward_hook(lambda module, given, output, i=i: self._take(i, output))

    def _probe(self, num_blocks: int, device: torch.device) -> tuple[list[Tensor], Tensor]:
        """All blocks' hidden states of a made-up text, without the embeddings, and the model's last one."""
        ids = torch.tensor([[5, 6, 7], [6, 7, 5]], device=device)
        output = self._run(ids, torch.ones_like(ids), output_hidden_states=True)
        return list(output.hidden_states[-num_blocks:]), output.last_hidden_state

    @torch.inference_mode()
    def __call__(self, ids: Tensor, mask: Tensor, weights: Tensor, layers: int) -> Tensor:
        """Pooled states of the top `layers` layers, float32 ``(n, A, D)``, top first.

        Args:
            ids: token ids ``(n, T)``, padded on the right.
            mask: 1 for tokens, 0 for padding ``(n, T)``.
            weights: of the tokens in the text's state ``(n, T)`` (`pooling_weights`).
            layers: A.
        """
        self._weights, self._wanted = weights, layers
        output = self._run(ids, mask, output_hidden_states=not self._by_block)
        top = self._pooled.pop(self._num_blocks - 1) if self._top_by_block else pool(output.last_hidden_state, weights)
        if self._by_block:
            others = [self._pooled.pop(self._num_blocks - 1 - i) for i in range(1, layers)]
        else:
            others = [pool(hidden, weights) for hidden in output.hidden_states[-2 : -layers - 1 : -1]]
        return torch.stack([top, *(other.to(top.device) for other in others)], dim=1)

    def _take(self, block: int, output: Any) -> None:
        if block >= self._num_blocks - self._wanted:
            self._pooled[block] = pool(_hidden(output), self._weights)

    @torch.inference_mode()
    def _run(self, ids: Tensor, mask: Tensor, output_hidden_states: bool) -> Any:
        return self._model(input_ids=ids, attention_mask=mask, output_hidden_states=output_hidden_states)


def _blocks_of(model: nn.Module, num_blocks: int) -> list[nn.Module]:
    """The model's blocks, lowest first: its outermost list of that many modules; empty if it has none."""
    lists = [
        (name.count("."), module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_blocks
    ]
    return list(min(lists, key=lambda entry: entry[0])[1]) if lists else []


def _hidden(output: Any) -> Tensor:
    """What a block hands on to the next."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _same(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.shape == other.shape and torch.equal(one.to(other.device), other)
