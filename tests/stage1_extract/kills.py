"""Kills an extraction again and again, and checks the cache after each kill. Run by test_kills.py as a process.

    python kills.py LLM FOLDER KILLS SEED

The extraction runs in a child that is forked from this process, in which everything is imported already, so that a kill
falls into the work and not into the imports. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from ssna.cache import Cache, keys_of_texts, verify, writer
from ssna.stage1_extract import ExtractOptions, extract_texts
from tests.helpers import WORDS

TEXTS = [f"{first} {second} {third}" for first in WORDS for second in WORDS for third in WORDS[:4]]
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONGEST = 0.6  # Seconds until a kill: about as long as an unbroken run takes.


def extract(llm: str, root: Path) -> None:
    options = ExtractOptions(batch_tokens=64)
    extract_texts(lambda: iter([(TEXTS, TEXTS)]), llm, root, None, options, "cpu", lambda done, total: None)


def child(llm: str, root: Path) -> None:
    """The extraction, as the command runs it."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        extract(llm, root)
    except KeyboardInterrupt:
        os._exit(130)
    os._exit(0)


def committed(root: Path) -> dict[int, bytes]:
    """The states of every text that is cached, by its number."""
    found = list(root.glob("*/manifest.json"))
    if not found:
        return {}
    keys = keys_of_texts(TEXTS)
    cache = Cache.open(found[0].parent)
    there = np.flatnonzero(cache.has(keys, 3))
    states = cache.select(keys[there], 3).read()
    return {int(number): row.tobytes() for number, row in zip(there, states, strict=True)}


def main() -> None:
    llm, folder, kills, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    rng = random.Random(seed)
    writer.commit_interval = lambda elapsed: 0.02
    extract(llm, folder / "unbroken")
    expected = committed(folder / "unbroken")
    killed = finished = partial = 0
    root, before = folder / "root-0", dict[int, bytes]()
    while killed < kills:
        process = os.fork()
        if process == 0:
            child(llm, root)
        time.sleep(rng.uniform(0, LONGEST))
        os.kill(process, rng.choice(SIGNALS))
        _, status = os.waitpid(process, 0)
        after = committed(root)
        for number, row in before.items():
            assert after.get(number) == row, f"the row of text {number} has changed or gone"
        for path in root.glob("*/manifest.json"):
            assert all(report.damage is None for report in verify(path.parent))
        partial += len(before) < len(after) < len(TEXTS)
        before = after
        for number, row in after.items():
            one, other = (np.frombuffer(states, np.float32) for states in (row, expected[number]))
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)
        if status == 0:
            assert len(after) == len(TEXTS)
            finished += 1
            root, before = folder / f"root-{finished}", {}
        else:
            killed += 1
    extract(llm, root)
    assert len(committed(root)) == len(TEXTS), "the next run completes the rest"
    print(json.dumps({"killed": killed, "finished": finished, "partial": partial}))


if __name__ == "__main__":
    main()
