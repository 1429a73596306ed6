"""`ssna.download`: public datasets from their publishers, where these have a stable address that anyone may use."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from ssna.cache import write_atomically
from ssna.errors import DownloadError
from ssna.fetching import Expected, Progress, check, digest_in, fetch, fetch_digest
from ssna.folders import check_no_file
from ssna.sources import Format


@dataclass(frozen=True)
class Published:
    """Files that a publisher offers, in the order in which `prepare` takes them."""

    format: Format
    urls: tuple[str, ...]
    """`{}` stands for the category, of datasets that have several"""
    page: str
    """Where the publisher documents them, and says what they may be used for"""
    digest: str | None = None
    """Appended to an address, it gives that of a file with the digest"""
    sha256: str | None = None
    """Of its only file, where that never changes and is known"""
    example: str | None = None
    """A category"""


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_MCAULEY = "https://mcauleylab.ucsd.edu/public_datasets/data"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_STEAM = "https://cseweb.ucsd.edu/~wckang"

# GroupLens publishes only MD5s. Each of these is what at least three unrelated public repositories state that fetched
# the file, some of them after comparing its MD5. Those of `latest` change, so none is known.
_MOVIELENS_SHA256 = {
    "100k": "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    "1m": "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    "10m": "813c411ccb6122564edfe752e7f80c4dcc5aa25fa94c93622f6877a7ba252862",
    "20m": "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
    "25m": "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
    "32m": "e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
    "latest-small": None,
    "latest": None,
}

PUBLISHED: dict[str, Published] = {
    **{
        f"ml-{size}": Published(
            "movielens", (f"{_GROUPLENS}/ml-{size}.zip",), "https://grouplens.org/datasets/movielens/", ".md5", sha256
        )
        for size, sha256 in _MOVIELENS_SHA256.items()
    },
    "amazon-2014-CATEGORY": Published(
        "amazon",
        (f"{_SNAP}/reviews_{{}}_5.json.gz", f"{_SNAP}/meta_{{}}.json.gz"),
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
        example="Beauty",
    ),
    "amazon-2018-CATEGORY": Published(
        "amazon",
        (
            f"{_MCAULEY}/amazon_v2/categoryFilesSmall/{{}}_5.json.gz",
            f"{_MCAULEY}/amazon_v2/metaFiles2/meta_{{}}.json.gz",
        ),
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
        example="Industrial_and_Scientific",
    ),
    "amazon-2023-CATEGORY": Published(
        "amazon",
        (
            f"{_MCAULEY}/amazon_2023/raw/review_categories/{{}}.jsonl.gz",
            f"{_MCAULEY}/amazon_2023/raw/meta_categories/meta_{{}}.jsonl.gz",
        ),
        "https://amazon-reviews-2023.github.io",
        example="All_Beauty",
    ),
    "steam": Published(
        "steam",
        (f"{_STEAM}/steam_reviews.json.gz", f"{_STEAM}/steam_games.json.gz"),
        "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    ),
    "goodbooks-10k": Published(
        "goodbooks",
        ("https://github.com/zygmuntz/goodbooks-10k/releases/download/v1.0/goodbooks-10k.zip",),
        "https://github.com/zygmuntz/goodbooks-10k",
    ),
}  # fmt: skip
_CATEGORY = "CATEGORY"
NOTE = ".sha256"
"""Ending of the file beside each in which its SHA-256 is noted, as `sha256sum` writes it"""

Source = Literal["publisher", "ssna", "note"]


@dataclass(frozen=True)
class DownloadedFile:
    """A file that is there now."""

    path: Path
    url: str
    bytes: int
    sha256: str
    agrees_with: tuple[Source, ...]
    """Digests that it was held against: the publisher's, one that ssna knows, one noted by an earlier call"""
    was_there: bool
    """Whether an earlier download had brought it, so that nothing was fetched"""
    publisher_reached: bool
    """False if the file was there and its publisher could not be asked for a digest"""


@dataclass(frozen=True)
class Download:
    """The files of a dataset, in the order in which `prepare` takes them."""

    name: str
    format: Format
    files: tuple[DownloadedFile, ...]
    page: str
    """Of the publisher, with the terms of use"""


def download(
    name: str, folder: Path | str = ".", *, on_progress: Callable[[str, int, int | None], None] | None = None
) -> Download:
    """Fetch the files of a public dataset; what an earlier call brought is kept, and a part of a file completed.

    Each file is held against the digest that its publisher gives, the one that ssna knows, and the one that an earlier
    call noted beside it, as far as there are any; a file that was there too.

    Args:
        name: such as `ml-1m` or `amazon-2023-All_Beauty` (`ssna download --help` lists them).
        folder: where they go; made if it is missing.
        on_progress: called with a file's name, its bytes that are there, and those there will be (None if unknown).

    Raises:
        DownloadError: if the name is unknown, there is no network, or a file differs from a digest.
        OutputError: if a file stands where the folder should be.
    """
    published, category = _find(name)
    folder = Path(folder)
    check_no_file(folder)
    folder.mkdir(parents=True, exist_ok=True)
    progress = on_progress or (lambda file, done, total: None)
    files = []
    for template in published.urls:
        url = template.format(category)
        path = folder / url.rsplit("/", 1)[1]
        files.append(_file(url, path, published, partial(progress, path.name)))
    return Download(name, published.format, tuple(files), published.page)


def _find(name: str) -> tuple[Published, str]:
    """The dataset, and the category that its name ends in."""
    if name in PUBLISHED and _CATEGORY not in name:
        return PUBLISHED[name], ""
    for known, published in PUBLISHED.items():
        start = known.removesuffix(_CATEGORY)
        category = name.removeprefix(start)
        has_category = start != known and name.startswith(start)
        if has_category and name != known and re.fullmatch(r"\w+", category):
            return published, category
    raise DownloadError(
        f"no public dataset is called '{name}'; expected one of {', '.join(PUBLISHED)}. The publishers of others ask "
        "you to download them yourself (docs/datasets.md)."
    )


def _file(url: str, path: Path, published: Published, progress: Progress) -> DownloadedFile:
    was_there, reached, digest = path.is_file(), True, None
    if published.digest is not None:
        try:
            digest = fetch_digest(url + published.digest)
        except DownloadError:
            if not was_there:
                raise
            reached = False
    note = path.with_name(path.name + NOTE)
    known: dict[Source, Expected] = {}
    if digest is not None:
        known["publisher"] = Expected(digest, "its publisher", "the file has changed at its publisher.")
    if published.sha256 is not None:
        yourself = f"the file has changed at its publisher; download it from {published.page} yourself."
        known["ssna"] = Expected(published.sha256, "ssna", yourself)
    if note.is_file():
        known["note"] = _noted(note)
    expected = list(known.values())
    sha256 = check(path, expected) if was_there else fetch(url, path, expected, progress)
    if "note" not in known:
        write_atomically(note, f"{sha256}  {path.name}\n")
    return DownloadedFile(path, url, path.stat().st_size, sha256, tuple(known), was_there, reached)


def _noted(note: Path) -> Expected:
    digest = digest_in(note.read_bytes())
    if digest is None:
        raise DownloadError(f"{note} holds no SHA-256; expected what an earlier download noted. Remove it.")
    return Expected(digest, str(note), f"remove {note} to accept another version.")
