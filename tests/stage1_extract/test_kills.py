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
    pl.DataFrame({"item_id": TEXTS, "text": TEXTS}).write_parquet(tmp_path / "items.parquet")
    command = [str(Path(sys.executable).parent / "ssna"), "extract", str(tmp_path), "--llm", str(tiny_llm)]
    root, rng, keys = tmp_path / "caches", random.Random(0), keys_of_texts(TEXTS)
    environment = {**ENVIRONMENT, "SSNA_CACHE": str(root)}
    before = np.zeros(len(TEXTS), np.bool_)
    rows: dict[int, bytes] = {}
    for _ in range(5):
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(rng.uniform(1, 8))
            process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        for path in root.glob("*/manifest.json"):
            cache = Cache.open(path.parent)
            there = cache.has(keys, 3)
            assert (there | ~before).all(), "no committed row has gone"
            states = cache.read(keys[there], 3).states
            now = {int(i): row.tobytes() for i, row in zip(np.flatnonzero(there), states, strict=True)}
            assert all(now[i] == row for i, row in rows.items()), "no committed row has changed"
            before, rows = there, now
    assert ssna("extract", tmp_path, "--llm", tiny_llm, SSNA_CACHE=str(root)).returncode == 0
    (folder,) = root.glob("*/")
    assert Cache.open(folder).has(keys, 3).all()
