"""Looking after caches: `ssna.list_caches`, `verify_cache`, `compact_cache`, `remove_cache`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssna.cache import (
    MANIFEST,
    Cache,
    CacheError,
    Compaction,
    SegmentReport,
    compact,
    find_cache,
    folders_below,
    foreign_entries,
    resolve_cache_root,
    set_aside,
    temporary_sibling,
    verify,
    verify_index,
)


@dataclass(frozen=True)
class CacheSummary:
    """A cache at a glance."""

    path: str
    name: str
    fingerprint: str
    llm: str
    """Path or hub id that it was extracted from"""
    layers: int
    """The most layers of a row"""
    blocks: int
    """Layers of the LLM"""
    width: int
    """D"""
    stored_dtype: str
    pooling: str
    compute_dtype: str
    max_tokens: int
    prefix: str
    """What the LLM read before each text"""
    suffix: str
    """And after it"""
    remote_code: bool
    """Whether Python code that came with the LLM was run"""
    rows: int
    """Distinct texts"""
    segments: int
    bytes: int
    """Of the segments"""

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Verification:
    """What `verify_cache` found."""

    path: str
    segments: int
    rows: int
    damaged: list[SegmentReport]
    index_sound: bool
    set_aside: list[str]
    """Where damaged segments were moved to"""

    @property
    def sound(self) -> bool:
        """Whether nothing was wrong."""
        return not self.damaged and self.index_sound

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return {"sound": self.sound, **asdict(self)}


def list_caches(cache_root: Path | str | None = None) -> list[Path]:
    """The folder of every cache below the root, sound or not.

    Args:
        cache_root: None means `$SSNA_CACHE`, else the user's cache folder.
    """
    return folders_below(resolve_cache_root(cache_root))


def locate_cache(which: Path | str, cache_root: Path | str | None = None) -> Path:
    """The folder of the cache with that name, or extracted from that path or id; or the folder itself.

    Raises:
        CacheError: if there is none, or several.
    """
    folder = Path(which)
    if (folder / MANIFEST).is_file():
        return folder
    return find_cache(resolve_cache_root(cache_root), str(which), maintaining=True)


def describe_cache(cache: Path | str, *, cache_root: Path | str | None = None) -> CacheSummary:
    """What a cache holds.

    Args:
        cache: a name, the path or id of its LLM, or its folder.
        cache_root: the folder of all caches; None means `$SSNA_CACHE`, else the user's cache folder.

    Raises:
        CacheError: if there is no such cache, or a segment is damaged.
    """
    opened = Cache.open(locate_cache(cache, cache_root))
    manifest = opened.manifest
    return CacheSummary(
        path=str(opened.path),
        name=manifest.name,
        fingerprint=manifest.fingerprint,
        llm=str(manifest.llm["source"]),
        layers=opened.max_layers,
        blocks=int(manifest.llm["blocks"]),
        width=int(manifest.llm["state_width"]),
        stored_dtype=str(manifest.settings["stored_dtype"]),
        pooling=str(manifest.settings["pooling"]),
        compute_dtype=str(manifest.settings["compute_dtype"]),
        max_tokens=int(manifest.settings["max_tokens"]),
        prefix=str(manifest.settings["prefix"]),
        suffix=str(manifest.settings["suffix"]),
        remote_code=bool(manifest.settings["remote_code"]),
        rows=len(opened),
        segments=len(opened.index.segments),
        bytes=opened.size_on_disk(),
    )


def verify_cache(
    cache: Path | str,
    *,
    cache_root: Path | str | None = None,
    repair: bool = False,
    on_segment: Callable[[SegmentReport], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Hold every file of a cache against its name, every row against its checksum, and the index against both.

    Args:
        cache: a name, the path or id of its LLM, or its folder.
        cache_root: the folder of all caches; None means `$SSNA_CACHE`, else the user's cache folder.
        repair: move damaged segments into `set-aside/`, so that the next `extract` computes their rows again.
        on_segment: told of each segment.
        on_progress: called with the segments whose files were read and their number.

    Raises:
        CacheError: if there is no such cache.
    """
    folder = locate_cache(cache, cache_root)
    damaged, moved, segments, rows = list[SegmentReport](), list[str](), 0, 0
    for report in verify(folder, on_progress):
        segments, rows = segments + 1, rows + report.rows
        if report.damage is not None:
            damaged.append(report)
        if on_segment is not None:
            on_segment(report)
    if repair:
        moved = [str(set_aside(folder, report.segment)) for report in damaged]
    index_sound = verify_index(folder) if repair or not damaged else True
    return Verification(str(folder), segments, rows, damaged, index_sound, moved)


def compact_cache(
    cache: Path | str,
    *,
    cache_root: Path | str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Compaction:
    """Join a cache's small segments, and drop rows that no read returns; safe beside readers and when killed.

    Args:
        cache: a name, the path or id of its LLM, or its folder.
        cache_root: the folder of all caches; None means `$SSNA_CACHE`, else the user's cache folder.
        on_progress: called with the rows that were written and those to write.

    Raises:
        CacheError: if there is no such cache, or a segment is damaged.
    """
    return compact(Cache.open(locate_cache(cache, cache_root)), on_progress=on_progress)


def remove_cache(cache: Path | str, *, cache_root: Path | str | None = None) -> None:
    """Delete a cache and all that it holds.

    Args:
        cache: a name, the path or id of its LLM, or its folder.
        cache_root: the folder of all caches; None means `$SSNA_CACHE`, else the user's cache folder.

    Raises:
        CacheError: if there is no such cache, or the folder holds something else as well, or is a link.
    """
    folder = locate_cache(cache, cache_root)
    if folder.is_symlink():
        raise CacheError(f"{folder} is a link to {folder.resolve()}. Remove that cache, or only the link with `rm`.")
    if foreign := foreign_entries(folder):
        raise CacheError(f"{folder} holds {foreign[0]}, which is no part of a cache. Move it away first.")
    # Under a temporary name the folder is no cache: what an interrupted removal leaves is swept by a later extraction.
    gone = temporary_sibling(folder)
    folder.rename(gone)
    shutil.rmtree(gone)
