"""`ssna.download`: public datasets from their publishers, where these have a stable address that anyone may use."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ssna.cache import sha256_of_file
from ssna.errors import DownloadError
from ssna.fetching import Progress, fetch, fetch_digest
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
    example: str | None = None
    """A category"""


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_MCAULEY = "https://mcauleylab.ucsd.edu/public_datasets/data"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_STEAM = "https://cseweb.ucsd.edu/~wckang"

PUBLISHED: dict[str, Published] = {
    **{
        f"ml-{size}": Published(
            "movielens", (f"{_GROUPLENS}/ml-{size}.zip",), "https://grouplens.org/datasets/movielens/", ".md5"
        )
        for size in ("100k", "1m", "10m", "20m", "25m", "32m", "latest-small", "latest")
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


@dataclass(frozen=True)
class DownloadedFile:
    """A file that is there now."""

    path: Path
    url: str
    bytes: int
    sha256: str
    checked: bool
    """Whether the publisher's own digest was compared; False where there is none"""
    was_there: bool
    """Whether an earlier download had brought it, so that nothing was fetched"""


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

    Args:
        name: such as `ml-1m` or `amazon-2023-All_Beauty` (`ssna download --help` lists them).
        folder: where they go; made if it is missing.
        on_progress: called with a file's name, its bytes that are there, and those there will be (None if unknown).

    Raises:
        DownloadError: if the name is unknown, there is no network, or a file is not what its publisher says.
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
        files.append(_file(url, path, published.digest, partial(progress, path.name)))
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


def _file(url: str, path: Path, digest: str | None, progress: Progress) -> DownloadedFile:
    was_there = path.is_file()
    expected = None
    if was_there:
        sha256 = sha256_of_file(path)
    else:
        expected = fetch_digest(url + digest) if digest is not None else None
        sha256 = fetch(url, path, expected, progress)
    return DownloadedFile(path, url, path.stat().st_size, sha256, expected is not None, was_there)
