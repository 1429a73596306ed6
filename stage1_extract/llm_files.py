"""Which files make up an LLM, and what its configuration says; all without loading it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssna.cache import SsnaError

CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_SHARDS = "model.safetensors.index.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER_FILES = (
    "tokenizer.json",
    _TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
# One of these must be there: the others only say how to use it.
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_COMMIT = re.compile("[0-9a-f]{40}")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_POOLING = "1_Pooling/config.json"
# What to fetch of a hub repository: neither pickle weights nor the same weights for other frameworks.
_HUB_PATTERNS = ("model*.safetensors", _SHARDS, CONFIG, _POOLING, *_TOKENIZER_FILES)
BLOCK_NAMES = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers")
"""What configurations call their number of blocks"""
# Their position table has that many rows which no token can use.
_UNUSED_POSITIONS = {"roberta": 2, "xlm-roberta": 2, "camembert": 2, "mpnet": 2}


class LLMError(SsnaError):
    """The LLM cannot be used as it is."""


@dataclass(frozen=True)
class LLMFiles:
    """A frozen LLM on disk."""

    source: str
    """The hub id as typed, or the absolute path of the folder or GGUF file"""
    folder: Path
    weights: Sequence[Path]
    tokenizer: Sequence[Path]
    """Of a GGUF file, which holds its own, only a tokenizer_config.json beside it, which transformers reads as well"""
    config: Mapping[str, Any]
    gguf: Path | None = None
    """The GGUF file that holds everything"""
    code: Sequence[Path] = ()
    """Python files that come with the model and may be run"""
    revision: str | None = None
    """Commit of a hub id, as far as it is known, else what was asked for"""

    @property
    def trusted(self) -> bool:
        """Whether the model's own Python code may be run."""
        return bool(self.code)

    @property
    def architecture(self) -> str:
        """The model class named in the configuration, else the model type."""
        return str((self.config.get("architectures") or [self.config.get("model_type", "unknown")])[0])

    @property
    def num_blocks(self) -> int:
        """Number of blocks (hidden layers), without the embedding layer."""
        of_encoder = ("encoder_layers", "num_layers") if self.config.get("is_encoder_decoder") else ()
        return self._number(*of_encoder, *(name for name in BLOCK_NAMES if name != "encoder_layers"))

    @property
    def state_width(self) -> int:
        """D, the width of a hidden state."""
        return self._number("hidden_size", "n_embd", "d_model", "dim")

    @property
    def token_limit(self) -> int | None:
        """The most tokens of a text that the LLM reads, special tokens included; None if it sets no limit."""
        limits = []
        if positions := self.config.get("max_position_embeddings", self.config.get("n_positions")):
            limits.append(int(positions) - _UNUSED_POSITIONS.get(str(self.config.get("model_type")), 0))
        tokenizer_config = self.folder / _TOKENIZER_CONFIG
        if tokenizer_config in self.tokenizer:
            length = _read_json(tokenizer_config).get("model_max_length")
            if isinstance(length, (int, float)) and length < 10**9:  # Larger ones mean "no limit".
                limits.append(int(length))
        return min(limits, default=None)

    @property
    def own_pooling(self) -> str | None:
        """The pooling that the model was trained with, where sentence-transformers' file says it: mean, last or cls."""
        file = self.folder / _POOLING
        if self.gguf is not None or not file.is_file():
            return None
        modes = {"pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last", "pooling_mode_cls_token": "cls"}
        said = _read_json(file)
        # Newer files name the mode, older ones have a switch for each.
        named = {"mean": "mean", "lasttoken": "last", "cls": "cls"}.get(str(said.get("pooling_mode")))
        chosen = [name for switch, name in modes.items() if said.get(switch)]
        return named or (chosen[0] if len(chosen) == 1 else None)

    def _number(self, *names: str) -> int:
        for name in names:
            if isinstance(value := self.config.get(name), int):
                return value
        raise LLMError(
            f"{self.folder / CONFIG} gives none of {', '.join(names)}. Expected the configuration of a text encoder."
        )


