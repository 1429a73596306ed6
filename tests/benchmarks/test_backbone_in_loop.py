"""The baselines with the LLM in the loop: they compute what they should, train what they should, and learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from backbone_in_loop.encoders import LLMEncoder, Reader
from backbone_in_loop.methods import METHODS, TRAINED, NotApplicableError, make_trainable
from backbone_in_loop.texts import ItemTokens
from backbone_in_loop.training import Problem, start
from torch import nn

from ssna import ExtractOptions, extract
from ssna.api.adapt import _prepare_training
from ssna.corpus import load_corpus
from ssna.dataset import Dataset
from ssna.inputs import read_inputs
from ssna.stage1_extract.llm_files import find_llm
from ssna.stage1_extract.loading import Placement, load_model
from ssna.stage2_adapt import AdaptOptions, Epoch, Processes, Training

CPU = torch.device("cpu")
BLOCKS, WIDTH = 3, 16


def options(**changes: object) -> AdaptOptions:
    fixed = {
        "width": 16, "heads": 2, "blocks": 1, "length": 8, "batch_size": 16, "epochs": 3, "learning_rate": 0.01,
        "loss": "in-batch",
    }  # fmt: skip
    return AdaptOptions(**{**fixed, **changes})  # type: ignore[arg-type]


def train(training: Training, path: Path) -> list[Epoch]:
    epochs: list[Epoch] = []
    training.run(path, epochs.append)
    return epochs


@pytest.fixture(scope="module")
def problem(dataset: Dataset) -> Problem:
    return Problem.of(load_corpus(dataset, options()))


@pytest.fixture(scope="module")
def exact_root(dataset: Dataset, tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with the states in float32, as the LLM gives them."""
    root = tmp_path_factory.mktemp("float32")
    extract(dataset.path, tiny_llm, name="exact", options=ExtractOptions(store="float32"), cache_root=root)
    return root


def from_the_cache(dataset: Dataset, root: Path, chosen: AdaptOptions) -> Training:
    inputs = read_inputs(dataset.path, ["exact"], [], root, chosen)
    return _prepare_training(inputs, chosen, CPU, Processes(), None, None).training


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="gru"),
        pytest.param({"layers": 2, "side": "mean", "preparation": "none"}, id="two-layers"),
        pytest.param({"layers": 1}, id="one-layer"),
        pytest.param({"preparation": "whiten", "item_id": True}, id="whitened-with-ids"),
    ],
)
def test_the_uncached_side_network_trains_as_the_cached_one(
    changes: dict[str, object], problem: Problem, dataset: Dataset, exact_root: Path, tiny_llm: Path, tmp_path: Path
) -> None:
    chosen = options(**changes)
    live = train(start(problem, str(tiny_llm), "uncached", chosen, CPU), tmp_path / "live")
    read = train(from_the_cache(dataset, exact_root, chosen), tmp_path / "read")
    # Batches of texts are made up otherwise than in the extraction, which moves states in their last bits.
    assert [epoch.loss for epoch in live] == pytest.approx([epoch.loss for epoch in read], rel=2e-4)
    assert [epoch.valid["ndcg@10"] for epoch in live] == pytest.approx([e.valid["ndcg@10"] for e in read], abs=0.05)


