"""Results as lines of a JSON Lines file that only grows, so that what was interrupted goes on."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Write a line, whole and to the disk; several processes may."""
    text = (json.dumps(line) + "\n").encode()
    with path.open("ab", buffering=0) as file:
        file.write(text)
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All lines of a file; none of one that is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@functools.cache
def commit() -> str:
    """The commit that is measured, marked if any code but that of tests differs from it: as it is when asked first."""
    differs = _git("status", "--porcelain", "--", "*.py", ":!tests")
    return _git("describe", "--always", "--exclude=*") + ("-dirty" if differs else "")


def _git(*arguments: str) -> str:
    here = Path(__file__).parent.parent
    try:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else "git is not installed"
        raise click.ClickException(f"Results name the commit of {here}, which cannot be told: {why}") from None


class Lines:
    """Finished measurements, each under the fields that tell it from all others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = {_text(line["of"]): line for line in read_lines(path)}

    def __getitem__(self, of: Mapping[str, Any]) -> dict[str, Any]:
        """What was found of this."""
        return self._lines[_text(of)]

    def __contains__(self, of: Mapping[str, Any]) -> bool:
        """Whether this is finished."""
        return _text(of) in self._lines

    def where(self, **fields: Any) -> list[dict[str, Any]]:
        """All lines with these fields, in the order in which they were finished."""
        return [line for line in self._lines.values() if fields.items() <= line["of"].items()]

    def last(self, **fields: Any) -> dict[str, Any] | None:
        """The one of these that was finished last, if there is one."""
        return next(reversed(self.where(**fields)), None)

    def add(self, of: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
        """Write a finished measurement, and give its line."""
        line = {"of": dict(of), **found, "commit": commit()}
        self.path.parent.mkdir(exist_ok=True)
        append_line(self.path, line)
        self._lines[_text(of)] = line
        return line


def _text(of: Mapping[str, Any]) -> str:
    return json.dumps(of, sort_keys=True)
