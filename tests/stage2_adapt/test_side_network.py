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


@pytest.mark.parametrize("integration", INTEGRATIONS)
def test_states_in_bfloat16_are_trained_on_as_float32_ones_within_rounding(integration: SideName) -> None:
    """Against the float32 network on the same rounded states; a CPU rounds weights, products and gradients too."""
    network, states = make(integration), torch.randn(3, 50, 5).bfloat16()
    gradient = torch.randn(50, 4)
    found, expected = network(states), network(states.float())
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected), "products are in bfloat16"
    assert functional.cosine_similarity(found, expected, dim=1).min() > 0.999
    gradients = [torch.autograd.grad(vectors, list(network.parameters()), gradient) for vectors in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.dtype == torch.float32
        assert functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99
    network.eval()
    assert torch.equal(network(states), network(states.float())), "outside training all is float32"


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
    done = preparation.apply(states.clone())[:, :30]
    for layer in done:
        np.testing.assert_allclose(layer.T @ layer / 30, np.eye(3), atol=1e-4)


def test_directions_in_which_training_states_do_not_vary_are_dropped() -> None:
    states = made_up_states()
    states[:, :, 2] = states[:, :, 0] + states[:, :, 1]
    preparation = fit_preparation([states], "whiten")
    done = preparation.apply(states.clone())
    np.testing.assert_allclose(done.std(1, correction=0), [[1, 1, 0]] * 2, atol=1e-3)


def test_of_wider_states_the_directions_in_which_they_vary_most_are_read_at_one_scale() -> None:
    states = made_up_states()
    preparation = fit_preparation([states[:, :7], states[:, 7:]], "standardize", 2)
    done = preparation.apply(states.clone())
    assert done.shape == (2, 40, 2)
    assert preparation.width == 2
    whole = fit_preparation([states], "standardize").apply(states.clone()).double()
    for layer, standardised in zip(done, whole, strict=True):
        # The independent reference: singular vectors, whose signs are free.
        left, sizes, _ = np.linalg.svd(standardised.numpy(), full_matrices=False)
        expected = left[:, :2] * sizes[:2]
        expected *= np.sqrt(40 * 2 / (sizes[:2] ** 2).sum())
        signs = np.sign((expected * layer.numpy()).sum(axis=0))
        np.testing.assert_allclose(layer, expected * signs, atol=1e-4)
    for enough in (3, 100, None):
        assert fit_preparation([states], "standardize", enough).projection is None


def test_whitening_fewer_directions_gives_the_first_of_all() -> None:
    states = made_up_states()
    every, two = (fit_preparation([states], "whiten", kept).apply(states.clone()) for kept in (None, 2))
    torch.testing.assert_close(two, every[:, :, :2])


def test_directions_have_the_sign_with_which_their_largest_entry_is_positive() -> None:
    projection = fit_preparation([made_up_states()], "whiten").projection
    assert projection is not None
    assert bool((projection.amax(dim=1) > -projection.amin(dim=1)).all())


def test_without_preparation_states_stay_as_they_are() -> None:
    states = made_up_states()
    assert torch.equal(fit_preparation([states], "none", 2).apply(states.clone()), states)
