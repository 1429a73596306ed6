"""What an extraction costs, from the LLM's configuration alone: no weights are needed."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

from ssna.stage1_extract.batching import batch_size
from ssna.stage1_extract.layer_states import _blocks_of
from ssna.stage1_extract.llm_files import BLOCK_NAMES, LLMFiles
from ssna.stage1_extract.loading import ComputeDtype, base_config, random_model

# Blocks that are timed: of large ones a single one, whose embeddings and norms no longer count beside it.
_TIMED_BLOCKS, _LARGE_BLOCK = 2, 50_000_000
_TIMED_VOCABULARY = 1000  # A token's embedding is looked up; how many there are takes memory, but no time.
_FEWEST_RUNS, _MOST_RUNS, _SECONDS = 3, 50, 2.0
# Before the first text is read: transformers' own modules and the tokenizer, then the weights.
_STARTING_SECONDS, _WEIGHTS_A_SECOND = 3.0, 1e9
_READS_OF_GGUF = 4  # Once by us, three times by transformers; the header's vocabulary takes most of each.


@dataclass(frozen=True)
class LLMSize:
    """How large an LLM is."""

    parameters: int
    """Of the base model, without a head"""
    block_parameters: int
    """Of all blocks together; with experts, all of which count here, a token is read by fewer"""
    blocks: int
    attention_width: int
    """Of all attention heads together"""

    def flop(self, tokens: float) -> float:
        """Floating-point operations of reading one text of so many tokens: 2 a multiply-add."""
        return 2 * tokens * self.block_parameters + 4 * tokens**2 * self.attention_width * self.blocks


def llm_size(files: LLMFiles) -> LLMSize:
    """The size of an LLM, from a model without weights.

    Raises:
        LLMError: if transformers cannot make one of its configuration.
    """
    config = base_config(files)
    with torch.device("meta"):
        model = random_model(files, config)
    blocks = _blocks_of(model, files.num_blocks)
    total = sum(parameter.numel() for parameter in model.parameters())
    # Architectures that share one block among all layers have no list of blocks; then all but the embeddings is one.
    of_blocks = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    if not blocks:
        embeddings = sum(parameter.numel() for parameter in model.get_input_embeddings().parameters())
        of_blocks = (total - embeddings) * files.num_blocks
    heads = getattr(config, "num_attention_heads", None)
    head_width = getattr(config, "head_dim", None)
    width = heads * head_width if isinstance(heads, int) and isinstance(head_width, int) else files.state_width
    return LLMSize(total, of_blocks, files.num_blocks, width)


def loading_seconds(files: LLMFiles, size: LLMSize, dtype: ComputeDtype, header_seconds: float) -> float:
    """Seconds until the LLM is ready to read, about: from the disk, not from a hub.

    Args:
        files: of the LLM.
        size: of the LLM.
        dtype: of the computation.
        header_seconds: that `find_config` took.
    """
    weights: float = size.parameters * getattr(torch, dtype).itemsize / _WEIGHTS_A_SECOND
    return _STARTING_SECONDS + weights + (_READS_OF_GGUF * header_seconds if files.gguf is not None else 0.0)


def measured_seconds_a_token(
    files: LLMFiles, size: LLMSize, tokens: int, batch_tokens: int, dtype: ComputeDtype, device: torch.device
) -> float:
    """Seconds that the LLM needs for one token of texts of this length on a device, measured in a few seconds.

    A block or two with random weights read a batch as stage one does; what they take stands for all blocks.

    Args:
        files: of the LLM; only the configuration is read.
        size: of the LLM.
        tokens: of a text.
        batch_tokens: that are read at once.
        dtype: of the computation.
        device: a PyTorch device.

    Raises:
        LLMError: if transformers cannot make a model of the configuration.
    """
    large = size.block_parameters / size.blocks > _LARGE_BLOCK
    timed = min(size.blocks, 1 if large else _TIMED_BLOCKS)
    config = _shortened(base_config(files), timed)
    model = random_model(files, config).to(device, getattr(torch, dtype))
    texts = batch_size(tokens, batch_tokens)
    ids = torch.randint(5, config.vocab_size, (texts, tokens), device=device)
    mask = torch.ones_like(ids)
    mask[-1, -1] = tokens == 1  # Batches have some padding, and attention is slower with a mask than without.
    seconds, started = list[float](), time.perf_counter()
    with torch.inference_mode():
        while len(seconds) < _FEWEST_RUNS + 1 or (
            time.perf_counter() - started < _SECONDS and len(seconds) <= _MOST_RUNS
        ):
            begun = time.perf_counter()
            output = model(input_ids=ids, attention_mask=mask).last_hidden_state.float().sum()
            output.item()  # Waits for the device.
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:]) * size.blocks / timed / (texts * tokens)


def _shortened(config: Any, blocks: int) -> Any:
    """The configuration with so few blocks and words."""
    config = copy.deepcopy(config)
    for name in BLOCK_NAMES:
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, blocks)
    if isinstance(kinds := getattr(config, "layer_types", None), list):
        config.layer_types = kinds[:blocks]
    config.vocab_size = min(config.vocab_size, _TIMED_VOCABULARY)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if getattr(config, name, None) is not None:
            setattr(config, name, 0)
    return config
