"""Extraction against `transformers`' own hidden states, and its dealings with the cache."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ssna import SsnaError, extract
from ssna.cache import Cache, DiskFullError, keys_of_texts
from ssna.dataset import Dataset
from ssna.stage1_extract import (
    Extraction,
    ExtractOptions,
    LLMError,
    NameTakenError,
    NonFiniteStatesError,
    extract_texts,
    plan_texts,
)
from tests.helpers import WORDS, make_tiny_llm

TEXTS = ["alpine boot", "camera", "desk engine fiddle guitar hammer no 7", "ink jacket kettle", "x"]
OPTIONS = ExtractOptions(store="float32", batch_tokens=64)


def run(llm: Path, root: Path, texts: list[str] = TEXTS, name: str | None = None, **changes: object) -> Extraction:
    options = ExtractOptions(**{**vars(OPTIONS), **changes})
    items = [f"item-{i}" for i in range(len(texts))]
    return extract_texts(lambda: iter([(texts, items)]), str(llm), root, name, options, "cpu", lambda done, total: None)


def reference_states(llm: Path, text: str, max_tokens: int = 64) -> np.ndarray:
    """All layers' states of one text alone, pooled by hand over its tokens: (A, D), top layer first."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(llm)(text, return_tensors="pt", truncation=True, max_length=max_tokens)
    with torch.no_grad():
        output = AutoModel.from_pretrained(llm).eval()(**tokens, output_hidden_states=True)
    return np.stack([hidden[0].mean(dim=0).numpy() for hidden in output.hidden_states[:0:-1]])


def test_states_are_transformers_own_pooled_by_hand(tiny_llm: Path, tmp_path: Path) -> None:
    done = run(tiny_llm, tmp_path)
    selected = Cache.open(Path(done.cache)).select(keys_of_texts(TEXTS), 3)
    expected = np.stack([reference_states(tiny_llm, text) for text in TEXTS])
    # Another batch changes the order of float32 sums: 1e-6 is some units in the last place of states around 1.
    np.testing.assert_allclose(selected.read(), expected, rtol=1e-5, atol=1e-6)
    assert selected.layers == (3, 2, 1)


def test_the_summary_counts_texts_and_tokens(tiny_llm: Path, tmp_path: Path) -> None:
    done = run(tiny_llm, tmp_path, max_tokens=6)
    # [CLS] and [SEP] beside the words; the third text has more and "x" is a letter of the vocabulary.
    assert (done.texts, done.cached, done.extracted, done.tokens, done.truncated) == (5, 0, 5, 4 + 3 + 6 + 5 + 3, 1)
    assert done.layers == [3, 2, 1]
    assert done.bytes == sum(path.stat().st_size for path in Path(done.cache).glob("segments/*.h5"))
    cached = Cache.open(Path(done.cache)).select(keys_of_texts(TEXTS[2:3]), 3).read()[0]
    np.testing.assert_allclose(cached, reference_states(tiny_llm, TEXTS[2], max_tokens=6), rtol=1e-5, atol=1e-6)


def test_a_text_that_just_fits_is_not_truncated(tiny_llm: Path, tmp_path: Path) -> None:
    assert run(tiny_llm, tmp_path, ["alpine boot"], max_tokens=4).truncated == 0


def test_only_missing_texts_are_computed(tiny_llm: Path, tmp_path: Path) -> None:
    run(tiny_llm, tmp_path, TEXTS[:2])
    second = run(tiny_llm, tmp_path, TEXTS)
    assert (second.cached, second.extracted) == (2, 3)
    third = run(tiny_llm, tmp_path, TEXTS)
    assert (third.cached, third.extracted, third.tokens) == (5, 0, 0)