def test_an_llm_before_its_first_step_gives_the_vectors_of_the_frozen_side_network(
    problem: Problem, dataset: Dataset, exact_root: Path, tiny_llm: Path
) -> None:
    reference = from_the_cache(dataset, exact_root, options(side="frozen"))
    items = torch.tensor([3, 1, 3, 20])
    for method in TRAINED:
        training = start(problem, str(tiny_llm), method, options(), CPU)
        training._encoder.head.load_state_dict(reference._encoder.sides[0].state_dict())  # type: ignore[union-attr]
        training._modules.eval()
        states = [each[-1:] for each in reference._data.states.of(items)]
        expected = reference._encoder.sides[0](states[0])
        torch.testing.assert_close(training._encoder([], items), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns(method: str, problem: Problem, tiny_llm: Path, tmp_path: Path) -> None:
    # Texts hardly differ in the states of a random LLM, so that larger steps would move all of them together.
    training = start(problem, str(tiny_llm), method, options(epochs=14), CPU, learning_rate=1e-4)
    before = training._validate()["ndcg@10"]
    epochs = train(training, tmp_path / "c")
    assert epochs[-1].loss < epochs[0].loss
    assert max(epoch.valid["ndcg@10"] for epoch in epochs) > 1.5 * before


def test_an_llm_without_its_dropout_gives_the_same_in_training_as_after_it(problem: Problem, tiny_llm: Path) -> None:
    items, gap = np.array([1, 2, 3]), {}
    for dropout in (True, False):
        encoder = start(problem, str(tiny_llm), "full", options(), CPU, dropout=dropout)._encoder
        assert isinstance(encoder, LLMEncoder)
        training, after = encoder.train().raw(items), encoder.eval().raw(items)
        gap[dropout] = float((training - after).detach().abs().max())
    assert gap[False] == 0.0 < 0.01 < gap[True]


def names_that_learn(method: str, tiny_llm: Path) -> set[str]:
    llm = load_model(find_llm(str(tiny_llm)), "float32", Placement("cpu"))
    make_trainable(llm, method, False)
    return {name for name, parameter in llm.named_parameters() if parameter.requires_grad}


def test_the_methods_train_what_they_should(tiny_llm: Path) -> None:
    plain = load_model(find_llm(str(tiny_llm)), "float32", Placement("cpu"))
    everything = {name for name, _ in plain.named_parameters() if not name.startswith("pooler")}
    assert names_that_learn("full", tiny_llm) == everything
    assert names_that_learn("bitfit", tiny_llm) == {name for name in everything if name.endswith("bias")}
    attention = [
        f"encoder.layer.{block}.attention.self.{part}" for block in range(BLOCKS) for part in ("query", "value")
    ]
    assert names_that_learn("lora", tiny_llm) == {
        f"{place}.lora_{side}.default.weight" for place in attention for side in "AB"
    }
    places = [f"encoder.layer.{block}.{part}" for block in range(BLOCKS) for part in ("attention.output", "output")]
    adapters = {
        f"{place}.dropout.1.{map_}.{kind}" for place in places for map_ in ("down", "up") for kind in ("weight", "bias")
    }
    norms = {name for name in everything if "LayerNorm" in name}
    assert names_that_learn("adapters", tiny_llm) == adapters | norms


@pytest.mark.parametrize("method", TRAINED)
def test_exactly_the_trained_parameters_get_a_gradient_and_change(
    method: str, problem: Problem, tiny_llm: Path, tmp_path: Path
) -> None:
    training = start(problem, str(tiny_llm), method, options(epochs=2), CPU, learning_rate=0.02)
    (llm,) = training._encoder._llm  # type: ignore[misc]
    before = {name: value.clone() for name, value in llm.named_parameters()}
    train(training, tmp_path / "c")
    changed = {name for name, value in llm.named_parameters() if not torch.equal(value, before[name])}
    # Words that no item has are not read, but their rows are part of one parameter; keys' biases change no attention.
    expected = {name for name, value in llm.named_parameters() if value.requires_grad}
    assert {name for name in expected - changed if "key.bias" not in name} == set()
    assert changed <= expected
    groups = training._optimizer.param_groups
    assert {round(group["lr"], 6) for group in groups if group.get("of_llm")} == {0.02}
    assert {group["lr"] for group in groups if not group.get("of_llm")} == {0.01}
    ours = [*training._encoder.head.parameters(), *training._recommender.parameters()]  # type: ignore[union-attr]
    learning = [value for value in llm.parameters() if value.requires_grad]
    assert training.trainable_parameters == sum(value.numel() for value in [*learning, *ours])


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_stopped_training_goes_on_from_its_last_epoch(
    method: str, problem: Problem, tiny_llm: Path, tmp_path: Path
) -> None:
    whole = train(start(problem, str(tiny_llm), method, options(epochs=4), CPU), tmp_path / "whole")
    first = train(start(problem, str(tiny_llm), method, options(epochs=2), CPU), tmp_path / "parts")
    going_on = start(problem, str(tiny_llm), method, options(epochs=4), CPU)
    going_on.restore(tmp_path / "parts")
    rest = train(going_on, tmp_path / "parts")
    assert [epoch.loss for epoch in [*first, *rest]] == [epoch.loss for epoch in whole]


def test_checkpointing_changes_no_gradient(problem: Problem, tiny_llm: Path) -> None:
    gradients, calls = [], []
    for checkpointing in (False, True):
        training = start(problem, str(tiny_llm), "full", options(), CPU, checkpointing=checkpointing)
        training._modules.train()
        (llm,) = training._encoder._llm  # type: ignore[misc]
        for module in llm.modules():  # What is dropped would be drawn anew.
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        calls.append(0)
        llm.encoder.layer[0].output.dense.register_forward_hook(lambda *of: calls.append(calls.pop() + 1))
        training._encoder([], torch.arange(1, 9)).square().sum().backward()
        gradients.append(torch.cat([value.grad.flatten() for value in training._encoder.trained]))  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[0], gradients[1])
    assert calls[1] == 2 * calls[0] > 0, "each block is computed again"


