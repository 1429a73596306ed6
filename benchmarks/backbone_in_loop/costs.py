"""What training with an LLM in the loop costs, counted from its shape; checked in tests against PyTorch's own counts.

Floating-point operations (FLOP) of a transformer block for a text of T tokens, 2 a multiply-add:

    forward            F = 2 T P + 4 T² H      P weights of the block's linear maps, H width of all attention heads
    full fine-tuning   3 F                     the gradients by both factors of each product cost F each
    LoRA, adapters, BitFit  3 F - 2 T P        frozen weights need no gradient; what they add themselves is left out
    with checkpointing      + F                every block is computed again
    side network without a cache  F            no backward pass
    from a cache            0                  of the LLM; of the side network at most 6 a weight and text

Values held for the backward pass, by token and block, with attention that holds no T × T matrix:

    all weights learn       inputs of every linear map, of the non-linearity, of attention and of both norms
    frozen weights          inputs of the non-linearity, of attention and of both norms only
    with checkpointing      the block's input

Bytes: 4 a value in float32, 2 in bfloat16. Weights that learn take 16, in float32 in mixed precision too: with their
gradient and AdamW's two moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ssna import AdaptOptions
from ssna.api.estimate import _held_for_an_item
from ssna.stage2_adapt.side_network import SideNetwork

Learning = Literal["full", "frozen weights", "uncached"]


@dataclass(frozen=True)
class Shape:
    """Of a transformer's blocks; the letters are those of the module's formulas."""

    name: str
    blocks: int
    width: int
    """D"""
    inner: int
    """I, of the feed-forward part"""
    heads_width: int
    """H, of all attention heads' queries"""
    keys_width: int
    """K, of all keys, and of all values; less than H where heads share them"""
    gated: bool
    """Whether the feed-forward part has three maps (SwiGLU) instead of two"""
    vocabulary: int

    @property
    def block_weights(self) -> int:
        """P: of the linear maps, without biases and norms."""
        attention = self.width * (2 * self.heads_width + 2 * self.keys_width)
        return attention + (3 if self.gated else 2) * self.width * self.inner

    @property
    def weights(self) -> int:
        """Of all blocks and the token embeddings."""
        return self.blocks * self.block_weights + self.vocabulary * self.width

    def forward_flop(self, tokens: int) -> int:
        """F of all blocks, for one text."""
        return self.blocks * (2 * tokens * self.block_weights + 4 * tokens**2 * self.heads_width)

    def training_flop(self, tokens: int, learning: Learning, checkpointing: bool = False) -> int:
        """Of a training step, for one text."""
        passes = {"full": 3, "frozen weights": 3, "uncached": 1}[learning]
        by_weights = self.blocks * 2 * tokens * self.block_weights if learning == "frozen weights" else 0
        return (passes + (checkpointing and passes > 1)) * self.forward_flop(tokens) - by_weights

    def held_values(self, learning: Learning, checkpointing: bool = False) -> int:
        """For the backward pass, a token."""
        if learning == "uncached":
            return 0
        in_a_block = self._held_in_a_block(learning)
        # One block at a time is computed again, whose values come on top.
        return self.blocks * self.width + in_a_block if checkpointing else self.blocks * in_a_block

    def _held_in_a_block(self, learning: Learning) -> int:
        attention = 2 * self.heads_width + 2 * self.keys_width  # Queries, keys, values and what attention gives.
        norms = 2 * self.width
        non_linear = 3 * self.inner if self.gated else self.inner  # SwiGLU: both factors, and the gate before SiLU.
        if learning == "frozen weights":
            return attention + norms + non_linear
        # The input of the three attention maps is one, that of the output map is what attention gave, held already.
        return attention + norms + non_linear + 2 * self.width + self.inner


