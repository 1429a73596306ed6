"""Which segment files may be parsed: those with the bytes that their names say, which did no harm to another process.

libhdf5 reads what this project writes without fail, but a made-up or damaged structure can make it crash or never
return (tests/cache/test_hostile.py does both). So a file that is new to this machine is parsed in a process of its own
first, and then remembered.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ssna.cache.errors import CacheError, SegmentGoneError
from ssna.cache.file_hashes import HashedFile, recall_sha256, remember_sha256
from ssna.cache.segment import SUFFIX, damaged, name_of_digest, open_segment, segment_gone

_SECONDS_A_FILE = 60.0
_MARK, _READY = "ssna: ", "ready"
# 1 is faulthandler's when the time is up. Killed from outside, as for want of memory, is no verdict on a file.
_ENDED_BY_A_FILE = (1, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL)


def check_files(folder: Path, names: Sequence[str], fingerprint: str, memory: Path) -> None:
    """Make sure that these segments have the SHA-256 that their names say, and can be parsed.

    Args:
        folder: of the segments.
        names: of the segments.
        fingerprint: of the cache.
        memory: where sound files are remembered; these are not read again.

    Raises:
        SegmentGoneError: if a file is no longer there.
        CacheError: if one is damaged or cannot be read, naming it.
    """
    paths = {name: folder / f"{name}{SUFFIX}" for name in names}
    try:
        known = recall_sha256(list(paths.values()), memory)
        new = {
            name: HashedFile.of(path)
            for (name, path), sha256 in zip(paths.items(), known, strict=True)
            if sha256 is None
        }
    except FileNotFoundError as error:
        raise segment_gone(Path(error.filename)) from error
    except OSError as error:
        raise CacheError(f"{error.filename} cannot be read ({error.strerror}).") from error
    for name, sha256 in zip(names, known, strict=True):
        if name_of_digest(sha256 or new[name].sha256) != name:
            raise damaged(paths[name], "does not have the SHA-256 that its name says")
    if errors := parse_errors(folder, list(new), fingerprint):
        raise next(iter(errors.values()))
    remember_sha256(new.values(), memory)


def parse_errors(
    folder: Path, names: Sequence[str], fingerprint: str, seconds: float | None = None
) -> dict[str, CacheError]:
    """By name, what is wrong with those of these segments that cannot be parsed.

    Args:
        folder: of the segments.
        names: of the segments.
        fingerprint: of the cache.
        seconds: after which parsing a file counts as never ending; None means a minute.
    """
    errors, left = dict[str, CacheError](), list(names)
    while left:
        # -P: nothing of the current folder is imported.
        command = [sys.executable, "-P", "-m", __name__, str(folder), fingerprint, str(seconds or _SECONDS_A_FILE)]
        child = subprocess.run(command, input="\n".join(left), capture_output=True, text=True, check=False)
        lines = [line.removeprefix(_MARK) for line in child.stdout.splitlines() if line.startswith(_MARK)]
        begun, answers = lines[:1] == [_READY], [json.loads(line) for line in lines[1:]]
        for name, kind, message in answers:
            if kind is not None:
                errors[name] = SegmentGoneError(message) if kind == SegmentGoneError.__name__ else CacheError(message)
        done = {name for name, _, _ in answers}
        left = [name for name in left if name not in done]
        if not left:
            break
        if not begun or child.returncode not in _ENDED_BY_A_FILE:
            raise CacheError(
                f"{folder}: the process that tries out new segments ended by itself (status {child.returncode}: "
                f"{child.stderr.strip()[-200:] or 'no message'}). Nothing is known to be wrong with the cache; run the "
                "same command again."
            )
        path = folder / f"{left[0]}{SUFFIX}"
        errors[left[0]] = damaged(path, "makes the HDF5 library crash or never return")
        left = left[1:]
    return errors


def _parse_in_this_process(folder: Path, fingerprint: str, seconds: float) -> None:
    """Print, for each name on stdin, what is wrong with it if anything; a file that takes too long ends it all."""
    print(f"{_MARK}{_READY}", flush=True)
    for name in sys.stdin.read().splitlines():
        faulthandler.dump_traceback_later(seconds, exit=True)
        answer: tuple[str, str | None, str | None] = (name, None, None)
        try:
            open_segment(folder, name, fingerprint)
        except CacheError as error:
            answer = (name, type(error).__name__, str(error))
        faulthandler.cancel_dump_traceback_later()
        print(f"{_MARK}{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    _parse_in_this_process(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
