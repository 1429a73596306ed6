"""`ssna cache`, and extraction by several processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssna
from ssna.cache import Cache, keys_of_texts
from ssna.dataset import Dataset
from tests.helpers import Outcome, ssna_in_process
from tests.stage1_extract.families import TWO_HEADS, make_llm


@pytest.fixture
def root(shared_cache_root: Path, tmp_path: Path) -> Path:
    """A copy of the caches that a test may change."""
    return Path(shutil.copytree(shared_cache_root, tmp_path / "caches"))


def cache_command(root: Path, *arguments: str) -> Outcome:
    return ssna_in_process("cache", *arguments, SSNA_CACHE=str(root))


def extract(root: Path, folder: Path, llm: Path | str, *options: str) -> Outcome:
    return ssna_in_process("extract", folder, "--llm", llm, *options, SSNA_CACHE=str(root))


def test_list_and_info_say_what_is_there(root: Path, dataset: Dataset) -> None:
    (listed,) = json.loads(cache_command(root, "list", "--json").stdout)
    assert (listed["name"], listed["layers"], listed["blocks"], listed["width"]) == ("tiny-bert", 3, 3, 16)
    assert listed["rows"] == dataset.items()["text"].n_unique()
    assert listed["bytes"] == sum(path.stat().st_size for path in root.glob("*/segments/*.h5"))
    assert "tiny-bert" in cache_command(root, "list").stdout
    assert json.loads(cache_command(root, "info", "tiny-bert", "--json").stdout) == [listed]
    empty = cache_command(root / "elsewhere", "list")
    assert (empty.returncode, "There is no readable cache in" in empty.stdout) == (0, True)


def test_damage_is_named_set_aside_and_filled_by_the_next_extraction(
    root: Path, dataset: Dataset, tiny_llm: Path
) -> None:
    sound = cache_command(root, "verify")
    assert (sound.returncode, "sound" in sound.stdout) == (0, True)
    (segment,) = root.glob("*/segments/*.h5")
    content = bytearray(segment.read_bytes())
    content[-100] ^= 4
    segment.write_bytes(content)
    bad = cache_command(root, "verify", "tiny-bert")
    assert bad.returncode == 1
    assert segment.stem in bad.stderr
    assert "1 damaged" in bad.stdout
    assert segment.exists(), "nothing is moved unless asked"
    repaired = cache_command(root, "verify", "--repair", "--json")
    (report,) = json.loads(repaired.stdout)
    assert (repaired.returncode, report["damaged"][0]["segment"]) == (1, segment.stem)
    assert Path(report["set_aside"][0]).exists()
    again = extract(root, dataset.path, tiny_llm, "--json")
    assert json.loads(again.stdout)["extracted"] == dataset.items()["text"].n_unique()
    assert cache_command(root, "verify").returncode == 0


def test_functions_take_what_the_commands_take(root: Path, tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = root.glob("*/")
    for which in ("tiny-bert", str(tiny_llm), tiny_llm, folder, str(folder)):
        assert ssna.describe_cache(which, cache_root=root).path == str(folder)
        assert ssna.verify_cache(which, cache_root=root).path == str(folder)
        assert ssna.compact_cache(which, cache_root=root) == ssna.Compaction(1, 1, 0)
    monkeypatch.setenv("SSNA_CACHE", str(root))
    assert ssna.verify_cache("tiny-bert").sound
    functions: list[Callable[[str], Any]] = [
        ssna.describe_cache, ssna.verify_cache, ssna.compact_cache, ssna.remove_cache,
    ]  # fmt: skip
    for function in functions:
        with pytest.raises(ssna.SsnaError, match="no cache below .* fits 'other' .found: tiny-bert"):
            function("other")
    ssna.remove_cache("tiny-bert")
    assert not folder.exists()


def test_compact_joins_segments(root: Path, dataset: Dataset, tiny_llm: Path) -> None:
    (folder,) = root.glob("*/")
    texts = dataset.items()["text"].to_list()
    before = Cache.open(folder).select(keys_of_texts(texts), 3).digest
    import polars as pl

    other = root.parent / "other"
    other.mkdir()
    pl.DataFrame({"item_id": ["x"], "text": ["camera lamp"]}).write_parquet(other / "items.parquet")
    extract(root, other, tiny_llm)
    done = cache_command(root, "compact", "--json")
    assert list(json.loads(done.stdout).values()) == [{"segments_before": 2, "segments_after": 1, "rows_dropped": 0}]
    assert Cache.open(folder).select(keys_of_texts(texts), 3).digest == before


def test_a_cache_that_was_moved_is_the_same_cache(root: Path, dataset: Dataset, tiny_llm: Path) -> None:
    moved = root.rename(root.with_name("moved"))
    done = extract(moved, dataset.path, tiny_llm, "--json")
    assert json.loads(done.stdout)["extracted"] == 0


def test_remove_asks_unless_told_yes(root: Path) -> None:
    (folder,) = root.glob("*/")
    command = [str(Path(sys.executable).parent / "ssna"), "cache", "remove", "tiny-bert"]
    asked = subprocess.run(
        command, input="n\n", capture_output=True, text=True, check=False, env={**os.environ, "SSNA_CACHE": str(root)}
    )
    assert (asked.returncode, folder.exists()) == (0, True)
    assert "kept" in asked.stderr
    assert cache_command(root, "remove", "tiny-bert", "--yes").returncode == 0
    assert not folder.exists()
    missing = cache_command(root, "remove", "tiny-bert", "--yes")
    assert missing.returncode == 1
    assert missing.stderr.count("\n") == 1


def test_a_damaged_manifest_is_named_by_verify(root: Path) -> None:
    (folder,) = root.glob("*/")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"mean"', '"last"'))
    done = cache_command(root, "verify")
    assert (done.returncode, f"{manifest} was changed by hand" in done.stderr) == (1, True)
    (report,) = json.loads(cache_command(root, "verify", "--json").stdout)
    assert (report["sound"], str(manifest) in report["error"]) == (False, True)


def test_remove_does_not_follow_a_link(root: Path, tmp_path: Path) -> None:
    (folder,) = root.glob("*/")
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)
    done = cache_command(root, "remove", "tiny-bert", "--yes")
    assert (done.returncode, "is a link to" in done.stderr) == (1, True)
    assert (elsewhere / "manifest.json").exists()


def test_remove_leaves_a_folder_that_holds_something_else(root: Path) -> None:
    (folder,) = root.glob("*/")
    (folder / "thesis.tex").touch()
    refused = cache_command(root, "remove", "tiny-bert", "--yes")
    assert (refused.returncode, "thesis.tex, which is no part of a cache" in refused.stderr) == (1, True)
    assert (folder / "manifest.json").exists()


def torchrun(root: Path, dataset: Dataset, llm: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ssna",
        "extract", str(dataset.path), "--llm", str(llm), "--cache-root", str(root), "--json", *options,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


def test_two_processes_divide_the_texts_and_say_so_once(
    tmp_path: Path, dataset: Dataset, tiny_llm: Path, shared_cache_root: Path
) -> None:
    done = torchrun(tmp_path, dataset, tiny_llm)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    texts = dataset.items()["text"].to_list()
    assert (result["texts"], result["extracted"]) == (len(set(texts)), len(set(texts)))
    cache, (alone,) = Cache.open(Path(result["cache"])), shared_cache_root.glob("*/")
    assert len(cache.index.segments) == 2
    expected = Cache.open(alone).select(keys_of_texts(texts), 3).read()
    np.testing.assert_allclose(cache.select(keys_of_texts(texts), 3).read(), expected, rtol=2e-3, atol=2e-3)
    assert json.loads(torchrun(tmp_path, dataset, tiny_llm).stdout)["extracted"] == 0


_ONE_DIES = """
import os, time
from pathlib import Path
from ssna.cache import writer
from ssna.cli import main
from ssna.stage1_extract.frozen_llm import FrozenLLM

