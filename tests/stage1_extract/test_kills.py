"""Killed at random moments, an extraction loses nothing that was committed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ssna.cache import Cache, keys_of_texts
from tests.helpers import ssna
from tests.stage1_extract.kills import TEXTS

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


_SLOW = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # A test run in the background of a shell ignores it.
from ssna.cache import writer
from ssna.cli import main
from ssna.stage1_extract.frozen_llm import FrozenLLM

writer.commit_interval = lambda elapsed: 0.2
real = FrozenLLM.pooled_states
FrozenLLM.pooled_states = lambda self, ids, layers: (time.sleep(0.1), real(self, ids, layers))[1]
main()
"""


def kill_repeatedly(llm: Path, folder: Path, kills: int) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.stage1_extract.kills", str(llm), str(folder), str(kills), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=900)
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counts


def test_a_few_kills(tiny_llm: Path, tmp_path: Path) -> None:
    assert kill_repeatedly(tiny_llm, tmp_path, 6)["killed"] == 6


@pytest.mark.slow
def test_a_hundred_kills(tiny_llm: Path, tmp_path: Path) -> None:
    counts = kill_repeatedly(tiny_llm, tmp_path, 100)
    assert counts["killed"] == 100
    assert counts["partial"] >= 10, "kills fell into the work"


@pytest.mark.slow
def test_five_kills_of_the_full_command(tiny_llm: Path, tmp_path: Path) -> None:
    """Slowed down and committing often, so that each kill falls into the work."""
    pl.DataFrame({"item_id": TEXTS, "text": TEXTS}).write_parquet(tmp_path / "items.parquet")
    command = [sys.executable, "-c", _SLOW, "extract", str(tmp_path), "--llm", str(tiny_llm), "--batch-tokens", "64"]
    root, rng, keys = tmp_path / "caches", random.Random(0), keys_of_texts(TEXTS)
    environment = {**ENVIRONMENT, "SSNA_CACHE": str(root)}
    before = np.zeros(len(TEXTS), np.bool_)
    rows: dict[int, bytes] = {}
    for _ in range(5):
        segments = set(root.glob("*/segments/*.h5"))
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and set(root.glob("*/segments/*.h5")) <= segments:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 1))
            assert process.poll() is None, "it had ended before it was killed"
            process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        for path in root.glob("*/manifest.json"):
            cache = Cache.open(path.parent)
            there = cache.has(keys, 3)
            assert (there | ~before).all(), "no committed row has gone"
            states = cache.select(keys[there], 3).read()
            now = {int(i): row.tobytes() for i, row in zip(np.flatnonzero(there), states, strict=True)}
            assert all(now[i] == row for i, row in rows.items()), "no committed row has changed"
            assert len(now) > len(rows), "each run commits some more"
            before, rows = there, now
    assert len(rows) < len(TEXTS)
    assert ssna("extract", tmp_path, "--llm", tiny_llm, SSNA_CACHE=str(root)).returncode == 0
    assert ssna("extract", tmp_path, "--llm", tiny_llm, SSNA_CACHE=str(tmp_path / "unbroken")).returncode == 0
    (folder,), (unbroken,) = root.glob("*/"), (tmp_path / "unbroken").glob("*/")
    states, expected = (Cache.open(path).select(keys, 3).read() for path in (folder, unbroken))
    np.testing.assert_allclose(states, expected, rtol=2e-3, atol=2e-3)
