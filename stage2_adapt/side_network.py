"""The side network: adapters outside the LLM, integrated sequentially over its layers (arXiv 2310.01612, abstract).

The paper's abstract fixes that adapters stand outside a frozen LLM, adapt its top layers jointly and are integrated
sequentially. The form of the adapter and of the integration are this project's own (docs/method.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

# Item vectors start about as small as ID vectors and positions do (standard deviation 0.02). At a gain of 1 neither
# weighs anything beside the text (docs/method.md has what that costs).
_INITIAL_GAIN = 0.05


class SideNetwork(nn.Module):
    """Folds the A standardised layer states of an item into one vector, lowest layer first.

    z_l = Adapter_l(h_l)           down-projection to width d, then a residual non-linear map
    s_l = GRUCell(z_l, s_{l-1})    one gated recurrent cell for all layers (Cho et al., arXiv 1406.1078)
    e   = LayerNorm(s_top + W h_top)
    """

    def __init__(self, num_layers: int, state_width: int, width: int) -> None:
        super().__init__()
        self.down = _stacked_linear(num_layers, state_width, width)
        self.inner = _stacked_linear(num_layers, width, width)
        self.down_bias = nn.Parameter(torch.zeros(num_layers, 1, width))
        self.inner_bias = nn.Parameter(torch.zeros(num_layers, 1, width))
        self.cell_input = nn.Linear(width, 3 * width)
        self.cell_state = nn.Linear(width, 3 * width)
        self.skip = nn.Linear(state_width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, _INITIAL_GAIN)

    def forward(self, states: Tensor) -> Tensor:
        """Item vectors ``(n, d)`` from standardised states ``(A, n, D)``, lowest layer first."""
        adapted = self._adapt(states)  # (A, n, d)
        item: Tensor = self.norm(self._integrate(adapted) + self.skip(states[-1]))
        return item

    def _adapt(self, states: Tensor) -> Tensor:
        """All adapters as batched products: ``(A, n, D)`` to ``(A, n, d)``."""
        down = torch.baddbmm(self.down_bias, states, self.down)
        return down + torch.baddbmm(self.inner_bias, functional.gelu(down), self.inner)

    def _integrate(self, adapted: Tensor) -> Tensor:
        """The recurrent cell over the layers: ``(A, n, d)`` to ``(n, d)``."""
        width = adapted.shape[2]
        inputs = self.cell_input(adapted)  # (A, n, 3d), for all layers at once: reset, update, candidate
        state = torch.zeros_like(adapted[0])
        for from_layer in inputs:
            from_state = self.cell_state(state)
            gates = torch.sigmoid(from_layer[:, : 2 * width] + from_state[:, : 2 * width])
            reset, update = gates.chunk(2, dim=1)
            candidate = torch.tanh(torch.addcmul(from_layer[:, 2 * width :], reset, from_state[:, 2 * width :]))
            state = torch.lerp(candidate, state, update)
        return state


def _stacked_linear(num_layers: int, inputs: int, outputs: int) -> nn.Parameter:
    """Weights ``(A, inputs, outputs)``, initialised as `nn.Linear` initialises each."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(num_layers, inputs, outputs).uniform_(-bound, bound))
