"""SHA-256 of files, remembered so that each is read for it once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ssna.cache.errors import DiskFullError
from ssna.cache.files import sha256_of_file, write_atomically

MEMORY = "file-hashes.json"

_Entry = tuple[int, int, int, str]
"""Size, mtime in nanoseconds, inode and SHA-256 of a file: while the first three stay, so, it is taken, do the bytes"""


def sha256_of_files(paths: Sequence[Path], memory: Path) -> list[str]:
    """SHA-256 (hex) of each file; what the file `memory` remembers is not computed again.

    Raises:
        OSError: if a file cannot be read. That `memory` cannot be written is no error.
    """
    known = recall_sha256(paths, memory)
    new = {path: sha256_of_file(path) for path, sha256 in zip(paths, known, strict=True) if sha256 is None}
    remember_sha256(new, memory)
    return [sha256 or new[path] for path, sha256 in zip(paths, known, strict=True)]


def recall_sha256(paths: Sequence[Path], memory: Path) -> list[str | None]:
    """SHA-256 (hex) of each file, None where it is not remembered."""
    entries, hashes = _load(memory) if paths else {}, list[str | None]()
    for path in paths:
        entry = entries.get(str(path.resolve()))
        with suppress(OSError):
            if entry is not None and entry[:3] != _state(path):
                entry = None
        hashes.append(None if entry is None else entry[3])
    return hashes


def remember_sha256(hashes: Mapping[Path, str], memory: Path) -> None:
    """Keep the hashes of these files, as they are now; that they cannot be kept is no error."""
    new = dict[str, _Entry]()
    for path, sha256 in hashes.items():
        with suppress(OSError):  # It may have gone meanwhile.
            new[str(path.resolve())] = (*_state(path), sha256)
    if new:
        with suppress(OSError, DiskFullError):
            _save(memory, {**_load(memory), **new})


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _load(memory: Path) -> dict[str, _Entry]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
        return {
            place: (int(size), int(mtime), int(inode), str(sha256))
            for place, (size, mtime, inode, sha256) in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _save(memory: Path, entries: Mapping[str, _Entry]) -> None:
    # A file that is gone is forgotten; one whose whole folder is gone may be on a disk that comes back.
    kept = {place: entry for place, entry in entries.items() if Path(place).exists() or not Path(place).parent.exists()}
    lines = (f"{json.dumps(place)}: {json.dumps(entry)}" for place, entry in kept.items())
    write_atomically(memory, "{" + ",\n ".join(lines) + "}\n")