def test_fewer_layers_are_the_top_of_more_and_count_as_cached(tiny_llm: Path, tmp_path: Path) -> None:
    few = run(tiny_llm, tmp_path / "few", layers=2)
    everything = run(tiny_llm, tmp_path / "all")
    assert few.layers == [3, 2]
    assert few.fingerprint == everything.fingerprint
    keys = keys_of_texts(TEXTS)
    two, three = (Cache.open(Path(done.cache)).select(keys, a).read() for done, a in ((few, 2), (everything, 3)))
    np.testing.assert_array_equal(two, three[:, :2])
    assert run(tiny_llm, tmp_path / "all", layers=1).extracted == 0
    assert run(tiny_llm, tmp_path / "few", layers=3).extracted == 5


@pytest.mark.parametrize("change", [{"max_tokens": 32}, {"dtype": "bfloat16"}, {"store": "float16"}], ids=str)
def test_what_changes_a_state_changes_the_fingerprint(
    tiny_llm: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    assert run(tiny_llm, tmp_path, name="changed", **change).fingerprint != run(tiny_llm, tmp_path).fingerprint


def test_what_changes_no_state_does_not(tiny_llm: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_llm, tmp_path / "elsewhere" / "copy")
    first = run(tiny_llm, tmp_path / "root")
    second = run(copy, tmp_path / "root", batch_tokens=16, layers=1)
    assert second.cache == first.cache, "the same LLM in another folder uses the cache on"
    assert second.extracted == 0


def test_other_weights_have_another_cache(tiny_llm: Path, tmp_path: Path) -> None:
    other = make_tiny_llm(tmp_path / "tiny-bert", seed=1)
    first = run(tiny_llm, tmp_path / "root").cache
    assert run(other, tmp_path / "root", name="other").cache != first


def test_a_second_name_for_the_same_states_is_refused(tiny_llm: Path, tmp_path: Path) -> None:
    assert run(tiny_llm, tmp_path, name="mine").name == "mine"
    assert run(tiny_llm, tmp_path).name == "mine"
    with pytest.raises(LLMError, match="--name yours: the states of this LLM .* under the name 'mine'"):
        run(tiny_llm, tmp_path, name="yours")


def never_read() -> Iterator[tuple[list[str], list[str]]]:
    raise AssertionError("a text was read")


@pytest.mark.parametrize("name", ["mine", None])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_tokens": 32}, "--max-tokens 64, not 32"),
        ({"dtype": "bfloat16", "store": "int8"}, "--dtype float32, not bfloat16, --store float32, not int8"),
        ({"template": "a {text}"}, "with another --template"),
    ],
)
def test_a_name_for_other_states_is_refused_before_a_text_is_read(
    tiny_llm: Path, tmp_path: Path, name: str | None, change: dict[str, object], said: str
) -> None:
    taken = run(tiny_llm, tmp_path, name=name)
    options = ExtractOptions(**{**vars(OPTIONS), **change})
    message = (
        f"the name '{taken.name}' is taken by the cache {taken.cache}, which was extracted otherwise ({said}). Give "
        f"another --name, or remove that cache first: `ssna cache remove {taken.cache}`."
    )
    for refuse in (
        lambda: plan_texts(never_read, str(tiny_llm), tmp_path, name, options, "cpu"),
        lambda: extract_texts(never_read, str(tiny_llm), tmp_path, name, options, "cpu", lambda done, total: None),
    ):
        with pytest.raises(NameTakenError) as caught:
            refuse()
        assert str(caught.value) == message
    assert run(tiny_llm, tmp_path, name=caught.value.free_name, **change).name == caught.value.free_name


def test_another_llm_of_the_same_name_is_told_by_its_files(tiny_llm: Path, tmp_path: Path) -> None:
    other = make_tiny_llm(tmp_path / "tiny-bert", seed=1)
    taken = run(tiny_llm, tmp_path / "root")
    with pytest.raises(NameTakenError) as caught:
        run(other, tmp_path / "root")
    assert f"{taken.cache}, which was extracted otherwise (of {tiny_llm}, whose files differ)." in str(caught.value)


