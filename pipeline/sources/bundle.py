"""The files of a source that comes as one folder, zip or tar."""

from __future__ import annotations

import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ssna.errors import SourceError
from ssna.sources.files import SourceFile, told_if_damaged

_NAMES_IN_MESSAGES = 8
_APPLE_DOUBLE = "._"
"""How the names of files begin that macOS adds to archives, one a file (in the folder __MACOSX of a zip)"""


@dataclass(frozen=True)
class Bundle:
    """A folder or archive, and the files in it at any depth."""

    path: Path
    files: tuple[SourceFile, ...]

    @property
    def name(self) -> str:
        """Of the folder, or of the archive without its ending."""
        path = self.path.resolve()
        return path.name if path.is_dir() else path.stem

    def find(self, name: str, beside: SourceFile | None = None) -> SourceFile | None:
        """The file of that name, if there is one: in the same folder as `beside`, else the one that is least deep.

        Raises:
            SourceError: if several are equally deep.
        """
        found = [file for file in self.files if file.name == name]
        if beside is not None:
            found = [file for file in found if file.inside.parent == beside.inside.parent]
        depths = [len(file.inside.parts) for file in found]
        shallowest = [file for file, depth in zip(found, depths, strict=True) if depth == min(depths)]
        if len(shallowest) > 1:
            places = ", ".join(str(file.inside.parent) for file in shallowest)
            raise SourceError(
                f"{self.path} holds several files {name} (in {places}); expected one dataset. Give its own folder."
            )
        return shallowest[0] if shallowest else None

    def require(self, name: str, expected: str, beside: SourceFile | None = None) -> SourceFile:
        """The file of that name.

        Raises:
            SourceError: if there is none; says what was found, and what was `expected`.
        """
        file = self.find(name, beside)
        if file is None:
            raise self.lacks(name, expected)
        return file

    def lacks(self, what: str, expected: str) -> SourceError:
        """The error that `what` is not among the files."""
        names = sorted({file.name for file in self.files})
        more = f" and {len(names) - _NAMES_IN_MESSAGES} more" if len(names) > _NAMES_IN_MESSAGES else ""
        found = ", ".join(names[:_NAMES_IN_MESSAGES]) + more if names else "no files"
        return SourceError(f"{self.path} has no {what} (found: {found}); expected {expected}.")


def open_bundle(path: Path, what: str, archive_name: str | None = None) -> Bundle:
    """The files below a folder, or in a zip (a wheel is one) or tar, compressed or not.

    Args:
        path: of the folder or archive.
        what: was expected, for messages.
        archive_name: what the user knows it by, if it is a copy of a member of another archive.

    Raises:
        SourceError: if nothing or something else stands there, or it is damaged.
    """
    shown = archive_name or str(path)
    if not path.exists():
        raise SourceError(f"{shown}: there is no such file or folder; expected {what}.")
    with told_if_damaged(shown):
        if path.is_dir():
            files = [SourceFile(file) for file in path.rglob("*") if file.is_file()]
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                members = [name for name in archive.namelist() if not name.endswith("/")]
            files = [SourceFile(path, member, archive_name=archive_name) for member in members]
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as packed:
                entries = [entry for entry in packed if entry.isfile()]
            files = [SourceFile(path, entry.name, entry, archive_name) for entry in entries]
        else:
            raise SourceError(f"{shown} is neither a folder nor a zip or tar; expected {what}.")
    own = [file for file in files if not file.name.startswith(_APPLE_DOUBLE)]
    return Bundle(Path(shown), tuple(sorted(own, key=lambda file: file.inside)))
