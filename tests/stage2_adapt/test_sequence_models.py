"""SASRec, GRU4Rec, HSTU and FMLP: what each position sees."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.recommenders import SequenceRecommender

MODELS = ["sasrec", "gru4rec", "hstu", "fmlp"]


def make(model: str) -> nn.Module:
    torch.manual_seed(0)
    options = AdaptOptions(model=model, width=8, length=6, blocks=2, heads=2, dropout=0.0)  # type: ignore[arg-type]
    network = SequenceRecommender(3, options).network.eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network


@pytest.mark.parametrize("model", MODELS)
def test_a_position_sees_neither_later_items_nor_padding(model: str) -> None:
    network, counts = make(model), torch.tensor([4, 4])
    items = torch.randn(2, 6, 8)
    padded_otherwise = items.clone()
    padded_otherwise[:, 4:] = torch.randn(2, 2, 8)
    torch.testing.assert_close(network(items, counts)[:, :4], network(padded_otherwise, counts)[:, :4])
    torch.testing.assert_close(network(items, counts)[:, :4], network(items[:, :4], counts))
    later_changed = items.clone()
    later_changed[:, 3] = torch.randn(2, 8)
    torch.testing.assert_close(network(items, counts)[:, :3], network(later_changed, counts)[:, :3])
    assert not torch.allclose(network(items, counts)[:, 3], network(later_changed, counts)[:, 3])


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_items_matters(model: str) -> None:
    network, counts = make(model), torch.tensor([3])
    items = torch.randn(1, 3, 8)
    assert not torch.allclose(network(items, counts)[:, 2], network(items[:, [1, 0, 2]], counts)[:, 2])


@pytest.mark.parametrize("model", MODELS)
def test_the_last_states_are_those_at_each_historys_end(model: str) -> None:
    network, counts = make(model), torch.tensor([4, 1, 5])
    items = torch.randn(3, 5, 8)
    expected = network(items, counts)[torch.arange(3), counts - 1]
    torch.testing.assert_close(network.last_states(items, counts), expected)


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_gets_a_gradient(model: str) -> None:
    network = make(model)
    network(torch.randn(3, 6, 8), torch.tensor([6, 6, 6])).pow(3).sum().backward()
    # A key's bias moves all scores of a query alike, which a softmax does not see.
    unseen = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert unseen == []


def test_fmlp_filters_each_dimension_by_distance() -> None:
    block = make("fmlp").blocks[0]
    hidden = torch.randn(2, 5, 8)
    normed = block.filter_norm(hidden)
    filtered = torch.zeros(2, 5, 8)
    for at in range(5):
        for earlier in range(at + 1):
            filtered[:, at] += block.filter_weights[at - earlier] * normed[:, earlier]
    mixed = hidden + filtered
    inner = nn.functional.gelu(block.feed_forward_in(block.feed_forward_norm(mixed)))
    torch.testing.assert_close(block(hidden), mixed + block.feed_forward_out(inner))


def test_items_of_the_history_are_biased_by_how_long_ago_they_came() -> None:
    options = AdaptOptions(width=8, length=4)
    plain = SequenceRecommender(5, replace(options, repeat_bias=False)).eval()
    biased = SequenceRecommender(5, options).eval()
    biased.load_state_dict(plain.state_dict(), strict=False)
    nn.init.normal_(plain.item_embeddings)
    assert biased.repeat_bias is not None
    biased.repeat_bias.by_age.data = torch.tensor([0.1, 0.2, 0.4, 0.8])  # Now, one ago, two ago, three ago; times ten.
    histories, counts = torch.tensor([[3, 1, 3, 0], [2, 5, 5, 4]]), torch.tensor([3, 4])
    biased.item_embeddings = plain.item_embeddings
    with torch.no_grad():
        difference = biased.scores(histories, counts, biased.candidates())
        difference -= plain.scores(histories, counts, plain.candidates())
        # Items 3 twice and 1 once; items 4, 5 twice, and 2.
        expected = torch.tensor([[2.0, 0, 1 + 4, 0, 0], [0, 8, 0, 1, 2 + 4]])
        torch.testing.assert_close(difference, expected, atol=1e-5, rtol=0)
        # The network reads four interactions; what was before them is as likely again as what came first of them.
        longer, counts = torch.tensor([[1, 2, 5, 5, 4]]), torch.tensor([5])
        recent = biased.scores(longer[:, 1:], counts - 1, biased.candidates())
        more = biased.scores(longer, counts, biased.candidates()) - recent
        torch.testing.assert_close(more, torch.tensor([[8.0, 0, 0, 0, 0]]), atol=1e-5, rtol=0)


def test_a_network_reads_all_of_its_length_however_long() -> None:
    for repeat_bias in (True, False):
        options = AdaptOptions(width=8, length=1500, repeat_bias=repeat_bias)
        assert SequenceRecommender(5, options).length == 1500


def test_popular_items_are_likelier_by_a_learned_weight() -> None:
    model = SequenceRecommender(3, AdaptOptions(width=8, length=4)).eval()  # All vectors are zero, and so are products.
    model.log_counts = torch.tensor([5.0, 1, 1]).log()
    assert model.popularity_weight is not None
    histories, counts = torch.tensor([[3, 1]]), torch.tensor([2])
    assert model.scores(histories, counts, model.candidates()).tolist() == [[0, 0, 0]], "nothing before it is learned"
    model.popularity_weight.data.fill_(0.5)
    scores = model.scores(histories, counts, model.candidates())
    torch.testing.assert_close(scores, torch.tensor([[0.5 * math.log(5), 0, 0]]))


@pytest.mark.parametrize("model", ["sasrec", "hstu"])
def test_positions_are_counted_from_the_end(model: str) -> None:
    network = make(model)
    seen = []
    network.blocks[0].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    network(torch.zeros(2, 3, 8), torch.tensor([3, 2]))
    torch.testing.assert_close(seen[0][0], network.positions.vectors[3:])
    torch.testing.assert_close(seen[0][1, :2], network.positions.vectors[4:])


def test_hstu_is_pointwise_attention_as_the_paper_writes_it() -> None:
    block = make("hstu").blocks[0]
    hidden = torch.randn(1, 3, 8)
    gates, queries, keys, values = nn.functional.silu(block.maps(block.norm_in(hidden)))[0].split(8, dim=1)
    mixed = torch.zeros(3, 8)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        for i in range(3):
            for j in range(i + 1):
                score = queries[i, part] @ keys[j, part] + block.distance_bias[head, i - j]
                mixed[i, part] += nn.functional.silu(score) / 6 * values[j, part]
    expected = hidden[0] + block.out(block.norm_mixed(mixed) * gates)
    torch.testing.assert_close(block(hidden)[0], expected)
