"""What an extraction is asked for, and everything in it that changes a state: the cache's fingerprint."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ssna.cache import (
    HASH_MEMORY,
    STORED_DTYPES,
    Cache,
    Manifest,
    StoredDtype,
    clean_name,
    default_name,
    fingerprint_of,
    folder_name,
    manifests_below,
    sha256_of_files,
)
from ssna.stage1_extract.frozen_llm import Reading
from ssna.stage1_extract.llm_files import CONFIG, LLMError, LLMFiles
from ssna.stage1_extract.pooling import POOLINGS, Pooling

DtypeChoice = Literal["auto", "float32", "bfloat16", "float16"]
COMPUTE_DTYPES: tuple[DtypeChoice, ...] = get_args(DtypeChoice)
EXTRACT_OPTIONS = (
    ("max-tokens", "max_tokens"),
    ("dtype", "compute_dtype"),
    ("store", "stored_dtype"),
    ("pooling", "pooling"),
)
"""Options of `ssna extract`, and the settings of a cache that they become"""

_TEXT = "{text}"
_DEFAULT_TOKENS = 512


class NameTakenError(LLMError):
    """Another cache has the name that a new one would get.

    Attributes:
        free_name: one that is free.
    """

    def __init__(self, message: str, free_name: str) -> None:
        super().__init__(message)
        self.free_name = free_name


@dataclass(frozen=True)
class ExtractOptions:
    """How states are computed and stored; a field marked F changes them and so is part of the fingerprint."""

    revision: str | None = None
    """Branch, tag or commit of a hub id"""
    trust_remote_code: bool = False
    """F: whether Python code that comes with the LLM may be run"""
    layers: int | None = None
    """The top layers to keep; None keeps all blocks, without the embedding layer"""
    max_tokens: int | None = None
    """F: longer texts are cut to this many tokens; None means 512 or, if that is less, what the LLM can read"""
    pooling: Pooling | None = None
    """F: None takes what the model was trained with if a file beside it says so, else `mean`"""
    template: str | None = None
    """F: what the LLM reads for a text, with the text as `{text}`; None means the text alone"""
    dtype: DtypeChoice = "auto"
    """F: of the computation; auto is float32 on a CPU and bfloat16 on a GPU"""
    store: StoredDtype = "float16"
    """F: of the states in the cache"""
    batch_tokens: int | None = None
    """Tokens the LLM reads at once, padding included; None means 2,048 on a CPU and 16,384 on a GPU"""
    device_map: str | None = None
    """`auto` spreads an LLM that one device cannot hold over all devices, memory and disk"""
    tensor_parallel: bool = False
    """The processes of torchrun share each weight, instead of sharing the texts"""
    compile: bool = False
    """Compile the LLM with torch.compile"""

    def __post_init__(self) -> None:
        """Check each choice.

        Raises:
            LLMError: for the first that there is not.
        """
        for name, choices in (
            ("pooling", (None, *POOLINGS)),
            ("dtype", COMPUTE_DTYPES),
            ("store", STORED_DTYPES),
            ("device_map", (None, "auto")),
        ):
            if (value := getattr(self, name)) not in choices:
                expected = ", ".join(filter(None, choices))
                raise LLMError(f"--{name.replace('_', '-')} {value}: expected one of {expected}.")
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise LLMError(f"--batch-tokens {self.batch_tokens}: expected at least 1.")


def resolve_layers(files: LLMFiles, wanted: int | None) -> int:
    """A, at most the number of blocks.

    Raises:
        LLMError: if the LLM has not that many.
    """
    if wanted is None:
        return files.num_blocks
    if not 1 <= wanted <= files.num_blocks:
        raise LLMError(
            f"--layers {wanted}: {files.source} has {files.num_blocks} layers. Give 1 to {files.num_blocks}, or all."
        )
    return wanted


def block_numbers(files: LLMFiles, layers: int) -> list[int]:
    """The numbers of the top `layers` blocks, top first; the lowest block is 1."""
    return list(range(files.num_blocks, files.num_blocks - layers, -1))


def settings_of(files: LLMFiles, options: ExtractOptions, device: str, root: Path) -> dict[str, Any]:
    """Everything that changes a state: what the fingerprint is the hash of (docs/cache-format.md).

    Raises:
        LLMError: if an option does not fit the LLM.
    """
    prefix, suffix = _split_template(options.template)
    config = [] if files.gguf else [files.folder / CONFIG]

    def hashes(paths: Sequence[Path]) -> dict[str, str]:
        names = [path.relative_to(files.folder).as_posix() for path in paths]
        return dict(zip(names, sha256_of_files(paths, root / HASH_MEMORY), strict=True))

    return {
        "weights": hashes(files.weights),
        "tokenizer": hashes(files.tokenizer),
        "config": hashes(config),
        "pooling": resolve_pooling(files, options.pooling),
        "compute_dtype": resolve_dtype(options.dtype, device),
        "max_tokens": resolve_max_tokens(files, options.max_tokens),
        "prefix": prefix,
        "suffix": suffix,
        "stored_dtype": options.store,
        "remote_code": hashes(files.code) or None,
    }


def reading_of(settings: Mapping[str, Any]) -> Reading:
    """How texts are given to the LLM under these settings."""
    return Reading(settings["max_tokens"], settings["prefix"], settings["suffix"])


def _split_template(template: str | None) -> tuple[str, str]:
    if template is None:
        return "", ""
    if template.count(_TEXT) != 1:
        raise LLMError(f"--template '{template}': expected {_TEXT} in it once, where the item's text goes.")
    prefix, suffix = template.split(_TEXT)
    return prefix, suffix


def resolve_pooling(files: LLMFiles, wanted: str | None) -> str:
    """The pooling that is wanted, else what the LLM was trained with, else `mean`."""
    return wanted or files.own_pooling or "mean"


def resolve_dtype(wanted: str, device: str) -> str:
    """The dtype of the computation on a device; `auto` is float32 on a CPU and bfloat16 on a GPU."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.startswith("cuda") else "float32"


