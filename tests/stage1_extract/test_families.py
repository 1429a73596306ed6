"""Every architecture family against `transformers`' own hidden states, pooled by hand."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ssna.stage1_extract.frozen_llm import FrozenLLM, Reading, TextTokenizer
from ssna.stage1_extract.llm_files import LLMError, find_llm
from ssna.stage1_extract.loading import Placement
from ssna.stage1_extract.pooling import Pooling
from tests.helpers import WORDS
from tests.stage1_extract.families import FAMILIES, Family, make_llm, save_tokenizer

TEXTS = ["alpine boot", "camera", "desk engine fiddle guitar hammer no 7", "ink jacket kettle", "x"]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llm(family, tmp_path_factory.mktemp("llm") / family.name)


def load(folder: Path, pooling: Pooling = "mean", **options: bool) -> tuple[TextTokenizer, FrozenLLM]:
    files = find_llm(str(folder))
    tokenizer = TextTokenizer(files, Reading(64))
    return tokenizer, FrozenLLM(files, tokenizer, pooling, "float32", Placement("cpu"), **options)


def reference(family: Family, folder: Path, text: str, pooling: Pooling = "mean") -> np.ndarray:
    """All layers' states of one text alone, pooled by hand: (A, D), top layer first."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", return_token_type_ids=False)
    model = AutoModel.from_pretrained(folder).eval()
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    with torch.no_grad():
        hidden_states = model(**tokens, output_hidden_states=True).hidden_states[1:]
    count = hidden_states[0].shape[1]
    chosen = {"last": slice(count - 1, count), "cls": slice(0, 1), "mean": slice(0, count)}[pooling]
    if pooling == "mean" and family.leaves_first_out and count > 1:
        chosen = slice(1, count)
    return np.stack([hidden[0, chosen].mean(dim=0).numpy() for hidden in reversed(hidden_states)])


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_states_are_transformers_own_pooled_by_hand(family: Family, folder: Path, pooling: Pooling) -> None:
    tokenizer, llm = load(folder, pooling)
    states = llm.pooled_states(tokenizer(TEXTS)[0], 3)
    expected = np.stack([reference(family, folder, text, pooling) for text in TEXTS])
    np.testing.assert_allclose(states, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(llm.pooled_states(tokenizer(TEXTS)[0], 2), states[:, :2])


def test_a_model_that_projects_its_output_gives_the_blocks_own_states(tmp_path: Path) -> None:
    """As OPT-350M does: blocks of one width, an output of another."""
    from transformers import OPTConfig, OPTModel

    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=200, hidden_size=16, word_embed_proj_dim=8, num_hidden_layers=3, num_attention_heads=2, ffn_dim=32,
        max_position_embeddings=64, do_layer_norm_before=False,
    )  # fmt: skip
    model = OPTModel(config).eval()
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path, "<s> $A")
    tokenizer, llm = load(tmp_path)
    assert (llm.state_width, llm.has_final_norm) == (16, False)
    ids = tokenizer(TEXTS)[0]
    outputs = list[torch.Tensor]()
    for layer in model.decoder.layers:
        layer.register_forward_hook(lambda module, given, output: outputs.append(output[0]))
    for text, states in zip(ids, llm.pooled_states(ids, 3), strict=True):
        outputs.clear()
        model(torch.from_numpy(text)[None].long())
        hidden = [output.reshape(len(text), 16).detach().numpy() for output in reversed(outputs)]
        skip = int(len(text) > 1 and text[0] == 1)
        np.testing.assert_allclose(states, [layer[skip:].mean(0) for layer in hidden], rtol=1e-4, atol=1e-5)


def test_only_the_base_model_is_loaded_and_its_final_norm_is_known(family: Family, folder: Path) -> None:
    _, llm = load(folder)
    assert llm.has_final_norm == family.final_norm
    assert llm.state_width == 16
    names = {name for name, _ in llm._states._model.named_modules()}
    assert not any("lm_head" in name for name in names)
    assert family.name == "opt" or not any(name.startswith("decoder.") for name in names)