def test_the_manifest_says_what_the_states_are(tiny_llm: Path, tmp_path: Path) -> None:
    manifest = json.loads((Path(run(tiny_llm, tmp_path).cache) / "manifest.json").read_text())
    assert set(manifest["settings"]) == {
        "weights", "tokenizer", "config", "pooling", "compute_dtype", "max_tokens", "prefix", "suffix",
        "stored_dtype", "remote_code",
    }  # fmt: skip
    assert manifest["settings"]["max_tokens"] == 64
    assert manifest["llm"]["source"] == str(tiny_llm.resolve())
    assert (manifest["llm"]["blocks"], manifest["llm"]["state_width"]) == (3, 16)


@pytest.mark.parametrize("template", ["passage: {text}", "Item: {text}. Its category:"])
def test_a_template_is_what_the_llm_reads_and_the_key_is_the_text(
    tiny_llm: Path, tmp_path: Path, template: str
) -> None:
    done = run(tiny_llm, tmp_path, template=template)
    selected = Cache.open(Path(done.cache)).select(keys_of_texts(TEXTS), 3)
    expected = np.stack([reference_states(tiny_llm, template.replace("{text}", text)) for text in TEXTS])
    np.testing.assert_allclose(selected.read(), expected, rtol=1e-5, atol=1e-6)


def test_texts_are_read_in_blocks_and_each_distinct_one_once(tiny_llm: Path, tmp_path: Path) -> None:
    blocks = [(["camera", "desk"], ["a", "b"]), ([], []), (["desk", "camera", "boot"], ["c", "d", "e"])]
    options = ExtractOptions(store="float32")
    shown = list[tuple[int, int]]()
    done = extract_texts(
        lambda: iter(blocks), str(tiny_llm), tmp_path, None, options, "cpu", lambda *counts: shown.append(counts)
    )
    assert (done.texts, done.extracted, shown[-1]) == (3, 3, (3, 3))
    assert Cache.open(Path(done.cache)).has(keys_of_texts(["camera", "desk", "boot"]), 3).all()


