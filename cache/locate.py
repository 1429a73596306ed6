"""Where caches are, and which one a name or folder means."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from ssna.cache.errors import CacheError
from ssna.cache.files import sha256_of_file
from ssna.cache.store import Manifest, manifests_below, sources_of

CACHE_VARIABLE = "SSNA_CACHE"
_NOT_A_NAME = re.compile(r"model|snapshots|[0-9a-f]{32,64}")


def resolve_cache_root(given: Path | str | None = None) -> Path:
    """The folder that holds all caches: the one given, else `$SSNA_CACHE`, else the user's cache folder."""
    if given is not None:
        return Path(given)
    if from_environment := os.environ.get(CACHE_VARIABLE):
        return Path(from_environment)
    return platformdirs.user_cache_path("ssna")


def default_name(llm: str) -> str:
    """A cache's name for an LLM: the hub id's last part, the GGUF file's, or the path's last folder that tells.

    Folders called `model`, `snapshots` or a hash say nothing; a hub download's `models--org--name` says `name`.
    """
    parts = [part for part in re.split(r"[/\\]+", llm) if part not in ("", ".", "..")]
    telling = [part for part in parts if not _NOT_A_NAME.fullmatch(part)]
    last = telling[-1] if telling else "llm"
    return clean_name(last.split("--")[-1].removesuffix(".gguf"))


def clean_name(name: str) -> str:
    """The name with every character that file systems or shells treat specially turned into `_`."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".") or "llm"


def find_cache(root: Path, llm: str, *, maintaining: bool = False) -> Path:
    """The folder of the one cache that `llm` means: its name, or the path or hub id that it was extracted from.

    Args:
        root: the folder of all caches.
        llm: what the user calls the cache.
        maintaining: for `ssna cache`, which takes a folder in the name's place and wants nothing extracted; all else
            takes a folder as --cache.

    Raises:
        CacheError: if no cache fits, or several do; the message lists what there is.
    """
    caches = manifests_below(root)
    matches = [path for path, manifest in caches if path.name == llm or manifest.name in (llm, clean_name(llm))]
    if not matches:
        matches = [path for path, manifest in caches if _made_from(path, manifest, llm)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        choices = " or ".join(str(path) if maintaining else f"--cache {path}" for path in matches)
        raise CacheError(
            f"{len(matches)} caches below {root} fit '{llm}'; they differ in settings, which `ssna cache info` shows. "
            f"Give one by its folder: {choices}."
        )
    names = sorted({manifest.name for _, manifest in caches})
    raise CacheError(
        f"no cache below {root} fits '{llm}' (found: {', '.join(names) or 'none'}). "
        f"{_what_to_do(llm, names, maintaining)}"
    )


def _what_to_do(llm: str, names: Sequence[str], maintaining: bool) -> str:
    """When no cache fits: the name that was probably meant, else where one may be."""
    if close := difflib.get_close_matches(llm, names, n=1):
        return f"Did you mean {close[0]}?"
    if not maintaining:
        return "Run `ssna extract DATASET --llm PATH_OR_ID` first, or name another --cache-root."
    return "Give one of these, or another --cache-root." if names else "Name another --cache-root."


def _made_from(path: Path, manifest: Manifest, llm: str) -> bool:
    sources, local = sources_of(path, manifest), Path(llm)
    if llm in sources or (local.exists() and str(local.resolve()) in sources):
        return True
    folder = local if local.is_dir() else local.parent
    if not local.exists():
        return False
    # The same weights in another folder are the same LLM.
    weights: dict[str, str] = manifest.settings.get("weights", {})
    return bool(weights) and all(
        (folder / name).is_file() and sha256_of_file(folder / name) == digest for name, digest in weights.items()
    )
