"""The side network, SASRec, the item encoder and the loss against independent references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ssna.stage2_adapt import losses
from ssna.stage2_adapt.item_encoder import ItemEncoder
from ssna.stage2_adapt.losses import full_softmax_loss
from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.sasrec import SASRec
from ssna.stage2_adapt.side_network import SideNetwork
from ssna.stage2_adapt.states import fit_standardization, lowest_first


def test_the_side_network_is_adapters_and_a_gru_cell_from_the_lowest_layer_up() -> None:
    torch.manual_seed(0)
    network = SideNetwork(num_layers=3, state_width=5, width=4)
    nn.init.normal_(network.down_bias)
    nn.init.normal_(network.inner_bias)
    states = torch.randn(3, 7, 5)  # Lowest layer first.
    cell = nn.GRUCell(4, 4)
    cell.weight_ih, cell.bias_ih = network.cell_input.weight, network.cell_input.bias
    cell.weight_hh, cell.bias_hh = network.cell_state.weight, network.cell_state.bias
    state = torch.zeros(7, 4)
    for layer in range(3):
        down = states[layer] @ network.down[layer] + network.down_bias[layer]
        adapted = down + functional.gelu(down) @ network.inner[layer] + network.inner_bias[layer]
        state = cell(adapted, state)
    expected = network.norm(state + network.skip(states[-1]))
    torch.testing.assert_close(network(states), expected)


def test_every_parameter_of_the_side_network_gets_a_gradient() -> None:
    network = SideNetwork(3, 5, 4)
    network(torch.randn(3, 7, 5)).pow(3).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def make_sasrec() -> SASRec:
    torch.manual_seed(0)
    network = SASRec(width=8, length=6, blocks=2, heads=2, dropout=0.0).eval()
    nn.init.normal_(network.positions)
    return network


def test_sasrec_sees_neither_later_items_nor_padding() -> None:
    network, counts = make_sasrec(), torch.tensor([4, 4])
    items = torch.randn(2, 6, 8)
    padded_otherwise = items.clone()
    padded_otherwise[:, 4:] = torch.randn(2, 2, 8)
    torch.testing.assert_close(network(items, counts)[:, :4], network(padded_otherwise, counts)[:, :4])
    torch.testing.assert_close(network(items, counts)[:, :4], network(items[:, :4], counts))
    later_changed = items.clone()
    later_changed[:, 3] = torch.randn(2, 8)
    torch.testing.assert_close(network(items, counts)[:, :3], network(later_changed, counts)[:, :3])
    assert not torch.allclose(network(items, counts)[:, 3], network(later_changed, counts)[:, 3])


def test_sasrec_counts_positions_from_the_end() -> None:
    network = make_sasrec()
    seen = []
    network.blocks[0].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    network(torch.zeros(2, 3, 8), torch.tensor([3, 2]))
    torch.testing.assert_close(seen[0][0], network.positions[3:])
    torch.testing.assert_close(seen[0][1, :2], network.positions[4:])


def test_sasrec_tells_the_order_of_items() -> None:
    network, counts = make_sasrec(), torch.tensor([3])
    items = torch.randn(1, 3, 8)
    assert not torch.allclose(network(items, counts)[:, 2], network(items[:, [1, 0, 2]], counts)[:, 2])


@pytest.mark.parametrize("chunk", [1, 40, 10**6])
def test_full_softmax_has_the_value_and_gradients_of_cross_entropy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK_LOGITS", {"cpu": chunk})
    monkeypatch.setattr(losses, "_FEWEST_ROWS", 1)
    torch.manual_seed(0)
    inputs = [torch.randn(11, 4), torch.randn(7, 4), torch.tensor(3.0)]
    targets = torch.randint(0, 7, (11,))
    ours, theirs = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))
    loss = full_softmax_loss(ours[0], ours[1], targets, ours[2])
    reference = functional.cross_entropy(theirs[2] * theirs[0] @ theirs[1].T, targets)
    torch.testing.assert_close(loss, reference)
    (loss * 2).backward()
    (reference * 2).backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_items_without_training_have_an_id_vector_of_exactly_zero() -> None:
    encoder = ItemEncoder(None, num_trained=3, options=AdaptOptions(side="none", width=4, heads=2))
    vectors = encoder.encode_all(None, 5, torch.device("cpu"))
    assert vectors.shape == (6, 4)
    assert vectors[0].tolist() == [0.0] * 4, "padding"
    assert vectors[1:4].all()
    assert vectors[4:].tolist() == [[0.0] * 4] * 2


def test_text_and_ids_are_added_and_untrained_items_keep_their_text() -> None:
    torch.manual_seed(0)
    options = AdaptOptions(item_id=True, width=4, heads=2, dropout=0.0)
    encoder = ItemEncoder((2, 6), num_trained=3, options=options).eval()
    states = torch.randn(2, 5, 6)
    vectors = encoder.encode_all(states, 5, torch.device("cpu"))[1:]
    assert encoder.side is not None
    assert encoder.id_table is not None
    text = encoder.side(states)
    torch.testing.assert_close(vectors[:3], text[:3] + encoder.id_table)
    torch.testing.assert_close(vectors[3:], text[3:])


def test_items_are_encoded_alike_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ItemEncoder((2, 6), num_trained=3, options=AdaptOptions(item_id=True, width=4, heads=2)).eval()
    states = torch.randn(2, 5, 6)
    whole = encoder.encode_all(states, 5, torch.device("cpu"))
    monkeypatch.setattr("ssna.stage2_adapt.item_encoder._ITEMS_AT_ONCE", 2)
    torch.testing.assert_close(encoder.encode_all(states, 5, torch.device("cpu")), whole)


def test_standardised_states_have_mean_0_and_deviation_1_in_each_dimension() -> None:
    rng = np.random.default_rng(0)
    states = torch.from_numpy(rng.normal(5, 3, (2, 40, 3)).astype(np.float32))
    states[1, :, 2] = 7.0  # A dead dimension stays 0 and does not blow up.
    done = fit_standardization(states[:, :30]).apply(states.clone())
    np.testing.assert_allclose(done[:, :30].mean(1), np.zeros((2, 3)), atol=1e-6)
    expected = np.ones((2, 3))
    expected[1, 2] = 0
    np.testing.assert_allclose(done[:, :30].std(1, correction=0), expected, atol=1e-5)
    assert done[0, 30:].mean(0).abs().max() > 1e-3, "the constants are those of the fitted rows"


def test_stage_two_reads_the_layers_lowest_first() -> None:
    cached = torch.arange(12.0).reshape(2, 3, 2)  # Two items, three layers, top first.
    turned = lowest_first(cached)
    assert turned.shape == (3, 2, 2)
    for layer in range(3):
        assert torch.equal(turned[layer], cached[:, 2 - layer])
