"""Which files make up an LLM, and what its configuration says; all without loading it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssna.cache import SsnaError, sha256_of_file, write_atomically

CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_SHARDS = "model.safetensors.index.json"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
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
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "spm.model", "tokenizer.model")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# What to fetch of a hub repository: neither pickle weights nor the same weights for other frameworks.
_HUB_PATTERNS = ("*.safetensors", _SHARDS, CONFIG, *_TOKENIZER_FILES)
# Their position table has that many rows which no token can use.
_UNUSED_POSITIONS = {"roberta": 2, "xlm-roberta": 2, "camembert": 2, "mpnet": 2}


class LLMError(SsnaError):
    """The LLM cannot be used as it is."""


@dataclass(frozen=True)
class LLMFiles:
    """A frozen LLM on disk."""

    source: str
    """The hub id as typed, or the absolute path of the folder"""
    folder: Path
    weights: Sequence[Path]
    tokenizer: Sequence[Path]
    config: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        """The model class named in the configuration, else the model type."""
        return str((self.config.get("architectures") or [self.config.get("model_type", "unknown")])[0])

    @property
    def num_blocks(self) -> int:
        """Number of blocks (hidden layers), without the embedding layer."""
        return self._number("num_hidden_layers", "n_layer", "n_layers", "num_layers")

    @property
    def state_width(self) -> int:
        """D, the width of a hidden state."""
        return self._number("hidden_size", "n_embd", "d_model", "dim")

    @property
    def token_limit(self) -> int | None:
        """The most tokens of a text that the LLM reads, special tokens included; None if it sets no limit."""
        limits = []
        if positions := self.config.get("max_position_embeddings"):
            limits.append(int(positions) - _UNUSED_POSITIONS.get(str(self.config.get("model_type")), 0))
        tokenizer_config = self.folder / "tokenizer_config.json"
        if tokenizer_config.exists():
            length = _read_json(tokenizer_config).get("model_max_length")
            if length is not None and length < 10**9:  # Larger ones mean "no limit".
                limits.append(int(length))
        return min(limits, default=None)

    def _number(self, *names: str) -> int:
        for name in names:
            if isinstance(value := self.config.get(name), int):
                return value
        raise LLMError(
            f"{self.folder / CONFIG} gives none of {', '.join(names)}. Expected the configuration of a text encoder."
        )


def find_llm(llm: str) -> LLMFiles:
    """The files of an LLM in a local folder, or of a hub id after downloading it.

    Raises:
        LLMError: if there is no such folder or hub id, it holds no model, or its weights are not safetensors.
    """
    folder = Path(llm).expanduser()
    if folder.is_dir():
        return _files_in(folder.resolve(), source=str(folder.resolve()))
    if folder.exists():
        raise LLMError(f"{llm} is a file; expected the folder of a model (with {CONFIG} and {_WEIGHTS}) or a hub id.")
    if not _HUB_ID.fullmatch(llm):
        raise LLMError(f"there is no folder {llm}; expected the folder of a model or a hub id such as org/name.")
    return _files_in(_download(llm), source=llm)


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(_HUB_PATTERNS)))
    except Exception as error:  # The hub's client raises errors of many libraries; the cause is kept.
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise LLMError(
            f"'{hub_id}' is no folder here, and the model hub did not give it ({reason}). "
            "Check the spelling and the network, or give the path of a downloaded model."
        ) from error


def _files_in(folder: Path, source: str) -> LLMFiles:
    if not (folder / CONFIG).is_file():
        raise LLMError(f"{folder} holds no model: {CONFIG} is missing. Expected {CONFIG}, {_WEIGHTS} and a tokenizer.")
    tokenizer = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not any(path.name in _VOCABULARIES for path in tokenizer):
        raise LLMError(f"{folder} has no tokenizer: expected tokenizer.json or a vocabulary beside {CONFIG}.")
    return LLMFiles(source, folder, _weight_files(folder, source), tokenizer, _read_json(folder / CONFIG))


def _weight_files(folder: Path, source: str) -> list[Path]:
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if (folder / _SHARDS).is_file():
        shards = sorted(set(_read_json(folder / _SHARDS)["weight_map"].values()))
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


def hash_files(paths: Sequence[Path], memory: Path) -> dict[str, str]:
    """SHA-256 by file name; hashes are remembered in the file `memory` by path, size, mtime and inode."""
    try:
        remembered = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        remembered = {}
    hashes, known = {}, dict(remembered)
    for path in paths:
        status = path.stat()
        identity = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"
        if identity not in known:
            known[identity] = sha256_of_file(path)
        hashes[path.name] = known[identity]
    if known != remembered and os.access(memory.parent, os.W_OK):
        write_atomically(memory, json.dumps(known, indent=1))
    return hashes
