"""Source files as UTF-8 text on disk, whatever they are packed in and encoded as."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from ssna.cache import sha256_of_file
from ssna.errors import SourceError
from ssna.sources.tables import Table

_CHUNK = 2**20
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: on disk (plain or gzipped), or a member of a zip or tar."""

    path: Path
    """The file, or the archive that holds it"""
    member: str | None = None
    entry: tarfile.TarInfo | None = field(default=None, repr=False, compare=False)
    """Where a member of a tar stands in it; to find that anew, a compressed tar would be unpacked from its start"""
    archive_name: str | None = None
    """What the user knows the archive by, where it is a copy of a member of another one"""

    @property
    def inside(self) -> PurePosixPath:
        """Where it stands, within the archive if it is in one."""
        return PurePosixPath(self.member if self.member is not None else self.path.as_posix())

    @property
    def name(self) -> str:
        """Without its folders."""
        return self.inside.name

    @property
    def outside(self) -> str:
        """The file on disk, or the archive that holds it, as the user knows it."""
        return self.archive_name or str(self.path)

    def __str__(self) -> str:
        return f"{self.outside}/{self.member}" if self.member is not None else self.outside


OnFile = Callable[[str, int, int], None]
"""Told of a file that is read: its name, the bytes that were read, and all it has (packed ones of a .gz)"""


def first_line(error: Exception) -> str:
    """Of what an error says, without its full stop."""
    return str(error).strip().splitlines()[0].rstrip(".")


class Workbench:
    """Makes source files readable and remembers the SHA-256 of each; its temporary copies go with it."""

    def __init__(self, folder: Path, on_progress: OnFile) -> None:
        self._folder = folder
        self._on_progress = on_progress
        self._copies = 0
        self.hashes: dict[str, str] = {}
        """SHA-256 of each source file as it is unpacked, by its name"""
        self.tables: list[Table] = []
        """The source's tables, to find what is wrong with one that cannot be read"""

    def text_file(self, file: SourceFile, encoding: str) -> Path:
        """A UTF-8 file with the content of a text file: itself, or a copy if it is packed or encoded otherwise.

        Raises:
            SourceError: if the file is not there, or not text of that encoding (as Python names it); names the line.
        """
        is_utf8 = codecs.lookup(encoding).name == "utf-8"
        packed = file.member is not None or file.path.suffix == ".gz"
        if is_utf8 and not packed:
            for _ in self.text_blocks(file, encoding):  # Checked and hashed.
                pass
            return file.path
        copy = self.temporary_file(file.name)
        with copy.open("wb") as out:
            out.writelines(self.text_blocks(file, encoding))
        return copy

    def text_blocks(self, file: SourceFile, encoding: str) -> Iterator[bytes]:
        """The content of a text file as UTF-8, a megabyte at a time; its hash is taken once all of it was read.

        Raises:
            SourceError: if the file is not there, or not text of that encoding; names the line.
        """
        digest = hashlib.sha256()
        yield from _decoded(file, encoding, digest, self._on_progress)
        self.hashes[str(file)] = digest.hexdigest()

    def first_fitting(self, file: SourceFile, encodings: Sequence[str]) -> str:
        """The first of the encodings, or else the last, in which the whole file is text."""
        for encoding in encodings[:-1]:
            with suppress(SourceError):
                for _ in _decoded(file, encoding, hashlib.sha256(), self._on_progress):
                    pass
                return encoding
        return encodings[-1]

    def temporary_file(self, name: str) -> Path:
        """A new path for a copy of a file of that name."""
        self._copies += 1
        return self._folder / f"{self._copies}-{name}"

    def remember(self, table: Table) -> Table:
        """The same, listed in `tables`."""
        self.tables.append(table)
        return table

    def fault(self) -> str | None:
        """Which table is not what it should be, and where; None if nothing is found."""
        return next(filter(None, (table.fault() for table in self.tables)), None)

    def what_is_wrong(self, error: Exception) -> str:
        """The fault, or else the first line of what the reader of the tables says."""
        return self.fault() or first_line(error)

    def unpacked(self, file: SourceFile) -> Path:
        """The file itself, or a copy if it is a member of an archive.

        Raises:
            SourceError: if the archive is damaged.
        """
        if file.member is None:
            return file.path
        copy = self.temporary_file(file.name)
        with copy.open("wb") as out, _open(file) as (content, measure, total):
            while chunk := content.read(_CHUNK):
                out.write(chunk)
                self._on_progress(file.name, measure.tell(), total)
        return copy

    def binary_file(self, path: Path) -> Path:
        """The file itself, its hash taken."""
        self.hashes[str(path)] = sha256_of_file(path)
        return path


