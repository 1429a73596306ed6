"""The methods that benchmarks/accuracy.py compares: what each changes about the defaults, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssna import AdaptOptions
from ssna.stage2_adapt.dropout import Dropout
from ssna.stage2_adapt.options import SideName
from ssna.stage2_adapt.side_network import _INITIAL_GAIN, SideNetwork, _stacked_linear

EXPERTS = 8


class MixtureOfExperts(nn.Module):
    """UniSRec's adaptor of one layer's states (Hou et al., arXiv 2206.05941, section 2.1), as its public code has it.

    e = LayerNorm(sum_k g_k(h) (drop(h) - b_k) W_k), with g the softmax of a linear map of h that is noisy in training.
    The norm is ours, so that item vectors start as small as those of all other methods.
    """

    def __init__(self, num_layers: int, state_width: int, width: int, **unused: Any) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(EXPERTS, 1, state_width))
        self.experts = _stacked_linear(EXPERTS, state_width, width)
        nn.init.normal_(self.experts, std=0.02)
        self.gate = nn.Parameter(torch.zeros(state_width, EXPERTS))
        self.noise = nn.Parameter(torch.zeros(state_width, EXPERTS))
        self.dropout = Dropout(0.2)
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, _INITIAL_GAIN)

    def forward(self, states: Tensor) -> Tensor:
        """Item vectors ``(n, d)`` from prepared states ``(A, n, K)``, of which the top layer's are read."""
        top = states[-1].float()
        logits = top @ self.gate
        if self.training:
            logits = logits + torch.randn_like(logits) * (functional.softplus(top @ self.noise) + 1e-2)
        each = torch.baddbmm(-self.bias @ self.experts, self.dropout(top).expand(EXPERTS, -1, -1), self.experts)
        vector: Tensor = self.norm(torch.einsum("nk,knd->nd", logits.softmax(dim=1), each))
        return vector


class GatedAdapters(nn.Module):
    """IISAN's side network for one modality (Fu et al., arXiv 2404.02059, section 3.2), as its public code has it.

    s_l = f + U_l GELU(D_l f) with f = g_l h_l + (1 - g_l) s_{l-1} and g_l = sigmoid(p_l / 0.1): the gate comes before
    the adapter, and all is as wide as the states. Then a linear map to the item's width. The norm is ours, as above;
    the states are standardised.
    """

    def __init__(self, num_layers: int, state_width: int, width: int, **unused: Any) -> None:
        super().__init__()
        self.down = _stacked_linear(num_layers, state_width, width)
        self.up = _stacked_linear(num_layers, width, state_width)
        for weight in (self.down, self.up):
            nn.init.normal_(weight, std=0.01)
        self.down_bias = nn.Parameter(torch.zeros(num_layers, width))
        self.up_bias = nn.Parameter(torch.zeros(num_layers, state_width))
        self.gates = nn.Parameter(torch.zeros(num_layers))
        self.out = nn.Linear(state_width, width)
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, _INITIAL_GAIN)

    def forward(self, states: Tensor) -> Tensor:
        """Item vectors ``(n, d)`` from prepared states ``(A, n, K)``, lowest layer first."""
        state = torch.zeros_like(states[0], dtype=torch.float32)
        for number, gate in enumerate(torch.sigmoid(self.gates / 0.1)):
            state = torch.lerp(state, states[number].float(), gate)
            inner = functional.gelu(torch.addmm(self.down_bias[number], state, self.down[number]))
            state = state + torch.addmm(self.up_bias[number], inner, self.up[number])
        vector: Tensor = self.norm(self.out(state))
        return vector


@dataclass(frozen=True)
class Method:
    """A row of the comparison."""

    title: str
    options: Mapping[str, Any]
    """Of `AdaptOptions`, where they differ from the defaults"""
    num_llms: int = 1
    side_network: type[nn.Module] = SideNetwork
    searched: bool = True
    """Whether it has anything that the search could change"""
    one_layer: bool = field(default=False)
    """Whether it reads the top layer alone"""


METHODS: dict[str, Method] = {
    "popularity": Method("popularity", {"model": "popularity"}, 0, searched=False),
    "ids": Method("item IDs, SASRec", {"side": "none"}, 0),
    "ids-gru4rec": Method("item IDs, GRU4Rec", {"side": "none", "model": "gru4rec"}, 0),
    "ids-plain": Method(
        "item IDs, SASRec without our biases", {"side": "none", "repeat_bias": False, "popularity_bias": False}, 0
    ),
    "last": Method(
        "last layer, projected", {"side": "frozen", "layers": 1, "preparation": "standardize"}, one_layer=True
    ),
    "last-whitened": Method(
        "last layer, whitened, projected (after WhitenRec)",
        {"side": "frozen", "layers": 1, "preparation": "whiten"},
        one_layer=True,
    ),
    "last-moe": Method(
        "last layer, whitened, mixture of experts (UniSRec)",
        {"layers": 1, "preparation": "whiten"},
        side_network=MixtureOfExperts,
        one_layer=True,
    ),
    "last-adapter": Method("last layer, one adapter", {"side": "last", "layers": 1}, one_layer=True),
    "mean": Method("adapters of all layers, averaged", {"side": "mean"}),
    "iisan": Method("gated side network (IISAN)", {}, side_network=GatedAdapters),
    "gru": Method("SSNA, gru", {"side": "gru"}),
    "residual": Method("SSNA, residual", {"side": "residual"}),
    "residual-whitened": Method("SSNA, residual, whitened", {"side": "residual", "preparation": "whiten"}),
    "gru-ids": Method("SSNA, gru, and item IDs", {"side": "gru", "item_id": True}),
    "residual-ids": Method("SSNA, residual, and item IDs", {"side": "residual", "item_id": True}),
    "residual-ids-always": Method(
        "SSNA, residual, and item IDs, none left out", {"side": "residual", "item_id": True, "id_dropout": 0.0}
    ),
    "mean-equal": Method("adapters averaged, as many parameters as SSNA", {"side": "mean"}),
    "concat-equal": Method("adapters side by side, as many parameters as SSNA", {"side": "concat"}),
    "two-llms": Method("SSNA, residual, two LLMs", {"side": "residual"}, 2),
}
STUDIED = "residual"
"""With fewer layers too, and beside other forms with the same options"""
ONE_LAYER_OF_STUDIED = "last-adapter"
"""What it is with one layer, where there is nothing to integrate: the same training"""
FUSED = "two-llms"
"""The studied method on the layers of two LLMs"""
EQUAL = ("mean-equal", "concat-equal")
FORMS = ("gru", "mean", "iisan", *EQUAL)
"""Other integrations of the same layers"""


def width_of_equal_size(method: str, num_layers: int, state_width: int) -> int:
    """The `--side-width` with which a method's side network has nearest to as many parameters as SSNA's."""
    wanted, width = _size("residual", num_layers, state_width, None), AdaptOptions.width
    side = METHODS[method].options["side"]
    return min(range(width // 2, 3 * width), key=lambda each: abs(_size(side, num_layers, state_width, each) - wanted))


def _size(side: SideName, num_layers: int, state_width: int, side_width: int | None) -> int:
    with torch.device("meta"):
        network = SideNetwork(num_layers, state_width, AdaptOptions.width, integration=side, side_width=side_width)
    return sum(parameter.numel() for parameter in network.parameters())


# What every method may choose from, on validation, with the first seed. The same number of trials for all.
SEARCH: tuple[Mapping[str, Any], ...] = ({}, {"dropout": 0.4}, {"blocks": 1})
SEARCHED = tuple(dict.fromkeys(name for trial in SEARCH for name in trial))
