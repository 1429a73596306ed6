"""A segment that is not sound is refused with its name, never read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from ssna.cache import CacheError, DiskFullError
from ssna.cache.errors import SegmentGoneError
from ssna.cache.segment import Rows, checksums_of, open_segment, write_segment, wrong_rows

FINGERPRINT = "f" * 64


def make_rows(n: int = 3) -> Rows:
    rng = np.random.default_rng(0)
    fields = (
        rng.integers(0, 256, (n, 16), np.uint8),
        rng.normal(size=(n, 2, 4)).astype(np.float16),
        np.ones((n, 2), np.float32),
        np.arange(n, dtype=np.uint32),
        np.arange(n) % 2 == 0,
    )
    return Rows(*fields, checksums_of(*fields))


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    name = write_segment(tmp_path, [make_rows()], 3, FINGERPRINT, [2, 1], "made-up")
    return tmp_path / f"{name}.h5"


def test_what_was_written_is_read(segment: Path) -> None:
    read = open_segment(segment.parent, segment.stem, FINGERPRINT)
    assert read.layers == (2, 1)
    for name, field in make_rows().fields().items():
        np.testing.assert_array_equal(read.rows.fields()[name], field, strict=True)
    with pytest.raises(ValueError, match="read-only"):
        read.rows.states[0] = 0


def test_a_checksum_covers_every_byte_of_its_row() -> None:
    row = make_rows(1)
    joined = b"".join(
        np.ascontiguousarray(field).tobytes()
        for field in (row.keys, row.states, row.scales, row.token_counts, row.truncated)
    )
    assert row.checksums[0] == int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")
    for name in ("keys", "states", "scales", "token_counts", "truncated"):
        fields = {key: value.copy() for key, value in make_rows(3).fields().items()}
        fields[name][1:2].view(np.uint8).reshape(-1)[-1] ^= 1
        assert wrong_rows(Rows(**fields)) == [1], name


def test_equal_rows_written_twice_are_one_segment(segment: Path) -> None:
    again = write_segment(segment.parent, [make_rows()], 3, FINGERPRINT, [2, 1], "made-up")
    assert again == segment.stem
    assert [path.name for path in segment.parent.iterdir()] == [segment.name]


def test_rows_written_in_parts_are_the_same_segment(segment: Path) -> None:
    parts = (make_rows().take(part) for part in (slice(0, 1), slice(1, 3)))
    assert write_segment(segment.parent, parts, 3, FINGERPRINT, [2, 1], "made-up") == segment.stem


def test_fewer_rows_than_announced_are_not_committed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 rows were given, not 4"):
        write_segment(tmp_path, [make_rows()], 4, FINGERPRINT, [2, 1], "made-up")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ssna.cache.segment.fsync_file", full)
    with pytest.raises(DiskFullError, match="the disk is full"):
        write_segment(tmp_path, [make_rows()], 3, FINGERPRINT, [2, 1], "made-up")
    assert list(tmp_path.iterdir()) == []


def rewrite(path: Path, name: str, **options: object) -> None:
    with h5py.File(path, "r+") as file:
        data = file[name][:]
        del file[name]
        file.create_dataset(name, data=data, **options)


def replace(path: Path, name: str, data: object) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = data


def external(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["states"]
        outside = path.with_suffix(".raw")
        outside.write_bytes(bytes(48))
        file.create_dataset("states", (3, 2, 4), "<f2", external=[(str(outside), 0, 48)])


def virtual(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["keys"]
        layout = h5py.VirtualLayout((3, 16), "u1")
        layout[:] = h5py.VirtualSource(str(path), "other", shape=(3, 16))
        file.create_virtual_dataset("keys", layout)


def set_attribute(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(
            lambda p: p.write_bytes(p.read_bytes()[:-40]), "cannot be read as HDF5|is cut short", id="truncated"
        ),
        pytest.param(lambda p: p.write_bytes(b"not HDF5"), "cannot be read as HDF5", id="foreign"),
        pytest.param(lambda p: p.write_bytes(b""), "cannot be read as HDF5", id="empty"),
        pytest.param(lambda p: rewrite(p, "states", chunks=True), "another way than contiguously", id="chunked"),
        pytest.param(lambda p: rewrite(p, "scales", compression="gzip"), "another way", id="compressed"),
        pytest.param(external, "another way than contiguously", id="external"),
        pytest.param(virtual, "another way than contiguously", id="virtual"),
        pytest.param(
            lambda p: replace(p, "keys", h5py.ExternalLink("other.h5", "keys")), "no dataset 'keys'", id="external-link"
        ),
        pytest.param(lambda p: replace(p, "keys", h5py.SoftLink("/scales")), "no dataset 'keys'", id="soft-link"),
        pytest.param(lambda p: replace(p, "states", np.zeros((3, 2, 4))), "as float64, expected", id="dtype"),
        pytest.param(lambda p: replace(p, "scales", np.ones((2, 2), np.float32)), "shape", id="rows-differ"),
        pytest.param(lambda p: replace(p, "states", np.zeros((3, 5, 4), np.float16)), "shape", id="layers-differ"),
        pytest.param(
            lambda p: set_attribute(p, "fingerprint", "0" * 64), "belongs to the fingerprint 0000", id="other"
        ),
        pytest.param(lambda p: set_attribute(p, "format_version", 2), "format version 2; this", id="version"),
        pytest.param(lambda p: set_attribute(p, "layers", "three"), "no list of layer numbers", id="layers"),
    ],
)
def test_a_segment_that_is_not_sound_is_refused_by_name(
    segment: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(segment)
    with pytest.raises(CacheError, match=message) as caught:
        open_segment(segment.parent, segment.stem, FINGERPRINT)
    assert str(segment) in str(caught.value)
    assert "ssna extract" in str(caught.value)


def test_a_segment_that_is_gone_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SegmentGoneError, match="the segment is gone"):
        open_segment(tmp_path, "0" * 16, FINGERPRINT)