def resolve_max_tokens(files: LLMFiles, wanted: int | None) -> int:
    """At how many tokens a text is cut.

    Raises:
        LLMError: if the LLM cannot read that many, or they are too few.
    """
    limit = files.token_limit
    if wanted is None:
        return _DEFAULT_TOKENS if limit is None else min(_DEFAULT_TOKENS, limit)
    if wanted < 3 or (limit is not None and wanted > limit):
        span = "3 tokens or more" if limit is None else f"3 to {limit} tokens"
        raise LLMError(f"--max-tokens {wanted}: {files.source} reads {span}. Give a number in that range.")
    return wanted


def resolve_batch_tokens(wanted: int | None, device: str) -> int:
    """Tokens that the LLM reads at once, padding included."""
    return wanted or (2048 if device == "cpu" else 16_384)


def differences(before: Manifest, settings: Mapping[str, Any]) -> list[str]:
    """How a cache was extracted otherwise than with these settings, in the words of the command line."""
    old = before.settings
    told = [
        f"--{option} {old[name]}, not {settings[name]}"
        for option, name in EXTRACT_OPTIONS
        if old[name] != settings[name]
    ]
    if any(old[part] != settings[part] for part in ("weights", "tokenizer", "config")):
        told.insert(0, f"of {before.llm['source']}, whose files differ")
    if any(old[part] != settings[part] for part in ("prefix", "suffix")):
        told.append("with another --template")
    first, second = old["remote_code"], settings["remote_code"]
    if first != second:
        without = f"with{'' if first else 'out'} --trust-remote-code"
        told.append("with other code of the LLM's own" if first and second else without)
    return told


def find_existing(root: Path, name: str | None, settings: Mapping[str, Any], source: str) -> Cache | None:
    """The cache of these settings, if there is one; without a `name`, whatever it is called.

    Args:
        root: the folder of all caches.
        name: of the cache; None derives it from `source`.
        settings: see `settings_of`.
        source: path or hub id of the LLM.

    Raises:
        LLMError: if it is there under another name.
        NameTakenError: if it is not there, and a cache of other settings has the name.
    """
    if name is not None and not name.strip():
        raise LLMError("--name '': expected a name. Leave the option out for one that is derived from --llm.")
    fingerprint, caches = fingerprint_of(settings), manifests_below(root)
    for path, manifest in caches:
        if manifest.fingerprint != fingerprint:
            continue
        if name is None or clean_name(name) == manifest.name:
            cache = Cache.open(path)
            cache.segments(cache.index.segments)  # Only sound rows count as cached.
            return cache
        raise LLMError(
            f"--name {name}: the states of this LLM with these settings are in {path}, under the name "
            f"'{manifest.name}'. Leave --name out, or give that one."
        )
    wanted = _name_of(name, source)
    for path, manifest in caches:
        if manifest.name == wanted:
            raise NameTakenError(
                f"the name '{wanted}' is taken by the cache {path}, which was extracted otherwise "
                f"({', '.join(differences(manifest, settings))}). Give another --name, or remove that cache first: "
                f"`{shlex.join(['ssna', 'cache', 'remove', str(path)])}`.",
                folder_name(wanted, fingerprint),
            )
    return None


def _name_of(name: str | None, source: str) -> str:
    """Of a new cache: the one given, else that of the LLM."""
    return clean_name(name) if name else default_name(source)


def create(
    root: Path, name: str | None, settings: Mapping[str, Any], files: LLMFiles, state_width: int, final_norm: bool
) -> Cache:
    """A new cache of these settings."""
    about = {
        "source": files.source,
        **({} if files.revision is None else {"revision": files.revision}),
        "architecture": files.architecture,
        "blocks": files.num_blocks,
        "state_width": state_width,
        "top_layer": f"output of the last block, {'after' if final_norm else 'without'} a final norm",
    }
    return Cache.create(root, _name_of(name, files.source), settings, about)