writer.commit_interval = lambda elapsed: 1e9  # Nothing is committed before the end.
real, batches = FrozenLLM.pooled_states, 0
other_holds_rows = Path(__file__).with_name("other_holds_rows")

def slow(self, token_ids, layers):
    global batches
    batches += 1
    if os.environ["RANK"] == "1":
        while batches == 2 and not other_holds_rows.exists():
            time.sleep(0.05)
        if batches == 2:
            os._exit(9)
    elif batches == 2:
        other_holds_rows.touch()
        time.sleep(60)
    return real(self, token_ids, layers)

FrozenLLM.pooled_states = slow
main()
"""


def test_when_one_process_dies_the_others_commit_what_they_hold(
    tmp_path: Path, dataset: Dataset, tiny_llm: Path
) -> None:
    script = tmp_path / "one_dies.py"
    script.write_text(_ONE_DIES)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
        "extract", str(dataset.path), "--llm", str(tiny_llm), "--cache-root", str(tmp_path / "root"),
        "--batch-tokens", "16",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode != 0
    texts = dataset.items()["text"].unique().to_list()
    keys = keys_of_texts(texts)
    of_rank = np.array([int.from_bytes(key[:8].tobytes(), "big") % 2 for key in keys])
    (folder,) = (tmp_path / "root").glob("*/")
    there = Cache.open(folder).has(keys, 3)
    assert 0 < there.sum() < len(texts)
    assert (of_rank[there] == 0).all()
    again = extract(tmp_path / "root", dataset.path, tiny_llm, "--json")
    assert json.loads(again.stdout)["extracted"] == len(texts) - there.sum()


_ONE_TEXT_IS_BAD = """
import os, time
import numpy as np
from ssna.cli import main
from ssna.stage1_extract.frozen_llm import FrozenLLM