def find_llm(llm: str, revision: str | None = None, trust_remote_code: bool = False) -> LLMFiles:
    """The files of an LLM in a local folder or GGUF file, or of a hub id after downloading it.

    Args:
        llm: path or hub id.
        revision: branch, tag or commit of a hub id.
        trust_remote_code: whether Python code that comes with the model may be run.

    Raises:
        LLMError: if there is no such path or hub id, it holds no model, or one whose weights are not
            safetensors or GGUF.
    """
    path = Path(llm).expanduser()
    if path.exists() and revision is not None:
        raise LLMError(f"--revision {revision} is for hub ids; {llm} is a path here. Leave one of them out.")
    if path.is_dir():
        return _files_in(path.resolve(), str(path.resolve()), trust_remote_code)
    if path.suffix == ".gguf" and path.exists():
        return _files_of_gguf(path.resolve())
    if path.exists():
        raise LLMError(
            f"{llm} is a file; expected the folder of a model (with {CONFIG} and {_WEIGHTS}), a .gguf file or a hub id."
        )
    _check_hub_id(llm)
    folder = _download(llm, revision, trust_remote_code)
    commit = folder.name if _COMMIT.fullmatch(folder.name) else revision
    return replace(_files_in(folder, llm, trust_remote_code), revision=commit)


def find_config(llm: str, revision: str | None = None) -> LLMFiles:
    """What an LLM's configuration says; weights and tokenizer are neither looked for nor downloaded, and left empty.

    Args:
        llm: folder, GGUF file or hub id.
        revision: branch, tag or commit of a hub id.

    Raises:
        LLMError: if there is no such path or hub id, or no configuration in it.
    """
    path = Path(llm).expanduser()
    if path.suffix == ".gguf" and path.exists():
        return _files_of_gguf(path.resolve())
    source = str(path.resolve()) if path.exists() else llm
    if not path.exists():
        _check_hub_id(llm)
        path = _download_config(llm, revision)
    if not (path / CONFIG).is_file():
        raise LLMError(f"{path} holds no model: {CONFIG} is missing. Expected a folder with {CONFIG}, or a hub id.")
    return LLMFiles(source, path.resolve(), [], [], _read_json(path / CONFIG))


def _check_hub_id(llm: str) -> None:
    if not _HUB_ID.fullmatch(llm) or llm.endswith(".gguf"):
        raise LLMError(f"there is no {llm}; expected the folder of a model, a .gguf file or a hub id such as org/name.")


def _files_of_gguf(path: Path) -> LLMFiles:
    """A GGUF file with what its header says, in the words of a config.json."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise LLMError(f"{path} needs the gguf extra. Install it: pip install 'ssna[gguf]'.") from error
    try:
        fields = GGUFReader(path).fields
        architecture = str(fields["general.architecture"].contents())
        names = {
            "num_hidden_layers": "block_count",
            "hidden_size": "embedding_length",
            "max_position_embeddings": "context_length",
        }
        numbers = {ours: int(fields[f"{architecture}.{theirs}"].contents()) for ours, theirs in names.items()}
    except Exception as error:  # The reader raises errors of many kinds on a damaged file.
        raise LLMError(f"{path} is no sound GGUF file ({error!r}): copy it again.") from error
    config = {"architectures": [architecture], "model_type": architecture, **numbers}
    beside = path.parent / _TOKENIZER_CONFIG
    return LLMFiles(str(path), path.parent, [path], [beside] if beside.is_file() else [], config, gguf=path)


def _download(hub_id: str, revision: str | None, with_code: bool) -> Path:
    from huggingface_hub import snapshot_download

    _without_retries_told()
    patterns = [*_HUB_PATTERNS, *(["*.py"] if with_code else [])]
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except Exception as error:  # The hub's client raises errors of many libraries; the cause is kept.
        raise _not_from_hub(hub_id, error) from error


def _download_config(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    _without_retries_told()
    try:
        return Path(hf_hub_download(hub_id, CONFIG, revision=revision)).parent
    except Exception as error:
        raise _not_from_hub(hub_id, error) from error


def _without_retries_told() -> None:
    """One sentence says what is wrong in the end; the hub's client would print two lines for each time it tries."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _not_from_hub(hub_id: str, error: Exception) -> LLMError:
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    return LLMError(
        f"'{hub_id}' is no folder here, and the model hub did not give it ({reason}). "
        "Check the spelling and the network, or give the path of a downloaded model."
    )


