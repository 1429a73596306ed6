"""The side network: adapters outside the LLM, integrated over its layers (arXiv 2310.01612, abstract).

The paper's abstract fixes that adapters stand outside a frozen LLM, adapt its top layers jointly and are integrated
sequentially. The forms of the adapter and of the integrations are this project's own (docs/method.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ssna.stage2_adapt.dropout import Dropout
from ssna.stage2_adapt.options import ActivationName, SideName

# Item vectors start about as small as ID vectors and positions do (standard deviation 0.02). At a gain of 1 neither
# weighs anything beside the text (docs/method.md has what that costs).
_INITIAL_GAIN = 0.05

_ITEMS_MULTIPLE = 64  # See `_LayerByLayer`.

_ACTIVATIONS: dict[ActivationName, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}


class SideNetwork(nn.Module):
    """Folds the A prepared layer states of an item into one vector, lowest layer first.

    p_l = W_l h_l + b_l            adapter: down-projection to the width m of the side network …
    z_l = p_l + V_l act(p_l)       … and a residual non-linear map
    s   = Integrate(z_1 … z_A)     see `INTEGRATIONS`
    e   = LayerNorm(O s + U h_A)   item vector of width d, with a skip from the top layer; O is left out if m = d
    """

    def __init__(
        self,
        num_layers: int,
        state_width: int,
        width: int,
        *,
        integration: SideName,
        side_width: int | None = None,
        activation: ActivationName = "gelu",
        dropout: float = 0.0,
    ) -> None:
        """Make the parts that the integration needs.

        Args:
            num_layers: A.
            state_width: K, of a prepared state.
            width: d, of the item vector.
            integration: how the adapters' outputs become one.
            side_width: m; None means d.
            activation: of the adapters.
            dropout: share of the adapters' outputs that is dropped in training.
        """
        super().__init__()
        inner = side_width or width
        self.num_layers = num_layers
        self._first = {"last": num_layers - 1, "frozen": num_layers}.get(integration, 0)  # The lowest layer adapted
        adapted = num_layers - self._first
        self._activation = _ACTIVATIONS[activation]
        self.integration: nn.Module | None = None
        self.out: nn.Module = nn.Identity()
        if adapted:
            self.down = _stacked_linear(adapted, state_width, inner)
            self.inner = _stacked_linear(adapted, inner, inner)
            self.down_bias = nn.Parameter(torch.zeros(adapted, 1, inner))
            self.inner_bias = nn.Parameter(torch.zeros(adapted, 1, inner))
            self.dropout = Dropout(dropout)
            self.integration = _INTEGRATIONS[integration](adapted, inner)
            if inner != width:
                self.out = nn.Linear(inner, width, bias=False)
        self.skip = nn.Linear(state_width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, _INITIAL_GAIN)

    def forward(self, states: Tensor) -> Tensor:
        """Item vectors ``(n, d)`` from prepared states ``(A, n, K)``, lowest layer first."""
        if not self.training and not torch.is_autocast_enabled(states.device.type):
            states = states.to(self.skip.weight.dtype)
        item = _affine(states[-1:], self.skip.weight.T[None])[0]
        if self.integration is not None:
            item = item + self.out(self.integration(self.dropout(self._adapt(states))))
        vector: Tensor = self.norm(item)
        return vector

    def _adapt(self, states: Tensor) -> Tensor:
        """All adapters as batched products: ``(A, n, K)`` to ``(A, n, m)``."""
        down = _affine(states[self._first :], self.down, self.down_bias)
        return down + torch.baddbmm(self.inner_bias, self._activation(down), self.inner)


def _affine(states: Tensor, weights: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each layer's states ``(A, n, K)`` times its weights ``(A, K, m)``, plus its bias ``(A, 1, m)``: ``(A, n, m)``.

    Products with states in bfloat16 are in bfloat16; without automatic mixed precision all else is float32.
    """
    if states.dtype == weights.dtype or torch.is_autocast_enabled(states.device.type):
        return torch.bmm(states, weights) if bias is None else torch.baddbmm(bias, states, weights)
    product: Tensor = _LayerByLayer.apply(states, weights)  # type: ignore[no-untyped-call]
    return product if bias is None else product + bias


