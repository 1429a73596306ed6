"""The side network against independent references, and the preparation of its states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssna.stage2_adapt.options import SIDES, SideName
from ssna.stage2_adapt.side_network import SideNetwork
from ssna.stage2_adapt.states import fit_preparation

INTEGRATIONS = [side for side in SIDES if side != "none"]


def make(integration: SideName, **options: object) -> SideNetwork:
    """A network of three layers of width 5, no parameter of which is zero."""
    torch.manual_seed(0)
    network = SideNetwork(3, 5, 4, integration=integration, **options)  # type: ignore[arg-type]
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


def adapted(network: SideNetwork, states: Tensor) -> list[Tensor]:
    """Each layer's adapter, one after the other."""
    outputs = []
    for down, down_bias, inner, inner_bias, layer in zip(
        network.down, network.down_bias, network.inner, network.inner_bias, states[-len(network.down) :], strict=True
    ):
        first = layer @ down + down_bias
        outputs.append(first + functional.gelu(first) @ inner + inner_bias)
    return outputs


def by_hand(network: SideNetwork, integration: SideName, layers: list[Tensor]) -> Tensor:
    """What the adapters' outputs become, from the definitions."""
    part = network.integration
    if integration == "gru":
        cell = nn.GRUCell(4, 4)
        cell.weight_ih, cell.bias_ih = part.cell_input.weight, part.cell_input.bias
        cell.weight_hh, cell.bias_hh = part.cell_state.weight, part.cell_state.bias
        state = torch.zeros(7, 4)
        for layer in layers:
            state = cell(layer, state)
        return state
    if integration == "gate":
        state = layers[0]
        for layer, gate in zip(layers[1:], part.gate.sigmoid(), strict=True):
            state = gate * state + (1 - gate) * layer
        return state
    if integration == "residual":
        state = layers[0]
        for i, layer in enumerate(layers[1:]):
            normed = functional.layer_norm(state, [4], part.norm.weight, part.norm.bias)
            state = layer + state + functional.gelu(normed @ part.map_in[i] + part.map_in_bias[i]) @ part.map_out[i]
        return state / 3
    if integration == "concat":
        return part.mix(torch.cat(layers, dim=1))
    return sum(layers) / len(layers)


@pytest.mark.parametrize("integration", INTEGRATIONS)
def test_adapters_are_integrated_from_the_lowest_layer_up(integration: SideName) -> None:
    network, states = make(integration), torch.randn(3, 7, 5)  # Lowest layer first.
    item = network.skip(states[-1])
    if integration != "frozen":
        item = item + by_hand(network, integration, adapted(network, states))
    torch.testing.assert_close(network(states), network.norm(item))


@pytest.mark.parametrize("integration", INTEGRATIONS)
def test_every_parameter_gets_a_gradient(integration: SideName) -> None:
    network = make(integration, side_width=6)
    network(torch.randn(3, 7, 5)).pow(3).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_ablations_read_the_layers_that_they_say() -> None:
    states = torch.randn(3, 7, 5)
    other = states.clone()
    other[0] += 1
    for integration in INTEGRATIONS:
        network = make(integration)
        reads_lowest = not torch.equal(network(states), network(other))
        assert reads_lowest == (integration not in ("last", "frozen")), integration


@pytest.mark.parametrize("integration", ["gate", "residual"])
def test_sequential_integrations_start_as_the_mean(integration: SideName) -> None:
    layers = torch.randn(3, 7, 4)
    part = SideNetwork(3, 5, 4, integration=integration).integration
    torch.testing.assert_close(part(layers), layers.mean(0))


def test_whitening_in_the_weights_is_whitening_of_the_states() -> None:
    whitening, states = torch.randn(3, 5, 5), torch.randn(3, 7, 5)
    inside, outside = make("gru", whitening=whitening), make("gru")
    torch.testing.assert_close(inside(states), outside(states @ whitening), rtol=1e-4, atol=1e-5)


def made_up_states() -> Tensor:
    rng = np.random.default_rng(0)
    mixed = rng.normal(5, 3, (2, 40, 3)) @ rng.normal(size=(2, 3, 3))
    return torch.from_numpy(mixed.astype(np.float32))


def test_standardised_states_have_mean_0_and_deviation_1_in_each_dimension() -> None:
    states = made_up_states()
    states[1, :30, 2] = 7.0  # The same for all that are fitted: it stays 0 for them, and others do not blow up.
    states[1, 30:, 2] = 7.1
    done = fit_preparation([states[:, :7], states[:, 7:30]], "standardize").apply(states.clone())
    np.testing.assert_allclose(done[:, :30].mean(1), np.zeros((2, 3)), atol=1e-6)
    expected = np.ones((2, 3))
    expected[1, 2] = 0
    np.testing.assert_allclose(done[:, :30].std(1, correction=0), expected, atol=1e-5)
    assert done[0, 30:].mean(0).abs().max() > 1e-3, "the constants are those of the fitted rows"
    of_layer = states[1, :30].std(0, correction=0).mean()
    np.testing.assert_allclose(done[1, 30:, 2], 0.1 / of_layer, rtol=1e-3)


def test_whitened_states_have_the_identity_as_covariance() -> None:
    states = made_up_states()
    preparation = fit_preparation([states[:, :7], states[:, 7:30]], "whiten")
    assert preparation.whitening is not None
    done = (preparation.apply(states.clone()) @ preparation.whitening)[:, :30]
    for layer in done:
        np.testing.assert_allclose(layer.T @ layer / 30, np.eye(3), atol=1e-4)


def test_directions_in_which_training_states_do_not_vary_are_dropped() -> None:
    states = made_up_states()
    states[:, :, 2] = states[:, :, 0] + states[:, :, 1]
    preparation = fit_preparation([states], "whiten")
    assert preparation.whitening is not None
    done = preparation.apply(states.clone()) @ preparation.whitening
    np.testing.assert_allclose(done.std(1, correction=0).sort(dim=1).values, [[0, 1, 1]] * 2, atol=1e-3)


def test_without_preparation_states_stay_as_they_are() -> None:
    states = made_up_states()
    assert torch.equal(fit_preparation([states], "none").apply(states.clone()), states)
