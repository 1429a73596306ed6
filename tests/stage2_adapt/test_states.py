"""States on the device and streamed from the cache: the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ssna.cache import Cache, Keys, SegmentWriter, Selection, keys_of_texts
from ssna.stage2_adapt import (
    AdaptOptions,
    Epoch,
    ItemStates,
    OptionError,
    Preparation,
    ResidentStates,
    StreamedStates,
    Training,
    TrainingData,
    blocks_of,
    bytes_of_states,
    dtype_of_products,
    fit_preparation,
    leave_last,
)
from ssna.stage2_adapt.states import read_lowest_first
from tests.cache.strategies import add_rows, make_cache, states_for
from tests.stage2_adapt.strategies import pack

CPU = torch.device("cpu")
N = 12
SEQUENCES = pack([[(start + step) % (N - 2) + 1 for step in range(6)] for start in range(N)] * 3)


def keys(numbers: range) -> Keys:
    return keys_of_texts(str(number) for number in numbers)


@pytest.fixture
def rows(tmp_path: Path) -> Selection:
    """Of N items with 2 layers of width 16, in two segments."""
    cache, rng = make_cache(tmp_path), np.random.default_rng(0)
    for part in (range(7), range(7, N)):
        states = rng.normal(3, 2, (len(part), 2, 16)).astype(np.float32)
        with SegmentWriter(cache, [2, 1], "float16", "made-up") as writer:
            writer.add(keys(part), states, np.full(len(part), 7, np.uint32), np.zeros(len(part), np.bool_))
    return Cache.open(cache.path).select(keys(range(N)), 2)


def both(
    rows: Selection, preparation: Preparation, items_at_once: int = 100, dtype: torch.dtype = torch.float32
) -> tuple[ItemStates, ItemStates]:
    resident = ResidentStates.read([rows], [preparation], CPU, dtype)
    return resident, StreamedStates([rows], [preparation], CPU, items_at_once, dtype)


def test_stage_two_reads_the_layers_lowest_first(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    add_rows(cache, range(3))
    turned = read_lowest_first(cache.select(keys(range(3)), 3), np.array([2, 0]))
    top_first = torch.from_numpy(states_for([2, 0]))  # A state is 50 × item + 10 × layer (0 is the top) + dimension.
    assert turned.tolist() == [top_first[:, layer].tolist() for layer in (2, 1, 0)]


def test_streamed_states_are_the_resident_ones(rows: Selection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssna.stage2_adapt.states._BYTES_AT_ONCE", 5 * 4 * 2 * 16)
    preparation = fit_preparation(blocks_of(rows, np.array([0, 2, 3, 8, 9, 10])), "standardize")
    resident, streamed = both(rows, preparation)
    items = torch.tensor([12, 1, 7])
    raw = rows.read()[:, ::-1].swapaxes(0, 1)  # Lowest layer first.
    expected = (raw - preparation.mean.numpy()[:, None]) / preparation.deviation.numpy()[:, None]
    for states in (resident, streamed):
        assert np.array_equal(states.of(items)[0], expected[:, [11, 0, 6]])
        assert np.array_equal(states.between(3, 9)[0], expected[:, 3:9])
    assert bytes_of_states([rows], [preparation]) == expected.nbytes


def test_states_of_more_items_and_of_fewer_use_the_same_memory(rows: Selection) -> None:
    two = (fit_preparation(blocks_of(rows), "none"), fit_preparation(blocks_of(rows), "standardize", 5))
    resident = ResidentStates.read([rows, rows], two, CPU)
    for items in (torch.tensor([3, 1, 2]), torch.arange(N) + 1, torch.tensor([N])):
        for found, states in zip(resident.of(items), resident.parts, strict=True):
            assert torch.equal(found, states[:, items - 1])
    assert [len(memory) for memory in resident._memory.values()] == [2 * N * 16, 2 * N * 5]


def test_of_reduced_states_only_the_components_are_held(rows: Selection) -> None:
    preparation = fit_preparation(blocks_of(rows), "standardize", 5)
    resident, streamed = both(rows, preparation)
    assert resident.between(0, N)[0].shape == (2, N, 5)
    torch.testing.assert_close(streamed.of(torch.tensor([12, 1])), resident.of(torch.tensor([12, 1])))
    assert bytes_of_states([rows], [preparation]) == 4 * 2 * N * 5


@pytest.mark.parametrize("mixed", [True, False], ids=["as on a GPU", "as on a CPU"])
@pytest.mark.parametrize("items_at_once", [4, 100])
@pytest.mark.parametrize(
    "chosen",
    [
        {"loss": "softmax"},
        {"loss": "sampled", "negatives": 4},
        {"loss": "in-batch", "preparation": "whiten", "side_dropout": 0.3},
        {"loss": "softmax", "item_id": True, "side_dropout": 0.3},
        {"loss": "sampled", "negatives": 4, "precision": "bfloat16"},
        {"loss": "sampled", "negatives": 4, "components": 6},
    ],
    ids=lambda chosen: "-".join(map(str, chosen.values())),
)
def test_training_from_streamed_states_is_training_from_resident_ones(
    rows: Selection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chosen: dict[str, object],
    items_at_once: int,
    mixed: bool,
) -> None:
    monkeypatch.setattr("ssna.stage2_adapt.training.mixes_all_products", lambda device: mixed)
    read, largest = StreamedStates._read, [0]

    def noted(self: StreamedStates, places: slice | np.ndarray) -> list[torch.Tensor]:
        states = read(self, places)
        largest[0] = max(largest[0], states[0].shape[1])
        return states

    monkeypatch.setattr(StreamedStates, "_read", noted)
    monkeypatch.setattr("ssna.stage2_adapt.item_encoder.CPU_BLOCK_ITEMS", 4)
    monkeypatch.setattr("ssna.stage2_adapt.training._ITEMS_AT_ONCE", 4)
    fixed = {"width": 8, "heads": 2, "blocks": 1, "length": 4, "batch_size": 8, "epochs": 3, "learning_rate": 0.01}
    options = AdaptOptions(**{**fixed, **chosen})  # type: ignore[arg-type]
    components = options.for_each_llm("components", 1)[0]
    preparation = fit_preparation(blocks_of(rows, np.arange(N - 2)), options.preparation, components)
    kinds = both(rows, preparation, items_at_once, dtype_of_products(options, CPU))
    outcomes = []
    for name, states in zip(("resident", "streamed"), kinds, strict=True):
        data = TrainingData(SEQUENCES, leave_last(SEQUENCES), N, N - 2, states, [(2, preparation.width)])
        training, epochs = Training(data, options, CPU), list[Epoch]()
        training.run(tmp_path / name, epochs.append)
        outcomes.append(([(e.loss, e.valid) for e in epochs], training.recommender().item_embeddings))
    (lines, embeddings), (streamed_lines, streamed_embeddings) = outcomes
    if preparation.projection is None:
        assert streamed_lines == lines
        assert torch.equal(streamed_embeddings, embeddings)
    else:  # A product of fewer rows may round otherwise.
        assert [loss for loss, _ in streamed_lines] == pytest.approx([loss for loss, _ in lines], rel=1e-4)
        torch.testing.assert_close(streamed_embeddings, embeddings, rtol=1e-3, atol=1e-3)
    assert 0 < largest[0] <= items_at_once


def test_a_budget_is_kept_by_holding_two_pieces_at_most(rows: Selection) -> None:
    item = 4 * 2 * 16
    assert StreamedStates.within(7 * item, [rows], [], CPU).items_at_once == 3
    with pytest.raises(OptionError, match="--memory-budget 255 bytes: .* one item take 128 bytes"):
        StreamedStates.within(2 * item - 1, [rows], [], CPU)
    assert StreamedStates.within(7 * item, [rows], [], CPU, torch.bfloat16).items_at_once == 3


@pytest.mark.parametrize("mixed", [True, False], ids=["as on a GPU", "as on a CPU"])
def test_bfloat16_reads_states_of_half_the_size_with_the_same_results(
    rows: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixed: bool
) -> None:
    monkeypatch.setattr("ssna.stage2_adapt.training.mixes_all_products", lambda device: mixed)
    options = AdaptOptions(precision="bfloat16", width=8, length=4, batch_size=8, epochs=2)
    preparation = fit_preparation(blocks_of(rows, np.arange(N)), "standardize")
    assert dtype_of_products(options, CPU) == torch.bfloat16
    assert bytes_of_states([rows], [preparation], torch.bfloat16) == N * 2 * 2 * 16
    losses = []
    for dtype in (torch.bfloat16, torch.float32):
        states = ResidentStates.read([rows], [preparation], CPU, dtype)
        assert {part.dtype for part in states.parts} == {dtype}
        data = TrainingData(SEQUENCES, leave_last(SEQUENCES), N, N, states, [(2, 16)])
        epochs = list[Epoch]()
        Training(data, options, CPU).run(tmp_path / str(dtype), epochs.append)
        losses.append([epoch.loss for epoch in epochs])
    if mixed:
        assert losses[0] == losses[1], "products of float32 states round them to bfloat16 first"
    else:
        assert losses[0] == pytest.approx(losses[1], rel=2e-3)
