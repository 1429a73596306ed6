"""One segment: an immutable HDF5 file with the rows of some texts, written once and memory-mapped when read."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ssna.cache.errors import CacheError, SegmentGoneError
from ssna.cache.files import (
    fsync_file,
    rename_without_replacing,
    sha256_of_file,
    telling_when_full,
    temporary_sibling,
)
from ssna.cache.keys import KEY_BYTES, Keys
from ssna.cache.mapping import map_file
from ssna.cache.precision import STORED_DTYPES, Floats

FORMAT_VERSION = 1
SUFFIX = ".h5"
_NAME_DIGITS = 16
# The states start on a page of their own, so that a reader that needs only them maps nothing else.
_ALIGN_FROM_BYTES, _ALIGN_TO_BYTES = 4096, 4096


@dataclass(frozen=True)
class Rows:
    """n rows of a cache with A layers of width D, as they are stored."""

    keys: Keys
    """uint8 (n, 16)"""
    states: npt.NDArray[np.generic]
    """float16, float32 or int8 (n, A, D), top layer first"""
    scales: Floats
    """float32 (n, A)"""
    token_counts: npt.NDArray[np.uint32]
    """(n,): tokens that the LLM read, special tokens included"""
    truncated: npt.NDArray[np.bool_]
    """(n,): whether the text had more tokens than the LLM read"""
    checksums: npt.NDArray[np.uint64]
    """(n,): `checksums_of` the fields above"""

    def __len__(self) -> int:
        """n."""
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        """Bytes of all fields."""
        return sum(field.nbytes for field in self.fields().values())

    def fields(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by the names that the file gives them."""
        return dict(vars(self))

    def take(self, rows: npt.NDArray[np.intp] | slice) -> Rows:
        """The rows at these positions."""
        return Rows(**{name: field[rows] for name, field in self.fields().items()})


def checksums_of(
    keys: Keys,
    states: npt.NDArray[np.generic],
    scales: Floats,
    token_counts: npt.NDArray[np.uint32],
    truncated: npt.NDArray[np.bool_],
) -> npt.NDArray[np.uint64]:
    """BLAKE2b of each whole row (key, states, scales, token count, truncated; little-endian), uint64 ``(n,)``."""
    digests = bytearray()
    fields = (keys, states, scales, token_counts[:, None], truncated[:, None])
    arrays = [np.ascontiguousarray(field) for field in fields]
    for row in range(len(keys)):
        checksum = hashlib.blake2b(digest_size=8)
        for array in arrays:
            checksum.update(array[row].data)
        digests += checksum.digest()
    return np.frombuffer(bytes(digests), "<u8").astype(np.uint64)


def name_of_digest(sha256: str) -> str:
    """A segment's name by the SHA-256 (hex) of its file."""
    return sha256[:_NAME_DIGITS]


def write_segment(
    folder: Path,
    parts: Iterable[Rows],
    count: int,
    fingerprint: str,
    layers: Sequence[int],
    llm: str,
    accepts: Callable[[str], bool] = lambda name: True,
) -> str:
    """Commit rows as one new segment; once this returns they survive a crash.

    Args:
        folder: the cache's `segments` folder.
        parts: the rows, part by part, of which no more than one is held at once.
        count: the number of rows in all parts together; at least one.
        fingerprint: of the cache that the rows belong to.
        layers: the LLM's block numbers (1 is the lowest), top first, one for each of the A layers.
        llm: where the LLM was loaded from, kept for the reader's information only.
        accepts: which names will do; the attribute `salt` is counted up until the file has such a name.

    Returns:
        The segment's name: the first 16 hex digits of the file's SHA-256, without the suffix.

    Raises:
        DiskFullError: if there is no room; nothing is left behind.
        OSError: if the folder cannot be written; nothing is left behind.
    """
    temporary = temporary_sibling(folder / f"new{SUFFIX}")
    try:
        with telling_when_full(folder):
            with _creating(temporary) as file:
                file.attrs["format_version"] = FORMAT_VERSION
                file.attrs["fingerprint"] = fingerprint
                file.attrs["layers"] = np.asarray(layers, "<i4")
                file.attrs["library_versions"] = json.dumps(library_versions(), sort_keys=True)
                file.attrs["llm"] = llm
                file.attrs["salt"] = 0
                written = 0
                for part in parts:
                    for name, field in part.fields().items():
                        if name not in file:
                            dtype = field.dtype if field.dtype == bool else field.dtype.newbyteorder("<")
                            file.create_dataset(name, (count, *field.shape[1:]), dtype)
                        file[name][written : written + len(part)] = field
                    written += len(part)
                if written != count:
                    raise ValueError(f"{written} rows were given, not {count}")
            while not accepts(name := name_of_digest(sha256_of_file(temporary))):
                with h5py.File(temporary, "r+", locking=False) as file:
                    file.attrs.modify("salt", int(file.attrs["salt"]) + 1)
            fsync_file(temporary)
        rename_without_replacing(temporary, folder / f"{name}{SUFFIX}")
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return name


class _ForgivingFile(io.FileIO):
    """A file that remembers a failed write instead of raising it.

    HDF5 cannot close a file whose last bytes it could not write, and then ends the process by a signal at its exit. So
    it is told that all went well, and the error is raised when the file is closed.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while len(left) and self.error is None:
            try:
                left = left[super().write(left) :]
            except OSError as error:
                self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def _creating(path: Path) -> Iterator[h5py.File]:
    with _ForgivingFile(path, "x+") as raw:
        with h5py.File(raw, "w", alignment_threshold=_ALIGN_FROM_BYTES, alignment_interval=_ALIGN_TO_BYTES) as file:
            yield file
        if raw.error is not None:
            raise raw.error


def library_versions() -> dict[str, str]:
    """Versions of what computes and writes states, for the segment's attributes."""
    versions = {"python": platform.python_version()}
    for name in ("ssna", "torch", "transformers", "tokenizers", "h5py", "numpy"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


@dataclass(frozen=True)
class Segment:
    """A segment that passed every check: its mapped rows and which layers they hold."""

    name: str
    layers: tuple[int, ...]
    rows: Rows


def list_segments(folder: Path) -> list[str]:
    """Names of the committed segments, sorted."""
    return sorted(path.stem for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))


