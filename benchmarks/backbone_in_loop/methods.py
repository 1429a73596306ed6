"""What of the LLM learns, by method. Each takes a frozen LLM and makes it learn in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LORA_RANK, LORA_ALPHA = 8, 16
BOTTLENECK = 64
_LORA_TARGETS = {"mpnet": ["q", "v"], "distilbert": ["q_lin", "v_lin"]}  # Where peft has no default of its own.


class NotApplicableError(ValueError):
    """A method has nothing to train in this LLM."""


def full_fine_tuning(llm: nn.Module) -> None:
    """Every parameter learns."""
    llm.requires_grad_(True)


def lora(llm: nn.Module) -> None:
    """Low-rank updates of the attention's queries and values (Hu et al., arXiv 2106.09685), by `peft`."""
    from peft import LoraConfig, inject_adapter_in_model

    config: Any = llm.config
    targets = _LORA_TARGETS.get(config.model_type)
    inject_adapter_in_model(LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=targets), llm)


class Bottleneck(nn.Module):
    """Down-projection, GELU and up-projection beside an identity; it starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, BOTTLENECK), nn.Linear(BOTTLENECK, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Of the same shape ``(n, T, D)``."""
        adapted: Tensor = hidden + self.up(functional.gelu(self.down(hidden)))
        return adapted


def houlsby_adapters(llm: nn.Module) -> None:
    """Two adapters a block, after attention and after the feed-forward part (Houlsby et al., arXiv 1902.00751).

    Each stands before the skip connection is added, and the layer norms learn as well, as in the paper. Places are
    found by the form that BERT and its relatives give to blocks: `LayerNorm(dropout(…) + skip)`.

    Raises:
        NotApplicableError: if the LLM has no such places.
    """
    places = [
        module
        for name, module in llm.named_modules()
        if isinstance(getattr(module, "dropout", None), nn.Dropout)
        and isinstance(getattr(module, "LayerNorm", None), nn.LayerNorm)
        and "embeddings" not in name
    ]
    if not places:
        raise NotApplicableError(f"{type(llm).__name__} has no blocks of BERT's form to put Houlsby adapters into.")
    for place in places:
        adapter = Bottleneck(place.LayerNorm.normalized_shape[0]).to(place.LayerNorm.weight.device)
        place.dropout = nn.Sequential(place.dropout, adapter)
    for module in llm.modules():
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)


def bitfit(llm: nn.Module) -> None:
    """Only bias terms learn, those of layer norms among them (Ben Zaken et al., arXiv 2106.10199).

    Raises:
        NotApplicableError: if the LLM has none.
    """
    biases = [parameter for name, parameter in llm.named_parameters() if name.endswith("bias")]
    if not biases:
        raise NotApplicableError(f"{type(llm).__name__} has no biases for BitFit to train.")
    for bias in biases:
        bias.requires_grad_(True)


TRAINED: dict[str, tuple[Callable[[nn.Module], None], float]] = {
    "full": (full_fine_tuning, 5e-5),
    "lora": (lora, 5e-4),
    "adapters": (houlsby_adapters, 3e-4),
    "bitfit": (bitfit, 1e-3),
}
"""By method, what makes the LLM learn, and the learning rate of its parameters, in the range of the method's paper"""

UNCACHED = "uncached"
"""The side network on a frozen LLM that runs in every step"""

METHODS = (*TRAINED, UNCACHED)


def make_trainable(llm: nn.Module, method: str, checkpointing: bool, dropout: bool = True) -> None:
    """Let the parameters of a frozen LLM learn that the method trains.

    Args:
        llm: of `transformers`, without a head; its pooler, whose output nobody reads, is taken away.
        method: a key of `TRAINED`.
        checkpointing: whether the backward pass computes each block again, so that only what goes into the blocks is
            held (Chen et al., arXiv 1604.06174).
        dropout: whether the LLM's own acts while it learns; it can be taken from LLMs that have modules of it, as BERT
            and its relatives do.
    """
    if isinstance(getattr(llm, "pooler", None), nn.Module):
        llm.pooler = None
    if checkpointing:
        new_name = "activation_checkpointing_enable"  # Of transformers 5, which warns of the old one.
        enable: Any = getattr(llm, new_name, None) or llm.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if not dropout:
        for module in llm.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # New parameters are the same in every run, whatever was drawn before.
        TRAINED[method][0](llm)