@contextmanager
def workbench(on_progress: OnFile | None = None) -> Iterator[Workbench]:
    """A `Workbench` over a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="ssna-"))
    try:
        yield Workbench(folder, on_progress or (lambda name, done, total: None))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_file(path: Path, what: str) -> Path:
    """The path, if it is a file.

    Raises:
        SourceError: if not; `what` says what the file should hold.
    """
    if path.is_file():
        return path
    found = "a folder stands there" if path.is_dir() else "there is no such file"
    raise SourceError(f"{path}: {found}; expected {what}.")


def check_encoding(encoding: str) -> str:
    """The encoding's name.

    Raises:
        SourceError: if Python knows no such encoding.
    """
    try:
        "".encode(encoding)  # Fails for codecs that are not between text and bytes, too.
        return codecs.lookup(encoding).name
    except LookupError as error:
        raise SourceError(f"--encoding {encoding} is unknown; expected a name such as utf-8 or latin-1.") from error


@contextmanager
def _open(file: SourceFile) -> Iterator[tuple[IO[bytes], IO[bytes], int]]:
    """The content, what tells by its position how much of it was read, and at which position all was."""
    with told_if_damaged(file.outside):
        if file.entry is not None:
            with tarfile.open(file.path) as packed, packed.extractfile(file.entry) as content:  # type: ignore[union-attr]
                yield content, content, file.entry.size
        elif file.member is not None:
            with zipfile.ZipFile(file.path) as archive, archive.open(file.member) as content:
                yield content, content, archive.getinfo(file.member).file_size
        elif file.path.suffix == ".gz":
            with file.path.open("rb") as raw, gzip.open(raw) as content:
                yield content, raw, file.path.stat().st_size  # type: ignore[misc]
        else:
            with file.path.open("rb") as content:
                yield content, content, file.path.stat().st_size


@contextmanager
def told_if_damaged(name: str) -> Iterator[None]:
    """Makes what goes wrong while a packed file of that name is read an error that says so.

    Raises:
        SourceError: if it is damaged, encrypted, or compressed in a way that Python does not know.
    """
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise SourceError(f"{name} is damaged ({error}): download it again.") from error
    except RuntimeError as error:
        raise SourceError(f"{name} cannot be unpacked ({error}). Unpack it yourself, and give the folder.") from error


def _decoded(file: SourceFile, encoding: str, digest: hashlib._Hash, on_progress: OnFile) -> Iterator[bytes]:
    """The file's text as UTF-8, block by block; the digest is updated with its bytes as they are."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines, is_start = 0, True
    with _open(file) as (content, measure, total):
        while True:
            chunk = content.read(_CHUNK)
            digest.update(chunk)
            on_progress(file.name, measure.tell(), total)
            if is_start and chunk.startswith(_UTF_16) and not encoding.startswith(("utf-16", "utf-32")):
                raise SourceError(
                    f"{file} is UTF-16, not {encoding} text. Give --encoding utf-16 if all text files are, or save it "
                    "as UTF-8."
                ) from UnicodeError("it begins with the byte order mark of UTF-16")
            is_start = False
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line = lines + error.object[: error.start].count(b"\n") + 1
                raise SourceError(
                    f"{file} is not {encoding} text: byte 0x{error.object[error.start]:02x} in line {line}. "
                    "Name its encoding, for example --encoding latin-1."
                ) from error
            except UnicodeError as error:  # Such as UTF-16 without its mark.
                raise SourceError(
                    f"{file} is not {encoding} text ({error}). Name its encoding with --encoding."
                ) from error
            yield text.encode()
            if not chunk:
                return
            lines += chunk.count(b"\n")