def test_the_llms_products_are_of_the_precision_of_the_training(problem: Problem, tiny_llm: Path) -> None:
    vectors, dtypes = list[torch.Tensor](), list[torch.dtype]()
    for precision in ("float32", "bfloat16"):
        training = start(problem, str(tiny_llm), "full", options(precision=precision), CPU)
        (llm,) = training._encoder._llm  # type: ignore[misc]
        last = [module for name, module in llm.named_modules() if name.endswith("output.dense")][-1]
        last.register_forward_hook(lambda module, given, output: dtypes.append(output.dtype))
        vectors.append(training._encoder([], torch.arange(1, 9)))
        vectors[-1].square().sum().backward()
        assert {value.grad.dtype for value in training._encoder.trained} == {torch.float32}  # type: ignore[union-attr]
    assert dtypes == [torch.float32, torch.bfloat16]
    assert not torch.equal(*vectors)
    torch.testing.assert_close(*vectors, rtol=0, atol=0.1 * float(vectors[0].detach().abs().max()))


def test_texts_of_a_batch_are_read_once_each_and_in_batches_of_similar_length(tiny_llm: Path) -> None:
    reader = Reader.of(str(tiny_llm), CPU)
    texts = ["lamp", "desk lamp ink boot camera", "lamp", "boot ink"]
    tokens = ItemTokens.of(texts, reader.tokenizer)
    assert [len(ids) for ids in tokens.token_ids] == [3, 7, 4], "[CLS] and [SEP] included"
    distinct, back = tokens.distinct(np.array([4, 1, 3, 1]))
    assert (distinct.tolist(), back.tolist()) == ([0, 2], [1, 0, 0, 0])
    assert [batch.tolist() for batch in tokens.batches(np.array([0, 1, 2]), 8)] == [[1], [2, 0]]


def test_a_method_that_has_no_place_says_so() -> None:
    with pytest.raises(NotApplicableError, match="Linear has no blocks of BERT's form"):
        make_trainable(nn.Linear(2, 2), "adapters", False)
    with pytest.raises(NotApplicableError, match="Linear has no biases"):
        make_trainable(nn.Linear(2, 2, bias=False), "bitfit", False)


def test_the_encoder_neither_copies_nor_saves_what_is_frozen(problem: Problem, tiny_llm: Path) -> None:
    training = start(problem, str(tiny_llm), "lora", options(), CPU)
    assert isinstance(training._encoder, LLMEncoder)
    assert all("lora" not in name for name in training._parameters()), "they are numbered"
    assert sum(value.numel() for value in training._parameters().values()) == training.trainable_parameters
