"""Fetching a file over HTTP so that it is whole or not there, and an interrupted fetch goes on where it stopped."""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ssna.cache import fsync_file, fsync_folder, lock, telling_when_full
from ssna.errors import DownloadError

_CHUNK = 2**20
_SECONDS_WITHOUT_BYTES = 60
_DIGEST = re.compile(rb"\b(?:[0-9a-fA-F]{64}|[0-9a-fA-F]{32})\b")
_DIGEST_BYTES = 4096

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and those there will be (None if the server does not say)."""


@dataclass(frozen=True)
class Expected:
    """A digest that a file should have."""

    digest: str
    """SHA-256 or MD5, as hex"""
    source: str
    """Who says so"""
    otherwise: str
    """A sentence on what to do if the file differs, and that is no accident"""


def fetch(url: str, path: Path, expected: Sequence[Expected], progress: Progress) -> str:
    """Make the content of `url` the file `path`, and return its SHA-256.

    What came before an interruption stays in a file beside it, with what the server called that version; the next call
    asks for the rest of the same version only.

    Args:
        url: of the file.
        path: where it goes; its folder is there.
        expected: what is known of the content.
        progress: told of the bytes.

    Raises:
        DownloadError: if there is no network or no such file, the connection breaks, or the digest differs.
        DiskFullError: if the disk is full.
    """
    part, version = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.version")
    with telling_when_full(path), part.open("ab") as out:
        if not lock(out, wait=False):
            raise DownloadError(f"another process is fetching {path}. Wait for it, or give another folder.")
        try:
            _append(url, out, version, progress)
        except DownloadError:
            if out.tell() == 0:  # Nothing came that a later call could go on from.
                part.unlink(missing_ok=True)
            raise
    found = _digests(part)
    if (difference := _difference(found, expected)) is not None:
        part.unlink()
        version.unlink(missing_ok=True)
        raise DownloadError(
            f"{url}: the digest of what came is {difference[0]}; it was removed. Run the same command again; if it "
            f"says so again: {difference[1]}"
        )
    fsync_file(part)
    part.replace(path)
    version.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return found[0]


def check(path: Path, expected: Sequence[Expected]) -> str:
    """Hold a file that is there against what is known of it, and return its SHA-256.

    Raises:
        DownloadError: if it differs.
    """
    found = _digests(path)
    if (difference := _difference(found, expected)) is not None:
        raise DownloadError(
            f"{path} was there, but its digest is {difference[0]}. Remove it and run the same command again, which "
            f"fetches it anew; if it says so again: {difference[1]}"
        )
    return found[0]


def _difference(found: tuple[str, str], expected: Sequence[Expected]) -> tuple[str, str] | None:
    """The first digest that is not as it should be, in words, and what to do if that is no accident."""
    for one in expected:
        if one.digest.lower() not in found:
            own = next(digest for digest in found if len(digest) == len(one.digest))
            return f"{own}, not {one.digest}, which {one.source} gives", one.otherwise
    return None


def digest_in(content: bytes) -> str | None:
    """The first SHA-256 or MD5 in what a checksum file holds."""
    found = _DIGEST.search(content)
    return None if found is None else found[0].decode().lower()


def fetch_digest(url: str) -> str | None:
    """The SHA-256 or MD5 in a small file that a publisher puts beside another; None if there is no such file.

    Raises:
        DownloadError: if there is no network, or the file holds no digest.
    """
    with _told(url):
        try:
            with _ask(url, {}) as answer:
                content = answer.read(_DIGEST_BYTES)
        except urllib.error.HTTPError as error:
            if error.code == http.client.NOT_FOUND:
                return None
            raise
    found = digest_in(content)
    if found is None:
        raise DownloadError(f"{url} holds neither an MD5 nor a SHA-256 (found '{content[:40]!r}'). Try again later.")
    return found


def _append(url: str, out: BinaryIO, version: Path, progress: Progress) -> None:
    """Fetch what `out` lacks, or all of it if the server has another version now."""
    there = out.seek(0, 2)
    known = version.read_text(encoding="utf-8") if there and version.is_file() else None
    headers = {"Range": f"bytes={there}-", "If-Range": known} if known else {}
    with _told(url):
        try:
            answer = _ask(url, headers)
        except urllib.error.HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            if error.headers.get("Content-Range") == f"bytes */{there}":
                return  # All of it came before.
            answer = _ask(url, {})
        with answer:
            if answer.status != http.client.PARTIAL_CONTENT or not _starts_at(answer, there):
                there = 0
                out.truncate(0)
                _remember_version(answer, version)
            length = answer.headers.get("Content-Length")
            total = None if length is None else there + int(length)
            progress(there, total)
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                there += len(chunk)
                progress(there, total)
    if total is not None and there != total:
        raise DownloadError(
            f"{url}: the connection ended after {there:,} of {total:,} bytes. Run the same command again; it goes on "
            "from there."
        )


def _ask(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    # Content-Encoding would make the bytes other than the file's.
    request = urllib.request.Request(url, headers={"User-Agent": "ssna", "Accept-Encoding": "identity", **headers})
    answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_SECONDS_WITHOUT_BYTES)
    return answer


def _starts_at(answer: http.client.HTTPResponse, offset: int) -> bool:
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {offset}-")


def _remember_version(answer: http.client.HTTPResponse, version: Path) -> None:
    """Write down what tells this version from others; a weak ETag does not tell bytes apart."""
    tag = answer.headers.get("ETag", "")
    mark = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
    if mark:
        version.write_text(mark, encoding="utf-8")
    else:
        version.unlink(missing_ok=True)


def _digests(path: Path) -> tuple[str, str]:
    """SHA-256 and MD5 of a file."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What goes wrong on the network, in one sentence each."""
    again = "Run the same command again later; it goes on where it stopped"
    try:
        yield
    except urllib.error.HTTPError as error:
        with suppress(OSError):
            error.close()
        raise DownloadError(
            f"{url}: the server answered {error.code} ({error.reason}). {again}; if the file has moved, download it "
            "from its publisher's page yourself."
        ) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DownloadError(
            f"{url} cannot be reached ({reason}). Check the network, and the proxy in $https_proxy if there is one. "
            f"{again}; or download the file on another machine."
        ) from error
