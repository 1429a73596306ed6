"""What `ssna prepare` holds of the largest public file that it is made for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "prepare_memory.py"


@pytest.mark.slow
def test_as_many_ratings_as_movielens_25m_has_are_prepared_within_8_gib() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(r"^25,000,095 interactions, .* as movielens: peak ([\d.]+) GiB resident", done.stdout, re.M)
    assert found is not None, done.stdout
    assert float(found[1]) < 8