def open_segment(folder: Path, name: str, fingerprint: str) -> Segment:
    """Check a segment's structure and map its rows; nothing of the states is read yet.

    Raises:
        SegmentGoneError: if the file is no longer there.
        CacheError: if it is not a segment of this cache, naming the file and what is wrong with it.
    """
    path = folder / f"{name}{SUFFIX}"
    try:
        with h5py.File(path, "r", locking=False) as file:
            layers = _check_attributes(path, file, fingerprint)
            places = {field: _place_of(path, file, field) for field in Rows.__dataclass_fields__}
        mapped = map_file(path)
    except CacheError:
        raise
    except Exception as error:  # Damaged HDF5 raises errors of many types; all mean the same here.
        if path.exists():
            raise damaged(path, f"cannot be read as HDF5 ({error})") from error
        raise segment_gone(path) from error
    arrays = {field: place.view(path, mapped) for field, place in places.items()}
    _check_shapes(path, arrays, len(layers))
    return Segment(name, layers, Rows(**arrays))


@dataclass(frozen=True)
class _Place:
    """Where in the file a contiguous dataset lies."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def view(self, path: Path, mapped: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        count = int(np.prod(self.shape, dtype=object))
        end = self.offset + count * self.dtype.itemsize
        if end > len(mapped):  # Reading past the end of a mapping would end the process by a signal.
            raise damaged(path, f"is cut short: {len(mapped)} bytes where {end} are needed")
        view = np.frombuffer(mapped, self.dtype, count, self.offset) if count else np.empty(0, self.dtype)
        return view.reshape(self.shape)


def _check_attributes(path: Path, file: h5py.File, fingerprint: str) -> tuple[int, ...]:
    version = file.attrs.get("format_version")
    if version != FORMAT_VERSION:
        raise damaged(path, f"has format version {version}; this ssna reads version {FORMAT_VERSION}")
    found = file.attrs.get("fingerprint")
    if found != fingerprint:
        raise damaged(path, f"belongs to the fingerprint {str(found)[:12]}, this cache is {fingerprint[:12]}")
    layers = np.atleast_1d(file.attrs.get("layers", ()))
    if layers.ndim != 1 or layers.dtype.kind not in "iu" or not len(layers):
        raise damaged(path, "has no list of layer numbers")
    top = int(layers[0])
    if top < len(layers) or layers.tolist() != list(range(top, top - len(layers), -1)):
        raise damaged(path, f"has the layer numbers {layers.tolist()[:9]}, expected them descending one by one")
    return tuple(layers.tolist())


def _place_of(path: Path, file: h5py.File, name: str) -> _Place:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise damaged(path, f"has no dataset '{name}' of its own")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise damaged(path, f"has a group where the dataset '{name}' belongs")
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_external_count() or dataset.is_virtual:
        raise damaged(path, f"stores '{name}' in another way than contiguously in the file itself")
    dtypes = _DTYPES[name]
    if dataset.dtype not in dtypes:
        raise damaged(path, f"stores '{name}' as {dataset.dtype}, expected {' or '.join(map(str, dtypes))}")
    offset = dataset.id.get_offset()
    if offset is None and dataset.size:
        raise damaged(path, f"has no bytes for '{name}'")
    return _Place(offset or 0, dataset.shape, dataset.dtype)


def _dtypes(*names: str) -> tuple[np.dtype[Any], ...]:
    return tuple(np.dtype(name).newbyteorder("<") for name in names)


_DTYPES = {
    "keys": _dtypes("uint8"),
    "states": _dtypes(*STORED_DTYPES),
    "scales": _dtypes("float32"),
    "token_counts": _dtypes("uint32"),
    "truncated": _dtypes("bool"),
    "checksums": _dtypes("uint64"),
}


def _check_shapes(path: Path, arrays: dict[str, npt.NDArray[Any]], num_layers: int) -> None:
    if arrays["states"].ndim != 3:
        raise damaged(path, f"has 'states' of shape {arrays['states'].shape}, expected three dimensions")
    n, _, width = arrays["states"].shape
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(arrays, (n,))
    expected |= {"keys": (n, KEY_BYTES), "states": (n, num_layers, width), "scales": (n, num_layers)}
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise damaged(path, f"has '{name}' of shape {array.shape}, expected {expected[name]}")


def wrong_rows(rows: Rows) -> list[int]:
    """Positions of the rows whose checksum does not fit their content."""
    found = checksums_of(rows.keys, rows.states, rows.scales, rows.token_counts, rows.truncated)
    positions: list[int] = np.flatnonzero(found != rows.checksums).tolist()
    return positions


def segment_gone(path: Path) -> SegmentGoneError:
    """What to raise of a listed segment that is no longer there."""
    return SegmentGoneError(f"{path}: the segment is gone; another process may have compacted the cache.")


def damaged(path: Path, what: str) -> CacheError:
    """What to raise of a file that cannot be a segment; `what` goes on after its path."""
    return CacheError(
        f"{path} {what}. It is not a sound segment of this cache: set it aside with `ssna cache verify --repair "
        f"{path.parent.parent}` and run `ssna extract` again, "
        "which computes its rows anew."
    )