LLMS_ON_PAPER = (
    Shape("MiniLM-L6", 6, 384, 1536, 384, 384, False, 30_522),
    Shape("BERT-base", 12, 768, 3072, 768, 768, False, 30_522),
    Shape("BERT-large", 24, 1024, 4096, 1024, 1024, False, 30_522),
    Shape("Llama-3.2-1B", 16, 2048, 8192, 2048, 512, True, 128_256),
    Shape("Llama-2-7B", 32, 4096, 11_008, 4096, 4096, True, 32_000),
    Shape("Llama-2-70B", 80, 8192, 28_672, 8192, 1024, True, 32_000),
)
_BYTES_OF_LEARNT = 16
LAYERS_ON_PAPER = 6
_OURS = f"ssna from a cache, a = {LAYERS_ON_PAPER}"
_COLUMNS: tuple[tuple[str, Learning, bool], ...] = (
    ("full fine-tuning", "full", False),
    ("… checkpointing", "full", True),
    ("LoRA, adapters, BitFit", "frozen weights", False),
    ("… checkpointing", "frozen weights", True),
    ("without a cache", "uncached", False),
)


def paper_tables(shapes: Sequence[Shape], tokens: int, texts: int) -> str:
    """FLOP of an epoch, and bytes of training on a step of 1,000 texts, as Markdown.

    Args:
        shapes: of LLMs.
        tokens: of a text.
        texts: that the LLM reads in an epoch.
    """
    columns = " | ".join([*(title for title, *_ in _COLUMNS), _OURS])
    flop = [f"| PFLOP an epoch of {texts:,} texts of {tokens} tokens | {columns} |"]
    memory = [f"| GB with 1,000 texts of {tokens} tokens a step, bfloat16 | {columns} |"]
    line = "|---" * (len(_COLUMNS) + 2) + "|"
    flop.append(line)
    memory.append(line)
    for shape in shapes:
        ours = side_network_weights(LAYERS_ON_PAPER, shape.width)
        spent = [shape.training_flop(tokens, learning, again) * texts / 1e15 for _, learning, again in _COLUMNS]
        spent.append(6 * ours * texts / 1e15)
        held = [training_bytes(shape, tokens * 1_000, learning, again) / 1e9 for _, learning, again in _COLUMNS]
        held.append((_BYTES_OF_LEARNT * ours + 1_000 * side_network_bytes(LAYERS_ON_PAPER, shape.width)) / 1e9)
        flop.append(f"| {shape.name} | {' | '.join(map(_digits, spent))} |")
        memory.append(f"| {shape.name} | {' | '.join(map(_digits, held))} |")
    return "\n".join([*flop, "", *memory])


def side_network_weights(layers: int, width: int) -> int:
    """Parameters of ssna's side network on so many layers of an LLM of this width, all else being the defaults.

    Nearly all are those of linear maps. Forward, and backward by weights and by inputs, each costs 2 FLOP a weight and
    text; states need no gradient, so that the maps that read them cost 4 instead of 6.
    """
    options = AdaptOptions()
    with torch.device("meta"):
        network = SideNetwork(layers, width, options.width, integration=options.side)
    return sum(parameter.numel() for parameter in network.parameters())


def side_network_bytes(layers: int, width: int) -> float:
    """Of an item's states in bfloat16 and of what that side network holds of it for the backward pass, as weighed."""
    return layers * width * 2 + _held_for_an_item(AdaptOptions(), layers, width, torch.bfloat16)


def training_bytes(shape: Shape, tokens: int, learning: Learning, checkpointing: bool = False, value: int = 2) -> int:
    """What the LLM takes in training.

    Args:
        shape: of the LLM.
        tokens: of all texts of a step.
        learning: what of it learns.
        checkpointing: whether blocks are computed again.
        value: bytes of a frozen weight and of a held value.
    """
    of_weight = _BYTES_OF_LEARNT if learning == "full" else value  # What LoRA and others add is small beside it.
    return shape.weights * of_weight + tokens * shape.held_values(learning, checkpointing) * value


def _digits(value: float) -> str:
    """Two that mean something, or all before the point."""
    if value >= 1:
        return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
    return np.format_float_positional(float(f"{value:.2g}"), trim="-")