def test_memory_that_is_too_small_halves_the_batches(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssna.stage1_extract.frozen_llm import FrozenLLM

    real, sizes = FrozenLLM.pooled_states, list[int]()

    def small(self: FrozenLLM, token_ids: list[list[int]], layers: int) -> np.ndarray:
        padded = len(token_ids) * len(token_ids[0])
        if padded > 24:
            raise torch.OutOfMemoryError("made up")
        sizes.append(padded)
        return real(self, token_ids, layers)

    texts = [f"{first} {second}" for first in WORDS for second in WORDS]  # 4 tokens each
    monkeypatch.setattr(FrozenLLM, "pooled_states", small)
    done = run(tiny_llm, tmp_path, texts, batch_tokens=400)
    assert done.extracted == len(texts)
    assert set(sizes[:-1]) == {24}
    cached = Cache.open(Path(done.cache)).select(keys_of_texts(texts), 3).read()
    np.testing.assert_allclose(cached[7], reference_states(tiny_llm, texts[7]), rtol=1e-5, atol=1e-6)
    with pytest.raises(LLMError, match="1 texts of up to 30 tokens do not fit into the memory of cpu"):
        run(tiny_llm, tmp_path, ["camera " * 28])


def test_a_plan_says_what_would_be_done_and_writes_nothing(tiny_llm: Path, tmp_path: Path) -> None:
    texts = [*TEXTS, TEXTS[0]]
    plan = plan_texts(lambda: iter([(texts, texts)]), str(tiny_llm), tmp_path / "root", None, OPTIONS, "cpu")
    assert not (tmp_path / "root").exists()
    assert (plan.texts, plan.cached, plan.missing, plan.layers) == (5, 0, 5, [3, 2, 1])
    run(tiny_llm, tmp_path / "root", TEXTS[:2])
    plan = plan_texts(lambda: iter([(texts, texts)]), str(tiny_llm), tmp_path / "root", None, OPTIONS, "cpu")
    assert (plan.texts, plan.cached, plan.missing) == (5, 2, 3)
    done = run(tiny_llm, tmp_path / "root")
    assert (plan.tokens, plan.truncated) == (done.tokens, done.truncated)
    assert plan.tokens_quantiles == {"min": 3, "25%": 5, "50%": 5, "75%": 10, "95%": 10, "99%": 10, "max": 10}
    row = 3 * 16 * 4 + 3 * 4 + 16 + 4 + 1 + 8
    assert plan.bytes == 3 * row


def test_what_the_disk_cannot_hold_is_not_begun(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DiskFullError, match="GB free, and the states of 5 texts need"):
        run(tiny_llm, tmp_path)
    assert not list(tmp_path.glob("*/"))


_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from ssna.cache import DiskFullError, writer
from ssna.stage1_extract import ExtractOptions, extract_texts

llm, root, texts = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split("|")
writer.COMMIT_BYTES = 4000  # Some ten rows of 3 layers of width 16 in float32.
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
options = ExtractOptions(store="float32", batch_tokens=16)
try:
    extract_texts(lambda: iter([(texts, texts)]), llm, root, None, options, "cpu", lambda done, total: None)
except DiskFullError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_says_how_much_is_needed_and_keeps_what_was_committed(tiny_llm: Path, tmp_path: Path) -> None:
    texts = [f"{first} {second}" for first in WORDS for second in WORDS]
    run(tiny_llm, tmp_path, texts[:20])  # Segments of ten rows fit under the limit, and the merged one does not.
    command = [sys.executable, "-c", _UNDER_A_LIMIT, str(tiny_llm), str(tmp_path), "|".join(texts), "9000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    (folder,) = tmp_path.glob("*/")
    cached = Cache.open(folder).has(keys_of_texts(texts), 3)
    left = len(texts) - cached.sum()
    assert cached.sum() >= 20
    assert f"The {left:,} texts that are left need" in done.stderr
    assert not list(folder.glob("segments/.tmp-*"))
    assert run(tiny_llm, tmp_path, texts).extracted == left


def test_an_llm_that_cannot_be_compiled_is_one_sentence(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    from ssna.stage1_extract.frozen_llm import FrozenLLM

    def fail(self: FrozenLLM, token_ids: list[np.ndarray], layers: int) -> np.ndarray:
        raise BackendCompilerFailed(fail, RuntimeError("no C++ compiler"), None)

    monkeypatch.setattr(FrozenLLM, "pooled_states", fail)
    with pytest.raises(LLMError, match="--compile: PyTorch could not compile .*tiny-bert"):
        run(tiny_llm, tmp_path)


def test_states_that_are_not_finite_are_an_error_that_keeps_the_others(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssna.stage1_extract.frozen_llm import FrozenLLM

    real = FrozenLLM.pooled_states

    def spoil(self: FrozenLLM, token_ids: list[list[int]], layers: int) -> np.ndarray:
        states = real(self, token_ids, layers)
        states[[len(tokens) == 10 for tokens in token_ids], 1, 0] = np.nan  # Only TEXTS[2] has 10 tokens.
        return states

    monkeypatch.setattr(FrozenLLM, "pooled_states", spoil)
    with pytest.raises(NonFiniteStatesError, match=r"inf or NaN for 1 of 5 texts \(items item-2\)"):
        run(tiny_llm, tmp_path)
    (folder,) = tmp_path.glob("*/")
    assert Cache.open(folder).has(keys_of_texts(TEXTS), 3).tolist() == [True, True, False, True, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 9}, "--layers 9: .* has 3 layers. Give 1 to 3, or all"),
        ({"layers": 0}, "--layers 0: .* has 3 layers"),
        ({"max_tokens": 65}, "--max-tokens 65: .* reads 3 to 64 tokens. Give a number in that range"),
        ({"max_tokens": 1}, "--max-tokens 1: .* reads 3 to 64"),
    ],
    ids=str,
)
def test_options_that_the_llm_cannot_follow_are_refused(
    tiny_llm: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(LLMError, match=message):
        run(tiny_llm, tmp_path, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"store": "bogus"}, "--store bogus: expected one of float16, float32, int8"),
        ({"dtype": "float8"}, "--dtype float8: expected one of auto"),
        ({"pooling": "max"}, "--pooling max: expected one of mean, last, cls"),
        ({"device_map": "cpu"}, "--device-map cpu: expected one of auto"),
        ({"batch_tokens": 0}, "--batch-tokens 0: expected at least 1"),
        ({"template": "no place"}, "expected {text} in it once"),
    ],
    ids=str,
)
def test_choices_that_there_are_not_are_refused(
    tiny_llm: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(LLMError, match=message):
        run(tiny_llm, tmp_path / "root", **change)
    assert not list(tmp_path.glob("root/*/"))


def test_weights_of_other_shapes_are_refused(tiny_llm: Path, tmp_path: Path) -> None:
    llm = Path(shutil.copytree(tiny_llm, tmp_path / "llm"))
    config = json.loads((llm / "config.json").read_text())
    (llm / "config.json").write_text(json.dumps({**config, "intermediate_size": 8}))
    with pytest.raises(LLMError, match="the weights have other shapes than BertModel with this config.json"):
        run(llm, tmp_path / "root")


def test_weights_that_leave_the_llm_partly_random_are_refused(tiny_llm: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    llm = Path(shutil.copytree(tiny_llm, tmp_path / "llm"))
    tensors = load_file(llm / "model.safetensors")
    del tensors["encoder.layer.1.attention.self.query.weight"]
    save_file(tensors, llm / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LLMError, match="the weights lack 1 of the LLM's tensors"):
        run(llm, tmp_path / "root")


def test_items_without_text_are_not_extracted(dataset: Dataset, tiny_llm: Path, tmp_path: Path) -> None:
    import polars as pl

    items = pl.DataFrame({"item_id": ["a", "b", "c"], "text": ["camera", "", "camera"]})
    items.write_parquet(tmp_path / "items.parquet")
    assert extract(tmp_path, tiny_llm, cache_root=tmp_path / "root", device="cpu").texts == 1
    items.with_columns(text=pl.lit("")).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(SsnaError, match="has no item with a text"):
        extract(tmp_path, tiny_llm, cache_root=tmp_path / "root", device="cpu")


_SLOW_EXTRACTION = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # A test run in the background of a shell ignores it.
from pathlib import Path
from ssna.cache import writer
from ssna.stage1_extract import ExtractOptions, extract_texts
from ssna.stage1_extract.frozen_llm import FrozenLLM

writer.commit_interval = lambda elapsed: 0.05
real = FrozenLLM.pooled_states
FrozenLLM.pooled_states = lambda self, ids, layers: (time.sleep(0.1), real(self, ids, layers))[1]
llm, root, texts = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split("|")
options = ExtractOptions(batch_tokens=8)
blocks = lambda: iter([(texts, texts)])
extract_texts(blocks, llm, root, None, options, "cpu", lambda done, total: print(done, flush=True))
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_killed_extraction_goes_on_from_its_last_commit(tiny_llm: Path, tmp_path: Path, kill: signal.Signals) -> None:
    texts = [f"{first} {second}" for first in WORDS for second in WORDS]
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", _SLOW_EXTRACTION, str(tiny_llm), str(killed), "|".join(texts)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 40:
            pass
        process.send_signal(kill)
        process.wait(60)
    assert process.returncode != 0
    time.sleep(0.1)
    keys = keys_of_texts(texts)
    (folder,) = killed.glob("*/")
    cache = Cache.open(folder)
    committed = cache.has(keys, 3)
    assert 0 < committed.sum() < len(texts)
    before = cache.select(keys[committed], 3)
    done = run(tiny_llm, killed, texts, store="float16")
    assert (done.cached, done.extracted) == (committed.sum(), (~committed).sum())
    after = Cache.open(folder)
    assert after.select(keys[committed], 3).digest == before.digest, "no committed row has changed"
    unbroken = Cache.open(Path(run(tiny_llm, tmp_path / "unbroken", texts, store="float16").cache))
    np.testing.assert_allclose(after.select(keys, 3).read(), unbroken.select(keys, 3).read(), rtol=2e-3, atol=2e-3)
