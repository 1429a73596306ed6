"""A cache of thousands of segments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssna.cache import Cache
from ssna.cache.segment import Rows, checksums_of, write_segment
from tests.cache.strategies import keys_for, make_cache, states_for

SEGMENTS = 5000
_READ = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
from ssna.cache import Cache, verify
from tests.cache.strategies import keys_for, states_for
for _ in range(2):  # Once with the index to be built, once with the saved one.
    cache = Cache.open(Path(sys.argv[1]))
    selected = cache.select(keys_for(range(int(sys.argv[2]))), 3)
    assert (selected.read() == states_for(range(int(sys.argv[2])))).all()
assert all(report.damage is None for report in verify(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_five_thousand_segments_are_read_under_a_limit_of_1024_open_files(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    states = states_for(range(SEGMENTS))
    keys, scales = keys_for(range(SEGMENTS)), np.ones((1, 3), np.float32)
    counts, cut = np.ones(1, np.uint32), np.zeros(1, np.bool_)
    for i in range(SEGMENTS):
        key, state = keys[i : i + 1], states[i : i + 1]
        rows = Rows(key, state, scales, counts, cut, checksums_of(key, state, scales, counts, cut))
        write_segment(cache.segments_folder, [rows], len(rows), cache.manifest.fingerprint, (3, 2, 1), "made-up")
    subprocess.run([sys.executable, "-c", _READ, str(cache.path), str(SEGMENTS)], check=True, timeout=600)
    assert len(Cache.open(cache.path)) == SEGMENTS
