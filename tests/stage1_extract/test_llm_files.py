"""Finding an LLM's files, and refusing what cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ssna.stage1_extract import resolve_max_tokens
from ssna.stage1_extract.llm_files import LLMError, find_llm


@pytest.fixture
def llm(tiny_llm: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_llm, tmp_path / "llm"))


def test_a_folder_gives_its_files_and_facts(tiny_llm: Path) -> None:
    files = find_llm(str(tiny_llm))
    assert [path.name for path in files.weights] == ["model.safetensors"]
    assert "tokenizer.json" in [path.name for path in files.tokenizer]
    assert (files.num_blocks, files.state_width, files.token_limit) == (3, 16, 64)
    assert files.architecture == "BertModel"


@pytest.mark.parametrize(
    ("model_type", "positions", "tokenizer_limit", "limit"),
    [("bert", 512, 10**30, 512), ("mpnet", 514, None, 512), ("roberta", 514, 256, 256), ("t5", None, None, None)],
)
def test_token_limit_is_the_lowest_of_positions_and_tokenizer(
    llm: Path, model_type: str, positions: int | None, tokenizer_limit: int | None, limit: int | None
) -> None:
    for name, key, value in (
        ("config.json", "max_position_embeddings", positions),
        ("config.json", "model_type", model_type),
        ("tokenizer_config.json", "model_max_length", tokenizer_limit),
    ):
        content = json.loads((llm / name).read_text())
        (llm / name).write_text(json.dumps({**content, key: value}))
    assert find_llm(str(llm)).token_limit == limit


def test_sharded_weights_are_all_named(llm: Path) -> None:
    (llm / "model.safetensors").rename(llm / "part-2.safetensors")
    (llm / "part-1.safetensors").touch()
    index = {"weight_map": {"a": "part-2.safetensors", "b": "part-1.safetensors", "c": "part-2.safetensors"}}
    (llm / "model.safetensors.index.json").write_text(json.dumps(index))
    names = [path.name for path in find_llm(str(llm)).weights]
    assert names == ["model.safetensors.index.json", "part-1.safetensors", "part-2.safetensors"]
    (llm / "part-1.safetensors").unlink()
    with pytest.raises(LLMError, match=r"lacks 1 of 2 weight files \(part-1"):
        find_llm(str(llm))


def test_pickle_weights_are_refused_with_the_way_to_convert(llm: Path) -> None:
    (llm / "model.safetensors").rename(llm / "pytorch_model.bin")
    with pytest.raises(LLMError, match=r"only pickle weights \(pytorch_model.bin\).*convert it once.*save_pretrained"):
        find_llm(str(llm))


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("config.json", "holds no model: config.json is missing"),
        ("model.safetensors", "has no weights: expected model.safetensors"),
        ("tokenizer*", "has no tokenizer"),
    ],
)
def test_a_folder_without_a_model_is_refused(llm: Path, removed: str, message: str) -> None:
    for path in llm.glob(removed):
        path.unlink()
    with pytest.raises(LLMError, match=message):
        find_llm(str(llm))


def test_what_is_neither_folder_nor_hub_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LLMError, match="there is no .*; expected the folder of a model, a .gguf file or a hub id"):
        find_llm(str(tmp_path / "missing"))
    (tmp_path / "file").touch()
    with pytest.raises(LLMError, match="is a file; expected the folder of a model"):
        find_llm(str(tmp_path / "file"))


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: object, **__: object) -> str:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(LLMError, match=r"'org/name' is no folder here, .* \(no route to host\)") as caught:
        find_llm("org/name")
    assert "\n" not in str(caught.value)


def test_a_hub_id_is_downloaded_without_pickles_and_remembered_as_typed(
    tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked = {}

    def download(repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked[repo, revision] = allow_patterns
        return str(tiny_llm)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_llm("org/name").source == "org/name"
    assert find_llm("org/name", revision="v2").source == "org/name"
    for patterns in (asked["org/name", None], asked["org/name", "v2"]):
        assert not any("bin" in pattern or ".py" in pattern for pattern in patterns)
    with pytest.raises(LLMError, match="--revision v2 is for hub ids"):
        find_llm(str(tiny_llm), revision="v2")


@pytest.mark.parametrize("content", [{}, {"weight_map": []}])
def test_a_list_of_weights_without_any_is_named(tiny_llm: Path, tmp_path: Path, content: object) -> None:
    folder = Path(shutil.copytree(tiny_llm, tmp_path / "llm"))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(LLMError, match="lists no weight files"):
        find_llm(str(folder))


def change_tokenizer(folder: Path, **changes: object) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_limit_of_tokens_that_is_no_number_is_none(tiny_llm: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llm, tmp_path / "llm"))
    change_tokenizer(folder, model_max_length="63")
    assert find_llm(str(folder)).token_limit == 64


def test_an_llm_without_a_limit_of_tokens_reads_any_number_from_three_on(tiny_llm: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llm, tmp_path / "llm"))
    change_tokenizer(folder, model_max_length=10**30)
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    files = find_llm(str(folder))
    assert (files.token_limit, resolve_max_tokens(files, 10**6)) == (None, 10**6)
    with pytest.raises(LLMError, match="--max-tokens 2: .* reads 3 tokens or more. Give a number in that range"):
        resolve_max_tokens(files, 2)


def test_code_of_another_repository_is_refused_wherever_it_is_named(tiny_llm: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llm, tmp_path / "llm"))
    (folder / "code.py").write_text("")
    change_tokenizer(folder, auto_map={"AutoTokenizer": ["someone/else--tok.Tok", None]})
    with pytest.raises(LLMError, match="takes its code from another repository"):
        find_llm(str(folder), trust_remote_code=True)
