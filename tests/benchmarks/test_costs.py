"""The counts on paper, against what PyTorch counts while a random LLM trains."""

from __future__ import annotations

import pytest
import torch
from backbone_in_loop.costs import LLMS_ON_PAPER, Learning, Shape, side_network_weights, training_bytes
from backbone_in_loop.methods import make_trainable
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssna import AdaptOptions
from ssna.stage2_adapt.side_network import SideNetwork

BERT = Shape("tiny BERT", 3, 48, 192, 48, 48, gated=False, vocabulary=50)
LLAMA = Shape("tiny Llama", 3, 48, 100, 48, 24, gated=True, vocabulary=50)
TEXTS, TOKENS = 4, 10


def random_llm(shape: Shape, attention: str) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    shared = {
        "vocab_size": shape.vocabulary, "hidden_size": shape.width, "num_hidden_layers": shape.blocks,
        "num_attention_heads": 4, "intermediate_size": shape.inner, "attn_implementation": attention,
    }  # fmt: skip
    if shape.gated:
        config = transformers.LlamaConfig(**shared, num_key_value_heads=2, use_cache=False)
        return transformers.LlamaModel(config)
    config = transformers.BertConfig(**shared, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return transformers.BertModel(config, add_pooling_layer=False)


def ids() -> Tensor:
    return torch.randint(0, 50, (TEXTS, TOKENS), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [BERT, LLAMA], ids=lambda shape: shape.name)
@pytest.mark.parametrize(("method", "learning"), [("full", "full"), ("lora", "frozen weights")])
def test_flop_of_a_step(shape: Shape, method: str, learning: Learning) -> None:
    llm = random_llm(shape, "eager")
    make_trainable(llm.requires_grad_(False), method, False)
    counter = FlopCounterMode(display=False)
    with counter:
        output = llm(input_ids=ids()).last_hidden_state
        forward = counter.get_total_flops()
        output.sum().backward()
    added = sum(2 * TEXTS * TOKENS * p.numel() for name, p in llm.named_parameters() if "lora" in name)
    assert forward - added == pytest.approx(TEXTS * shape.forward_flop(TOKENS), rel=0.01)
    expected = TEXTS * shape.training_flop(TOKENS, learning)
    if method == "lora":  # Of a frozen LLM the lowest block needs no gradient by its input.
        expected -= TEXTS * 2 * TOKENS * shape.width * (shape.heads_width + 2 * shape.keys_width)
    assert counter.get_total_flops() - 3 * added == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("shape", "method", "learning", "tolerance"),
    [
        pytest.param(BERT, "full", "full", 0.15, id="bert-full"),
        pytest.param(BERT, "bitfit", "frozen weights", 0.15, id="bert-frozen"),
        pytest.param(LLAMA, "full", "full", 0.35, id="llama-full"),
        pytest.param(LLAMA, "lora", "frozen weights", 0.35, id="llama-frozen"),
    ],
)
def test_values_held_for_the_backward_pass(shape: Shape, method: str, learning: Learning, tolerance: float) -> None:
    llm = random_llm(shape, "sdpa")
    make_trainable(llm.requires_grad_(False), method, False)
    weights = {p.untyped_storage().data_ptr() for p in llm.parameters()}
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = llm(input_ids=ids()).last_hidden_state
        expected = 4 * TEXTS * TOKENS * shape.held_values(learning)
        assert sum(held.values()) == pytest.approx(expected, rel=tolerance)
        output.sum().backward()


@pytest.mark.parametrize("width", [384, 1024])
def test_flop_of_the_side_network(width: int) -> None:
    options, layers = AdaptOptions(), 6
    network = SideNetwork(layers, width, options.width, integration=options.side)
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.randn(layers, TEXTS, width)).sum().backward()
    at_most = 6 * TEXTS * side_network_weights(layers, width)
    assert 0.6 * at_most < counter.get_total_flops() < at_most


def test_weights_of_known_llms() -> None:
    """Without a language-model head; the published counts are 1.24, 6.74 and 68.98 billion with it."""
    weights = {shape.name: shape.weights for shape in LLMS_ON_PAPER}
    assert weights["Llama-3.2-1B"] == pytest.approx(1.236e9, rel=0.01)  # Its head is its embeddings.
    assert weights["Llama-2-7B"] == pytest.approx(6.74e9 - 32_000 * 4096, rel=0.01)
    assert weights["Llama-2-70B"] == pytest.approx(68.98e9 - 32_000 * 8192, rel=0.01)


def test_bytes_of_training_by_hand() -> None:
    shape = Shape("by hand", 2, 4, 8, 4, 4, gated=False, vocabulary=10)
    weights = 2 * (4 * 16 + 2 * 32) + 40
    assert shape.weights == weights
    assert training_bytes(shape, 3, "uncached") == 2 * weights
    assert training_bytes(shape, 3, "full", value=4) == (4 + 4 + 8) * weights + 3 * 4 * 2 * (16 + 8 + 8 + 8 + 8)
    assert training_bytes(shape, 3, "full") == (4 + 4 + 8) * weights + 3 * 2 * 2 * (16 + 8 + 8 + 8 + 8)
    assert training_bytes(shape, 3, "frozen weights", checkpointing=True) == 2 * weights + 3 * 2 * (2 * 4 + 32)
