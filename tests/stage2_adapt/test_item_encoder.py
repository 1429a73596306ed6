"""Item vectors from text, IDs and both."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssna.stage2_adapt.item_encoder import ItemEncoder, encode
from ssna.stage2_adapt.options import AdaptOptions

ITEMS = torch.arange(1, 6)


def options(**changes: object) -> AdaptOptions:
    return AdaptOptions(**{"width": 4, "heads": 2, "dropout": 0.0, **changes})  # type: ignore[arg-type]


def test_items_without_training_have_an_id_vector_of_exactly_zero() -> None:
    encoder = ItemEncoder([], num_trained=3, options=options(side="none")).eval()
    vectors = encoder([], ITEMS)
    assert vectors.shape == (5, 4)
    assert vectors[:3].all()
    assert vectors[3:].tolist() == [[0.0] * 4] * 2
    torch.testing.assert_close(encoder.train()([], ITEMS[:3]), vectors[:3])


def test_text_and_ids_are_added_and_untrained_items_keep_their_text() -> None:
    torch.manual_seed(0)
    encoder = ItemEncoder([(2, 6)], num_trained=3, options=options(item_id=True)).eval()
    states = torch.randn(2, 5, 6)
    vectors, text = encoder([states], ITEMS), encoder.sides[0](states)
    assert encoder.id_table is not None
    torch.testing.assert_close(vectors[:3], text[:3] + encoder.id_table)
    torch.testing.assert_close(vectors[3:], text[3:])


def test_two_llms_and_ids_are_fused_by_gates_that_depend_on_the_texts() -> None:
    torch.manual_seed(0)
    encoder = ItemEncoder([(2, 6), (3, 5)], 3, options(item_id=True, fusion="gate")).eval()
    states = [torch.randn(2, 5, 6), torch.randn(3, 5, 5)]
    one, other = (side(part) for side, part in zip(encoder.sides, states, strict=True))
    assert encoder.gates is not None
    assert encoder.id_table is not None
    nn.init.normal_(encoder.gates.weight)
    weights = torch.sigmoid(torch.cat([one, other], dim=1) @ encoder.gates.weight.T + encoder.gates.bias)
    ids = torch.cat([encoder.id_table, torch.zeros(2, 4)])
    torch.testing.assert_close(encoder(states, ITEMS), one + weights[:, :4] * other + weights[:, 4:] * ids)


@pytest.mark.parametrize("fusion", ["add", "gate"])
def test_items_are_encoded_alike_in_blocks_and_in_any_order(fusion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder = ItemEncoder([(2, 6), (1, 3)], 3, options(item_id=True, fusion=fusion)).eval()
    states = [torch.randn(2, 5, 6), torch.randn(1, 5, 3)]
    whole = encoder(states, ITEMS)
    monkeypatch.setattr("ssna.stage2_adapt.item_encoder.CPU_BLOCK_ITEMS", 2)
    in_blocks = encode(encoder, lambda first, last: [part[:, first:last] for part in states], ITEMS, recompute=False)
    torch.testing.assert_close(in_blocks, whole)
    order = torch.tensor([4, 0, 2])
    torch.testing.assert_close(encoder([part[:, order] for part in states], ITEMS[order]), whole[order])


def test_in_training_a_share_of_the_items_goes_without_its_id() -> None:
    torch.manual_seed(0)
    encoder = ItemEncoder([(2, 6)], 400, options(item_id=True, id_dropout=0.25)).eval()
    assert encoder.id_table is not None
    states, items = [torch.randn(2, 400, 6)], torch.arange(1, 401)
    text = encoder.sides[0](states[0])
    whole = text + encoder.id_table
    torch.testing.assert_close(encoder(states, items), whole)
    found = encoder.train()(states, items)
    without = (found == text).all(dim=1)
    torch.testing.assert_close(found[~without], whole[~without])
    assert 70 < int(without.sum()) < 130
    assert not torch.equal((encoder(states, items) == text).all(dim=1), without), "others in every step"


def test_ids_alone_are_never_left_out() -> None:
    encoder = ItemEncoder([], 9, options(side="none", id_dropout=0.9)).train()
    assert encoder.id_table is not None
    assert torch.equal(encoder([], torch.arange(1, 10)), encoder.id_table)


@pytest.mark.parametrize("recompute", [False, True])
def test_no_items_have_no_vectors(recompute: bool) -> None:
    """As of several processes the last may have none to encode."""
    encoder = ItemEncoder([(2, 6)], 3, options(item_id=True))
    none = encode(encoder, lambda first, last: [torch.zeros(2, 0, 6)], torch.arange(0), recompute)
    assert none.shape == (0, 4)
    none.sum().backward()  # type: ignore[no-untyped-call]


def test_recomputing_gives_the_same_bits_and_asks_for_the_states_of_a_block_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ssna.stage2_adapt.item_encoder.CPU_BLOCK_ITEMS", 2)
    torch.manual_seed(0)
    encoder = ItemEncoder([(2, 6)], 5, options(item_id=True, side_dropout=0.5, id_dropout=0.5)).train()
    states, weights = torch.randn(2, 5, 6), torch.randn(5, 4)
    asked: list[tuple[int, int]] = []

    def part(first: int, last: int) -> list[torch.Tensor]:
        asked.append((first, last))
        return [states[:, first:last]]

    found = []
    for recompute in (False, True):
        torch.manual_seed(1)  # Of the dropout
        encoder.zero_grad()
        (encode(encoder, part, ITEMS, recompute) * weights).sum().backward()
        found.append([parameter.grad for parameter in encoder.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    blocks = [(0, 2), (2, 4), (4, 5)]
    assert asked == [*blocks, *blocks, *reversed(blocks)]
