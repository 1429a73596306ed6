"""A cache of layer states: one folder per fingerprint, with a manifest, immutable segments and a derived index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ssna.cache.errors import CacheError, DiskFullError, MissingRowsError, SegmentGoneError, WrongIndexError
from ssna.cache.file_hashes import MEMORY, HashedFile, remember_sha256
from ssna.cache.files import TEMPORARY_PREFIX, sweep_leftovers, write_atomically
from ssna.cache.index import MISSING, Index, Int64s, build_index, by_segment, index_path, load_index, save_index
from ssna.cache.keys import Keys
from ssna.cache.segment import FORMAT_VERSION, SUFFIX, Segment, list_segments, open_segment
from ssna.cache.selection import Selection
from ssna.cache.soundness import check_files

Result = TypeVar("Result")

MANIFEST = "manifest.json"
SEGMENTS = "segments"
SOURCES = "sources.json"
SET_ASIDE = "set-aside"
_ATTEMPTS = 5  # How often a reader lists again when another process compacts the cache meanwhile.


def fingerprint_of(settings: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the settings as canonical JSON: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What a cache holds the states of, as `manifest.json` says it."""

    name: str
    fingerprint: str
    settings: Mapping[str, Any]
    """Everything that changes a state; its hash is the fingerprint."""
    llm: Mapping[str, Any]
    """For people: where the LLM came from, its architecture, number of blocks and state width."""