real, first = FrozenLLM.pooled_states, True

def spoil(self, token_ids, layers):
    global first
    states = real(self, token_ids, layers)
    if os.environ["RANK"] == "1" and first:
        states[0] = np.nan
    elif os.environ["RANK"] == "0":
        time.sleep(0.2)
    first = False
    return states

FrozenLLM.pooled_states = spoil
main()
"""


def test_a_text_that_the_llm_fails_on_does_not_stop_the_other_processes(
    tmp_path: Path, dataset: Dataset, tiny_llm: Path
) -> None:
    script = tmp_path / "one_is_bad.py"
    script.write_text(_ONE_TEXT_IS_BAD)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
        "extract", str(dataset.path), "--llm", str(tiny_llm), "--cache-root", str(tmp_path / "root"),
        "--batch-tokens", "16",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode != 0
    assert "the LLM gave inf or NaN for 1 of" in done.stderr
    keys = keys_of_texts(dataset.items()["text"].unique().to_list())
    (folder,) = (tmp_path / "root").glob("*/")
    assert (~Cache.open(folder).has(keys, 3)).sum() == 1, "all but the bad text"


_SLOW = """
import time
from ssna.cache import writer
from ssna.cli import main
from ssna.stage1_extract.frozen_llm import FrozenLLM