@settings(max_examples=15)
@given(order=st.permutations(range(12)), cuts=st.sets(st.integers(1, 11)))
def test_a_state_does_not_depend_on_its_batch(
    order: list[int], cuts: set[int], loaded: tuple[TextTokenizer, FrozenLLM]
) -> None:
    tokenizer, llm = loaded
    texts = [" ".join(WORDS[: i + 1]) for i in range(12)]
    alone = np.concatenate([llm.pooled_states(tokenizer([text])[0], 3) for text in texts])
    ids, _ = tokenizer([texts[i] for i in order])
    bounds = [0, *sorted(cuts), 12]
    together = np.concatenate([llm.pooled_states(ids[a:b], 3) for a, b in pairwise(bounds)])
    np.testing.assert_allclose(together, alone[order], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[TextTokenizer, FrozenLLM]:
    return load(folder)


def family_named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_an_llm_split_over_memory_and_disk_gives_the_same_states(name: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="needs the [gguf] extra")
    folder = make_llm(family_named(name), tmp_path / name)
    files = find_llm(str(folder))
    tokenizer, whole = load(folder)
    inside = "encoder.layer" if name == "bert" else "layers"
    others = {"bert": ["embeddings", "pooler"], "llama": ["embed_tokens", "norm", "rotary_emb"]}[name]
    places = {**dict.fromkeys(others, "cpu"), f"{inside}.0": "cpu", f"{inside}.1": "disk", f"{inside}.2": "disk"}
    placement = Placement("cpu", device_map=places, offload_folder=str(tmp_path / "offload"))
    split = FrozenLLM(files, tokenizer, "mean", "float32", placement)
    ids, _ = tokenizer(TEXTS)
    np.testing.assert_allclose(split.pooled_states(ids, 3), whole.pooled_states(ids, 3), rtol=1e-5, atol=1e-6)
    assert {str(parameter.device) for parameter in split._states._model.parameters()} == {"cpu", "meta"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of its own parts.
def test_a_compiled_llm_gives_the_same_states(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    folder = make_llm(family_named("llama"), tmp_path / "llama")
    tokenizer, plain = load(folder)
    _, compiled = load(folder, compiled=True)
    for texts in (TEXTS, TEXTS[:2], [TEXTS[2]] * 7):
        ids, _ = tokenizer(texts)
        np.testing.assert_allclose(compiled.pooled_states(ids, 3), plain.pooled_states(ids, 3), rtol=1e-4, atol=1e-5)


_CONFIGURATION = """
from transformers import PretrainedConfig

class OwnConfig(PretrainedConfig):
    model_type = "own"

    def __init__(self, vocab_size=40, hidden_size=8, num_hidden_layers=2, **others):
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        super().__init__(**others)
"""
_MODELING = """
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from .configuration_own import OwnConfig

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        size = config.hidden_size
        self.blocks = nn.ModuleList(nn.Linear(size, size) for _ in range(config.num_hidden_layers))
        self.post_init()

    def forward(self, input_ids, attention_mask=None, output_hidden_states=False):
        states = [self.embedding(input_ids)]
        for block in self.blocks:
            states.append(block(states[-1]))
        return BaseModelOutput(last_hidden_state=states[-1], hidden_states=tuple(states))
"""


def test_code_of_a_model_is_run_only_when_that_was_typed(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "configuration_own.py").write_text(_CONFIGURATION)
    (folder / "modeling_own.py").write_text(_MODELING)
    config = {
        "model_type": "own", "architectures": ["OwnModel"], "vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 2,
        "auto_map": {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_tokenizer(folder, "<s> $A")
    generator = torch.Generator().manual_seed(0)
    tensors = {"embedding.weight": torch.randn(40, 8, generator=generator)}
    for block in range(2):
        tensors[f"blocks.{block}.weight"] = torch.randn(8, 8, generator=generator)
        tensors[f"blocks.{block}.bias"] = torch.randn(8, generator=generator)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LLMError, match="brings its own Python code.*add --trust-remote-code"):
        load(folder)
    files = find_llm(str(folder), trust_remote_code=True)
    assert [path.name for path in files.code] == ["configuration_own.py", "modeling_own.py"]
    tokenizer = TextTokenizer(files, Reading(64))
    llm = FrozenLLM(files, tokenizer, "cls", "float32", Placement("cpu"))
    expected = [tensors["embedding.weight"][1]]  # The first token is <s>, number 1.
    for block in range(2):
        expected.append(tensors[f"blocks.{block}.weight"] @ expected[-1] + tensors[f"blocks.{block}.bias"])
    states = llm.pooled_states(tokenizer(["camera"])[0], 2)
    np.testing.assert_allclose(states[0], torch.stack(expected[:0:-1]).numpy(), rtol=1e-5, atol=1e-5)


def test_code_from_elsewhere_is_refused(tiny_llm: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llm, tmp_path / "llm"))
    with pytest.raises(LLMError, match="brings no Python code. Leave the option out"):
        find_llm(str(folder), trust_remote_code=True)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "someone/elsewhere--modeling.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LLMError, match="takes its code from another repository"):
        find_llm(str(folder), trust_remote_code=True)


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode_max_tokens": True}, None),
    ],
    ids=str,
)
def test_the_pooling_that_an_llm_was_trained_with_is_known(
    tiny_llm: Path, tmp_path: Path, said: dict[str, object], pooling: str | None
) -> None:
    folder = Path(shutil.copytree(tiny_llm, tmp_path / "llm"))
    assert find_llm(str(folder)).own_pooling is None
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(said))
    assert find_llm(str(folder)).own_pooling == pooling
