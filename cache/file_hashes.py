"""SHA-256 of files, remembered so that each is read for it once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ssna.cache.errors import DiskFullError
from ssna.cache.files import sha256_of_file, write_atomically

MEMORY = "file-hashes.json"

_State = tuple[int, int, int]
"""Size, mtime in nanoseconds and inode of a file: while they stay, so, it is taken, do the bytes"""
_Entry = tuple[int, int, int, str]
"""A file's state and SHA-256"""


def sha256_of_files(paths: Sequence[Path], memory: Path) -> list[str]:
    """SHA-256 (hex) of each file; what the file `memory` remembers is not computed again.

    Raises:
        OSError: if a file cannot be read. That `memory` cannot be written is no error.
    """
    known = recall_sha256(paths, memory)
    new = {path: HashedFile.of(path) for path, sha256 in zip(paths, known, strict=True) if sha256 is None}
    remember_sha256(new.values(), memory)
    return [sha256 or new[path].sha256 for path, sha256 in zip(paths, known, strict=True)]


@dataclass(frozen=True)
class HashedFile:
    """A file's hash, and its state before it was read."""

    place: str
    state: _State
    sha256: str

    @classmethod
    def of(cls, path: Path) -> HashedFile:
        """Read the file.

        Raises:
            OSError: if it cannot be read.
        """
        # Before, not after: of a file that changes meanwhile, nothing is remembered that is ever taken for true.
        place, state = str(path.resolve()), _state(path)
        return cls(place, state, sha256_of_file(path))


def recall_sha256(paths: Sequence[Path], memory: Path) -> list[str | None]:
    """SHA-256 (hex) of each file, None where it is not remembered or the file is gone."""
    entries, hashes = _load(memory) if paths else {}, list[str | None]()
    for path in paths:
        entry, sha256 = entries.get(str(path.resolve())), None
        with suppress(OSError):
            if entry is not None and entry[:3] == _state(path):
                sha256 = entry[3]
        hashes.append(sha256)
    return hashes


def remember_sha256(files: Iterable[HashedFile], memory: Path) -> None:
    """Keep the hashes of these files; that they cannot be kept is no error."""
    new: dict[str, _Entry] = {file.place: (*file.state, file.sha256) for file in files}
    if new:
        with suppress(OSError, DiskFullError):
            # Read again: another process may have added its own meanwhile.
            _save(memory, {**_load(memory), **new})


def _state(path: Path) -> _State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _load(memory: Path) -> dict[str, _Entry]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
        return {
            place: (int(size), int(mtime), int(inode), str(sha256))
            for place, (size, mtime, inode, sha256) in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        return {}


def _save(memory: Path, entries: Mapping[str, _Entry]) -> None:
    # A file that is gone is forgotten; one whose whole folder is gone may be on a disk that comes back.
    kept = {place: entry for place, entry in entries.items() if Path(place).exists() or not Path(place).parent.exists()}
    lines = (f"{json.dumps(place)}: {json.dumps(entry)}" for place, entry in kept.items())
    write_atomically(memory, "{" + ",\n ".join(lines) + "}\n")