writer.commit_interval = lambda elapsed: 0.1
real = FrozenLLM.pooled_states
FrozenLLM.pooled_states = lambda self, ids, layers: (time.sleep(0.2), real(self, ids, layers))[1]
main()
"""


def test_of_two_independent_commands_the_survivor_is_unaffected(
    tmp_path: Path, dataset: Dataset, tiny_llm: Path, shared_cache_root: Path
) -> None:
    root = tmp_path / "root"
    command = [
        sys.executable, "-c", _SLOW, "extract", str(dataset.path), "--llm", str(tiny_llm), "--cache-root", str(root),
        "--batch-tokens", "16", "--json",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    victim, survivor = (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    )
    while victim.poll() is None and not list(root.glob("*/segments/*.h5")):
        time.sleep(0.02)
    victim.kill()
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL, "it had ended before it was killed"
    output, errors = survivor.communicate(timeout=300)
    assert survivor.returncode == 0, errors
    texts = dataset.items()["text"].unique().to_list()
    assert json.loads(output)["extracted"] == len(texts)
    (folder,), (alone,) = root.glob("*/"), shared_cache_root.glob("*/")
    expected = Cache.open(alone).select(keys_of_texts(texts), 3).read()
    found = Cache.open(folder).select(keys_of_texts(texts), 3).read()
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
    assert cache_command(root, "verify").returncode == 0


def without_override(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`ssna` by somebody who cannot write where the folder says so, which root can."""
    command = [str(Path(sys.executable).parent / "ssna"), *arguments, "--cache-root", str(root)]
    if os.geteuid() == 0:
        if (setpriv := shutil.which("setpriv")) is None:
            pytest.skip("root without setpriv writes everywhere")
        taken = "-dac_override,-dac_read_search"
        command = [setpriv, "--inh-caps", taken, "--bounding-set", taken, *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


def test_a_read_only_cache_is_used_and_tells_what_it_lacks(root: Path, dataset: Dataset, tiny_llm: Path) -> None:
    command = ("extract", str(dataset.path), "--llm", str(tiny_llm), "--json")
    (folder,) = root.glob("*/")
    for index in folder.glob("index-*"):
        index.unlink()
    places = [root, folder, folder / "segments"]
    for place in places:
        place.chmod(0o555)
    try:
        there = without_override(root, *command)
        lacking = without_override(root, *command, "--pooling", "cls", "--name", "cls")
        (folder / "segments").chmod(0o755)
        next(folder.glob("segments/*.h5")).unlink()
        (folder / "segments").chmod(0o555)
        empty = without_override(root, *command)
    finally:
        for place in places:
            place.chmod(0o755)
    assert (there.returncode, json.loads(there.stdout)["extracted"]) == (0, 0), there.stderr
    for refused, place in ((lacking, root), (empty, folder / "segments")):
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"Error: {place} cannot be written"), refused.stderr
    again = without_override(root, *command)
    assert json.loads(again.stdout)["extracted"] == dataset.items()["text"].n_unique()


def test_processes_can_share_the_weights_instead_of_the_texts(tmp_path: Path, dataset: Dataset) -> None:
    llm = make_llm(TWO_HEADS, tmp_path / "llama")
    done = torchrun(tmp_path / "shared", dataset, llm, "--tensor-parallel", "--store", "float32")
    assert done.returncode == 0, done.stderr
    alone = extract(tmp_path / "alone", dataset.path, llm, "--store", "float32", "--json")
    keys = keys_of_texts(dataset.items()["text"].to_list())
    one, other = (Cache.open(Path(json.loads(run.stdout)["cache"])).select(keys, 3).read() for run in (done, alone))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_prefix_and_template_exclude_each_other(dataset: Dataset, tiny_llm: Path, tmp_path: Path) -> None:
    both = extract(tmp_path, dataset.path, tiny_llm, "--prefix", "a", "--template", "b {text}")
    assert both.returncode == 2
    assert "--prefix and --template exclude each other" in both.stderr
    without = extract(tmp_path, dataset.path, tiny_llm, "--template", "no place")
    assert without.returncode == 1
    assert "expected {text} in it once" in without.stderr


