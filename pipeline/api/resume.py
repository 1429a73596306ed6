"""Whether a folder holds the run that shall be resumed; if not, what is different, in the words of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssna.cache import CacheError, Manifest, read_manifest
from ssna.cache.files import TEMPORARY_PREFIX
from ssna.errors import RunError
from ssna.folders import check_no_file
from ssna.runs import CHECKPOINT_FILE, is_run, read_config, runs_of_study
from ssna.stage1_extract import differences
from ssna.stage2_adapt import facts_of


def check_resumable(output: Path, config: Mapping[str, Any]) -> None:
    """Return if a folder is empty or missing, or holds a run of this very config.json.

    Raises:
        OutputError: if a file stands there.
        RunError: if it holds another run, naming the first difference, or something that is no run.
    """
    check_no_file(output)
    # A run that was killed while it wrote its config.json has left no more than that file's temporary one.
    if not output.exists() or all(entry.name.startswith(TEMPORARY_PREFIX) for entry in output.iterdir()):
        return
    if runs_of_study(output):
        raise RunError(
            f"{output} is a study of layers. Give a list such as --layers 1,2 to go on with it, or another --output."
        )
    if not is_run(output):
        raise RunError(f"{output} holds no run to resume. Give the folder of a run, or a new one.")
    found = difference(read_config(output), config)
    if not found and (output / CHECKPOINT_FILE).exists():
        # Of another run if somebody has put it there.
        found = difference(facts_of(output / CHECKPOINT_FILE)["made_from"], config)
    if found:
        raise RunError(f"{output} cannot be resumed {found}. Give what it was started with, or another --output.")


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How one run's config.json differs from another's, as it goes on after `cannot be resumed`; nothing if not."""
    old, new = before.get("options", {}), now["options"]
    for name in new:
        if old.get(name) != new[name]:
            return f"{_as_option(name, new[name])}: it was started {_as_option(name, old.get(name))}"
    if before.get("precision") != now["precision"]:
        return (
            f"with --precision {now['precision']}, which is what it means on this device: it was started with "
            f"{before.get('precision')}"
        )
    old, new = before.get("dataset", {}), now["dataset"]
    if old.get("fingerprint") != new["fingerprint"]:
        if old.get("path") == new["path"]:
            return f"with the dataset {new['path']}: its rows have changed since the run was started"
        return f"with the dataset {new['path']}: it was started with {old.get('path')}, which has other rows"
    return _difference_of_caches(before.get("caches", []), now["caches"])


def _difference_of_caches(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> str:
    if len(before) != len(now):
        return f"with {_names(now)}: it was started with {_names(before)}"
    for old, new in zip(before, now, strict=True):
        if old.get("fingerprint") != new["fingerprint"]:
            return f"with the cache {new['path']}: it was started with {old.get('path')}{_settings(old, new)}"
        if old.get("layers") != new["layers"]:
            return (
                f"with {len(new['layers'])} layers of the cache {new['path']}: it was started with "
                f"{len(old.get('layers', []))}"
            )
        if old.get("rows_digest") != new["rows_digest"]:
            return f"with the cache {new['path']}: its states of these items have changed since the run was started"
    return ""


def _names(caches: Sequence[Mapping[str, Any]]) -> str:
    return " and ".join(f"--llm {cache['name']}" for cache in caches) or "no LLM"


def _as_option(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return f"without {flag}"
    if value is True:
        return f"with {flag}"
    return "with " + " ".join(f"{flag} {one}" for one in (value if isinstance(value, list) else [value]))


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """How an old cache was extracted otherwise than a new one, in parentheses; nothing if the old one is gone."""
    first, second = (_manifest(cache) for cache in (old, new))
    if first is None or second is None:
        return ""
    told = differences(first, second.settings)
    return f" ({', '.join(told)})" if told else ""


def _manifest(cache: Mapping[str, Any]) -> Manifest | None:
    with suppress(CacheError, OSError, KeyError):
        manifest = read_manifest(Path(cache["path"]))
        if manifest.fingerprint == cache["fingerprint"]:
            return manifest
    return None