class _LayerByLayer(torch.autograd.Function):
    """As `torch.bmm`, of states in bfloat16 and float32 weights; states have no gradient.

    On a CPU with matrix instructions for bfloat16, products of layers one by one are several times as fast as all at
    once, and as those in float32 (benchmarks/state_products.py). Items are made a multiple of 64 by zeros: oneDNN keeps
    the code for each of these numbers that it meets, for ever, and no step has as many items as the last.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weights: Tensor) -> Tensor:
        items = states.shape[1]
        ctx.missing = -items % _ITEMS_MULTIPLE
        states = _padded(states, ctx.missing)
        ctx.save_for_backward(states)
        pairs = zip(states, weights.to(states.dtype), strict=True)
        return torch.stack([torch.mm(layer, weight)[:items] for layer, weight in pairs]).to(weights.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (states,) = ctx.saved_tensors
        pairs = zip(states, _padded(grad.to(states.dtype), ctx.missing), strict=True)
        return None, torch.stack([torch.mm(layer.T, each) for layer, each in pairs]).to(grad.dtype)


def _padded(values: Tensor, missing: int) -> Tensor:
    """With so many items of zeros more; no copy if none are missing."""
    return functional.pad(values, (0, 0, 0, missing)) if missing else values


class _GRU(nn.Module):
    """s_l = GRUCell(z_l, s_{l-1}), one gated recurrent cell for all layers (Cho et al., arXiv 1406.1078)."""

    def __init__(self, num_layers: int, width: int) -> None:
        super().__init__()
        self.cell_input = nn.Linear(width, 3 * width)
        self.cell_state = nn.Linear(width, 3 * width)

    def forward(self, adapted: Tensor) -> Tensor:
        width = adapted.shape[2]
        inputs: Tensor = self.cell_input(adapted)  # (A, n, 3m), for all layers at once: reset and update, candidate
        state = inputs.new_zeros(adapted.shape[1], width)
        from_state = self.cell_state.bias.to(inputs.dtype).expand_as(inputs[0])
        for number, from_layer in enumerate(inputs):
            if number:  # The first state is zero, and its product with it.
                from_state = self.cell_state(state)
            # Splitting, not slicing: its gradient is put together at once.
            (gates_in, candidate_in), (gates_from, candidate_from) = (
                part.split([2 * width, width], dim=1) for part in (from_layer, from_state)
            )
            reset, update = torch.sigmoid(gates_in + gates_from).chunk(2, dim=1)
            candidate = torch.tanh(torch.addcmul(candidate_in, reset, candidate_from))
            state = torch.lerp(candidate, state, update)
        return state


class _Gate(nn.Module):
    """s_l = g_l s_{l-1} + (1 - g_l) z_l with a learned gate a layer.

    IISAN's gates (arXiv 2404.02059, section 3.2) are before each adapter and mix its inputs.
    """

    def __init__(self, num_layers: int, width: int) -> None:
        super().__init__()
        # At first every layer has the same part in the last sum: the gate before layer l keeps (l - 1) / l.
        keep = torch.arange(1, num_layers) / torch.arange(2, num_layers + 1)
        self.gate = nn.Parameter(torch.logit(keep))

    def forward(self, adapted: Tensor) -> Tensor:
        state, *others = adapted.unbind()
        for layer, keep in zip(others, torch.sigmoid(self.gate), strict=True):
            state = torch.lerp(layer, state, keep)
        return state


class _Residual(nn.Module):
    """s_l = z_l + s_{l-1} + F_l(s_{l-1}), where F_l is a two-layer map that starts at zero; at last divided by A.

    So it starts as the mean of the adapters.
    """

    def __init__(self, num_layers: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.map_in = _stacked_linear(num_layers - 1, width, width)
        self.map_in_bias = nn.Parameter(torch.zeros(num_layers - 1, width))
        self.map_out = nn.Parameter(torch.zeros(num_layers - 1, width, width))

    def forward(self, adapted: Tensor) -> Tensor:
        state, *others = adapted.unbind()  # Not sliced: the gradient is put together at once.
        for layer, first, bias, second in zip(others, self.map_in, self.map_in_bias, self.map_out, strict=True):
            inner = functional.gelu(torch.addmm(bias, self.norm(state), first))
            state = torch.addmm(layer + state, inner, second)
        return state / len(adapted)


class _Mean(nn.Module):
    """The mean of independent adapters."""

    def __init__(self, num_layers: int, width: int) -> None:
        super().__init__()

    def forward(self, adapted: Tensor) -> Tensor:
        return adapted.mean(dim=0)


class _Concat(nn.Module):
    """A linear map of all adapters' outputs side by side."""

    def __init__(self, num_layers: int, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(num_layers * width, width)

    def forward(self, adapted: Tensor) -> Tensor:
        mixed: Tensor = self.mix(adapted.transpose(0, 1).flatten(1))
        return mixed


_INTEGRATIONS: dict[SideName, Callable[[int, int], nn.Module]] = {
    "gru": _GRU,
    "gate": _Gate,
    "residual": _Residual,
    "mean": _Mean,
    "concat": _Concat,
    "last": _Mean,  # Of one adapter.
}


def _stacked_linear(num_layers: int, inputs: int, outputs: int) -> nn.Parameter:
    """Weights ``(A, inputs, outputs)``, initialised as `nn.Linear` initialises each."""
    bound = 1 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(num_layers, inputs, outputs).uniform_(-bound, bound))