def test_the_name_of_a_cache_is_no_llm_and_a_second_cache_of_a_name_is_refused(
    root: Path, dataset: Dataset, tiny_llm: Path
) -> None:
    slip = extract(root, dataset.path, "tiny-bert")
    assert (slip.returncode, "that is the name of the cache" in slip.stderr) == (1, True)
    assert str(tiny_llm) in slip.stderr
    (one,) = root.glob("*/")
    for flags in ([], ["--name", "tiny-bert"], ["--dry-run"]):
        refused = extract(root, dataset.path, tiny_llm, "--max-tokens", "32", "--prefix", "a ", *flags)
        assert (refused.returncode, refused.stdout, refused.stderr) == (
            1,
            "",
            f"Error: the name 'tiny-bert' is taken by the cache {one}, which was extracted otherwise (--max-tokens 64, "
            "not 32, with another --template). Give another --name, or remove that cache first: `ssna cache remove "
            f"{one}`.\n",
        )
    assert list(root.glob("*/")) == [one]
    assert cache_command(root, "remove", str(one), "--yes").returncode == 0
    assert extract(root, dataset.path, tiny_llm, "--max-tokens", "32").returncode == 0


def test_of_several_caches_of_an_llm_its_path_says_which_there_are(
    root: Path, dataset: Dataset, tiny_llm: Path
) -> None:
    assert extract(root, dataset.path, tiny_llm, "--store", "int8", "--name", "small").returncode == 0
    other, one = sorted(root.glob("*/"))
    for command in ("info", "verify", "compact", "remove"):
        refused = cache_command(root, command, str(tiny_llm))
        assert (refused.returncode, refused.stderr) == (
            1,
            f"Error: 2 caches below {root} fit '{tiny_llm}'; they differ in settings, which `ssna cache info` shows. "
            f"Give one by its folder: {other} or {one}.\n",
        )
    (found,) = json.loads(cache_command(root, "info", one.name, "--json").stdout)
    assert found["path"] == str(one)
    shown = cache_command(root, "info", one.name).stdout
    assert re.search(r"remote_code +no +\n", shown), shown


def test_a_misspelt_cache_is_told_what_there_is(root: Path) -> None:
    for command, name, advice in (
        ("info", "tiny-bret", "Did you mean tiny-bert?"),
        ("remove", "nope", "Give one of these, or another --cache-root."),
    ):
        wrong = cache_command(root, command, name)
        assert (wrong.returncode, wrong.stderr) == (
            1,
            f"Error: no cache below {root} fits '{name}' (found: tiny-bert). {advice}\n",
        )


def test_extraction_does_not_count_on_damaged_rows(root: Path, dataset: Dataset, tiny_llm: Path) -> None:
    (segment,) = root.glob("*/segments/*.h5")
    segment.write_bytes(segment.read_bytes()[:-1])
    done = extract(root, dataset.path, tiny_llm)
    assert (done.returncode, f"ssna cache verify --repair {segment.parent.parent}" in done.stderr) == (1, True)
    assert cache_command(root, "verify", "--repair").returncode == 1
    filled = extract(root, dataset.path, tiny_llm, "--json")
    assert json.loads(filled.stdout)["extracted"] == dataset.items()["text"].n_unique()


def test_a_cache_with_a_broken_manifest_can_be_removed(root: Path) -> None:
    (folder,) = root.glob("*/")
    (folder / "manifest.json").write_text("{")
    assert cache_command(root, "remove", str(folder), "--yes").returncode == 0
    assert not folder.exists()


def test_a_cache_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    missing = cache_command(tmp_path / "none", "verify")
    assert (missing.returncode, "there is no cache root" in missing.stderr) == (1, True)


def test_a_dry_run_says_what_would_be_done(dataset: Dataset, tiny_llm: Path, tmp_path: Path) -> None:
    shown = extract(tmp_path / "none", dataset.path, tiny_llm, "--dry-run")
    assert "0 cached, 24 to extract with 3 layers (mean pooling)" in shown.stdout
    assert "tokens of a missing text" in shown.stdout
    plan = json.loads(extract(tmp_path / "none", dataset.path, tiny_llm, "--dry-run", "--json").stdout)
    assert (plan["texts"], plan["missing"]) == (24, 24)
    assert not (tmp_path / "none").exists()