def _files_in(folder: Path, source: str, trust_remote_code: bool) -> LLMFiles:
    if not (folder / CONFIG).is_file():
        raise LLMError(f"{folder} holds no model: {CONFIG} is missing. Expected {CONFIG}, {_WEIGHTS} and a tokenizer.")
    tokenizer = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not any(path.name in _VOCABULARIES for path in tokenizer):
        raise LLMError(f"{folder} has no tokenizer: expected tokenizer.json or a vocabulary beside {CONFIG}.")
    config = _read_json(folder / CONFIG)
    code = _code_in(folder, config) if trust_remote_code else ()
    return LLMFiles(source, folder, _weight_files(folder, source), tokenizer, config, code=code)


def _code_in(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """The Python files beside the model, all of which its code may use."""
    said = [config, *(_read_json(path) for path in [folder / _TOKENIZER_CONFIG] if path.is_file())]
    classes = [name for content in said for name in _class_names(content.get("auto_map"))]
    if elsewhere := [name for name in classes if "--" in name]:
        raise LLMError(
            f"{folder} takes its code from another repository ({elsewhere[0]}), which could change unseen. Download "
            "that repository's Python files beside the model and name them in auto_map."
        )
    if not (code := sorted(folder.glob("**/*.py"))):
        raise LLMError(f"--trust-remote-code: {folder} brings no Python code. Leave the option out.")
    return code


def _class_names(auto_map: Any) -> list[str]:
    """All strings in an `auto_map`, however it is nested."""
    if isinstance(auto_map, Mapping):
        auto_map = list(auto_map.values())
    if isinstance(auto_map, list):
        return [name for entry in auto_map for name in _class_names(entry)]
    return [auto_map] if isinstance(auto_map, str) else []


def _weight_files(folder: Path, source: str) -> list[Path]:
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if (folder / _SHARDS).is_file():
        weight_map = _read_json(folder / _SHARDS).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise LLMError(f"{folder / _SHARDS} lists no weight files: copy the model again.")
        shards = sorted(set(map(str, weight_map.values())))
        if missing := [name for name in shards if not (folder / name).is_file()]:
            raise LLMError(
                f"{folder} lacks {len(missing)} of {len(shards)} weight files ({missing[0]}): copy it again."
            )
        return [folder / _SHARDS, *(folder / name for name in shards)]
    if pickled := sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern)):
        raise LLMError(
            f"{folder} has only pickle weights ({pickled[0]}), which can run any code when they are loaded; expected "
            f"{_WEIGHTS}. If you trust the file, convert it once: {_convert(str(folder), str(folder))}"
        )
    if source != str(folder):
        raise LLMError(
            f"'{source}' has no {_WEIGHTS} on the hub. Pickle weights can run any code, so they are not taken; if you "
            f"trust them, convert them once: {_convert(source, 'NEW_FOLDER')} and give --llm NEW_FOLDER."
        )
    raise LLMError(f"{folder} has no weights: expected {_WEIGHTS} beside {CONFIG}.")


def _convert(source: str, target: str) -> str:
    """The command that turns pickle weights into safetensors, with the tokenizer beside them."""
    script = (
        "from transformers import AutoModel, AutoTokenizer; "
        f"AutoModel.from_pretrained('{source}', use_safetensors=False).save_pretrained('{target}'); "
        f"AutoTokenizer.from_pretrained('{source}').save_pretrained('{target}')"
    )
    return f'python -c "{script}"'


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LLMError(f"{path} is not valid JSON ({error}): copy the model again.") from error
    if not isinstance(content, dict):
        raise LLMError(f"{path} holds no JSON object: copy the model again.")
    return content