class Cache:
    """A cache folder, open for reading; any number of processes may write to it meanwhile."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.segments_folder = path / SEGMENTS
        self._open: dict[str, Segment] = {}
        self._sound = set[str]()
        self._index = self._load_index()

    @classmethod
    def open(cls, path: Path) -> Cache:
        """The cache in this folder.

        Raises:
            CacheError: if the folder is not a cache, or its manifest and fingerprint disagree.
        """
        return cls(path, read_manifest(path))

    @classmethod
    def create(cls, root: Path, name: str, settings: Mapping[str, Any], llm: Mapping[str, Any]) -> Cache:
        """The cache of these settings below `root`, made now if it is not there yet."""
        fingerprint = fingerprint_of(settings)
        path = root / folder_name(name, fingerprint)
        (path / SEGMENTS).mkdir(parents=True, exist_ok=True)
        sweep_leftovers(path)
        if not (path / MANIFEST).exists():
            manifest = {
                "format_version": FORMAT_VERSION,
                "name": name,
                "fingerprint": fingerprint,
                "settings": settings,
                "llm": llm,
            }
            write_atomically(path / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        return cls.open(path)

    def remember_source(self, source: str) -> None:
        """Note another path or id under which the same LLM was extracted, so that `find_cache` knows it."""
        known = sources_of(self.path, self.manifest)
        if source not in known:
            write_atomically(self.path / SOURCES, json.dumps([*known, source], indent=1, ensure_ascii=False))

    def __len__(self) -> int:
        """Number of distinct texts with states."""
        index = self._index
        if not len(index.high):
            return 0
        same = (index.high[1:] == index.high[:-1]) & (index.low[1:] == index.low[:-1])
        return len(index.high) - int(same.sum())

    @property
    def index(self) -> Index:
        """Where each row is, as of the last refresh."""
        return self._index

    @property
    def max_layers(self) -> int:
        """The most layers that any segment holds; 0 for an empty cache."""
        return int(self._index.layers.max(initial=0))

    def common_layers(self, keys: Keys) -> int:
        """The most layers that all these keys are cached with; 0 if some key is not cached at all."""
        for layers in sorted({int(n) for n in self._index.layers}, reverse=True):
            if self.has(keys, layers).all():
                return layers
        return 0

    def size_on_disk(self) -> int:
        """Bytes of the committed segments."""
        total = 0
        for path in self.segments_folder.glob("*.h5"):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def segments_with_repeated_keys(self) -> set[str]:
        """Names of the segments that hold a key which another segment holds as well."""
        index = self._index
        same = np.flatnonzero((index.high[1:] == index.high[:-1]) & (index.low[1:] == index.low[:-1]))
        return {index.segments[i] for i in np.unique(index.segment[np.concatenate([same, same + 1])])}

    def refresh(self) -> None:
        """See what was committed since the cache was opened."""
        self._index = self._load_index()

    def segment(self, name: str) -> Segment:
        """A segment, checked and mapped on first use."""
        return self.segments([name])[0]

    def segments(self, names: Sequence[str]) -> list[Segment]:
        """Segments, checked and mapped on first use.

        Raises:
            SegmentGoneError: if one is no longer there.
            CacheError: if one is damaged, naming the file.
        """
        self._check_files([name for name in names if name not in self._open])
        for name in names:
            if name not in self._open:
                self._open[name] = open_segment(self.segments_folder, name, self.manifest.fingerprint)
        return [self._open[name] for name in names]

    @property
    def hash_memory(self) -> Path:
        """Where sound files are remembered: beside the cache, not in it, where it would travel with the cache."""
        return self.path.parent / MEMORY

    def _check_files(self, names: Sequence[str]) -> None:
        """Make sure that these files may be parsed."""
        unknown = [name for name in names if name not in self._sound]
        check_files(self.segments_folder, unknown, self.manifest.fingerprint, self.hash_memory)
        self._sound.update(unknown)

    def trust(self, name: str) -> None:
        """Remember a segment that this process has written: its structure need not be tried out."""
        with suppress(OSError):  # Another process may have merged or compacted it away already.
            remember_sha256([HashedFile.of(self.segments_folder / f"{name}{SUFFIX}")], self.hash_memory)

    def has(self, keys: Keys, layers: int) -> npt.NDArray[np.bool_]:
        """Which keys ``(m, 16)`` have a row with at least that many layers, bool ``(m,)``."""
        segments, _ = self._despite_compaction(lambda: self._find(keys, layers))
        present: npt.NDArray[np.bool_] = segments != MISSING
        return present

    def select(self, keys: Keys, layers: int) -> Selection:
        """Where the top `layers` layers of each key ``(n, 16)`` are, in the order asked; repeats allowed.

        Raises:
            MissingRowsError: if any key is not cached with that many layers.
            CacheError: if a segment is damaged, naming the file.
        """
        return self._despite_compaction(lambda: self._select(keys, layers))

    def _despite_compaction(self, read: Callable[[], Result]) -> Result:
        """What `read` gives; it begins anew when another process replaced a segment, or the saved index is wrong."""
        for attempt in range(_ATTEMPTS):
            try:
                return read()
            except (SegmentGoneError, WrongIndexError) as error:
                if attempt == _ATTEMPTS - 1:
                    raise
                if isinstance(error, WrongIndexError):
                    with suppress(OSError):
                        index_path(self.path, self._index.segments).unlink(missing_ok=True)
                self._open.clear()
                self.refresh()
        raise AssertionError("unreachable")

    def token_counts(self, keys: Keys, layers: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]:
        """How many tokens the LLM read of each text ``(m,)``, and whether the text had more ``(m,)``.

        Raises:
            MissingRowsError: if any key is not cached with that many layers.
        """
        return self._despite_compaction(lambda: self._token_counts(keys, layers))

    def _token_counts(self, keys: Keys, layers: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]:
        number, row = self._find_all(keys, layers)
        counts, truncated = np.empty(len(keys), np.uint32), np.empty(len(keys), np.bool_)
        places = list(by_segment(number))
        used = self.segments([self._index.segments[i] for i, _ in places])
        for segment, (i, here) in zip(used, places, strict=True):
            self._check_rows(i, segment, row[here], keys[here])
            rows = segment.rows
            counts[here], truncated[here] = rows.token_counts[row[here]], rows.truncated[row[here]]
        return counts, truncated

    def _find(self, keys: Keys, layers: int) -> tuple[Int64s, Int64s]:
        try:
            return self._index.find(keys, layers)
        except IndexError as error:  # It names a segment that there is not.
            raise self._wrong_index() from error

    def _wrong_index(self) -> WrongIndexError:
        return WrongIndexError(
            f"{index_path(self.path, self._index.segments)} does not fit the segments. Delete it; it is made anew on "
            "the next use."
        )

    def _find_all(self, keys: Keys, layers: int) -> tuple[Int64s, Int64s]:
        """Segment and row of each key, all of which must be there."""
        number, row = self._find(keys, layers)
        if (number == MISSING).any():
            missing = np.flatnonzero(number == MISSING)
            raise MissingRowsError(
                f"{self.path}: {len(missing)} of {len(keys)} texts are not cached with {layers} layers",
                missing.tolist(),
            )
        return number, row

    def _select(self, keys: Keys, layers: int) -> Selection:
        found, row = self._find_all(keys, layers)
        places = list(by_segment(found))
        used = self.segments([self._index.segments[i] for i, _ in places])
        width = used[0].rows.states.shape[2] if used else 0
        block_numbers = used[0].layers[:layers] if used else ()
        number, checksums = np.empty(len(keys), np.uint32), np.empty(len(keys), "<u8")
        for place, (segment, (i, wanted)) in enumerate(zip(used, places, strict=True)):
            self._check_rows(i, segment, row[wanted], keys[wanted])
            if segment.layers[:layers] != block_numbers or segment.rows.states.shape[2] != width:
                raise CacheError(
                    f"{self.path}: the segments {used[0].name} and {segment.name} hold other layers or widths "
                    "under the same fingerprint; remove the cache and extract again."
                )
            number[wanted] = place
            checksums[wanted] = segment.rows.checksums[row[wanted]]
        digest = hashlib.sha256(checksums.data).hexdigest()
        return Selection(block_numbers, width, digest, self.segments_folder, used, number, row.astype(np.uint32))

    def _check_rows(self, number: int, segment: Segment, rows: Int64s, keys: Keys) -> None:
        """Make sure that the index, which is not trusted, names rows of these keys, and layers that are there."""
        if self._index.layers[number] != len(segment.layers):
            raise self._wrong_index()
        if (rows >= len(segment.rows)).any() or not np.array_equal(segment.rows.keys[rows], keys):
            raise self._wrong_index()

    def _load_index(self) -> Index:
        for attempt in range(_ATTEMPTS):
            names = list_segments(self.segments_folder)
            if (saved := load_index(self.path, names)) is not None:
                return saved
            try:
                self._check_files(names)
                # Not kept open: what is mapped of each would stay in memory together.
                fingerprint = self.manifest.fingerprint
                index = build_index(open_segment(self.segments_folder, name, fingerprint) for name in names)
                break
            except SegmentGoneError:
                if attempt == _ATTEMPTS - 1:
                    raise
        with suppress(OSError, DiskFullError):  # A cache that cannot be written is indexed in memory.
            save_index(self.path, index)
        return index


def folder_name(name: str, fingerprint: str) -> str:
    """`<name>-<first 12 hex of the fingerprint>`."""
    return f"{name}-{fingerprint[:12]}"


def read_manifest(path: Path) -> Manifest:
    """A cache folder's manifest.

    Raises:
        CacheError: if there is none, it cannot be read, or its settings do not hash to its fingerprint.
    """
    file = path / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        manifest = Manifest(content["name"], content["fingerprint"], content["settings"], content["llm"])
        str(manifest.llm["source"]), int(manifest.llm["blocks"]), int(manifest.llm["state_width"])
        version = content["format_version"]
    except FileNotFoundError as error:
        raise CacheError(
            f"{path} is not a cache: it has no {MANIFEST}. Expected a folder that `ssna extract` made."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CacheError(f"{file} is not a cache manifest ({error!r}). Remove the cache and extract again.") from error
    if version != FORMAT_VERSION:
        raise CacheError(f"{file} has format version {version}; this ssna reads version {FORMAT_VERSION}.")
    if fingerprint_of(manifest.settings) != manifest.fingerprint:
        raise CacheError(
            f"{file} was changed by hand: its settings no longer have the fingerprint {manifest.fingerprint[:12]}. "
            "Restore it, or extract again into another cache root."
        )
    return manifest


def foreign_entries(path: Path) -> list[str]:
    """Names in a cache folder that are no part of a cache."""
    ours = (MANIFEST, SEGMENTS, SOURCES, SET_ASIDE)
    derived = ("index-", TEMPORARY_PREFIX)
    return [entry.name for entry in path.iterdir() if entry.name not in ours and not entry.name.startswith(derived)]


def sources_of(path: Path, manifest: Manifest) -> list[str]:
    """Every path and id under which the cache's LLM was extracted."""
    try:
        further = json.loads((path / SOURCES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        further = []
    return list(dict.fromkeys([str(manifest.llm.get("source", "")), *map(str, further)]))


def folders_below(root: Path) -> list[Path]:
    """Every folder below a root that holds a manifest, sound or not, sorted."""
    folders = sorted(file.parent for file in root.glob(f"*/{MANIFEST}"))
    return [folder for folder in folders if not folder.name.startswith(TEMPORARY_PREFIX)]


def manifests_below(root: Path) -> Sequence[tuple[Path, Manifest]]:
    """Every cache below a root with its manifest, sorted by folder name; folders that are none are passed over."""
    found = []
    for folder in folders_below(root):
        with suppress(CacheError):
            found.append((folder, read_manifest(folder)))
    return found
