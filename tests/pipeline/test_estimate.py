"""`ssna estimate`: its figures against hand counts, a real cache, and what PyTorch holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import ssna
from ssna.api import estimate as module
from ssna.cache import Cache
from ssna.devices import DeviceError
from ssna.stage1_extract import ExtractOptions, find_config, llm_size, loading_seconds
from ssna.stage2_adapt import AdaptOptions, OptionError
from tests.helpers import ssna_in_process

CPU = torch.device("cpu")


def as_json(*arguments: object) -> dict[str, object]:
    done = ssna_in_process("estimate", *map(str, arguments), "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_cache_is_as_large_as_a_real_one(tiny_llm: Path, shared_cache_root: Path) -> None:
    (folder,) = (path for path in shared_cache_root.iterdir() if path.is_dir())
    real = Cache.open(folder)
    found = as_json(tiny_llm, "--items", 24, "--tflops", 1)
    assert (found["blocks"], found["layers"], found["width"], found["items"]) == (3, 3, 16, 24)
    # What HDF5 says of itself takes a page or two, whatever the rows.
    assert 0 <= real.size_on_disk() - int(str(found["cache_bytes"])) < 16_384
    halved = as_json(tiny_llm, "--items", 24, "--tflops", 1, "--layers", 1, "--store", "float32")
    assert halved["cache_bytes"] == 24 * (16 * 4 + 4 + 29)


def test_the_time_at_a_given_speed_is_flop_over_speed_after_loading(tiny_llm: Path) -> None:
    found = as_json(tiny_llm, "--items", 1000, "--tokens", 12.5, "--tflops", 2e-6)
    assert found["extraction_measured"] is False
    assert found["tokens"] == 12_500
    seconds = found["flop"] / 2e6 + 3 + found["llm_bytes"] / 1e9  # type: ignore[operator]
    assert found["extraction_seconds"] == pytest.approx(seconds, abs=1e-3)
    cut = as_json(tiny_llm, "--items", 1000, "--tokens", 5000, "--max-tokens", 32, "--tflops", 1)
    assert cut["tokens"] == 32_000


def test_a_speed_is_that_of_a_gpu_elsewhere(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    found = ssna.estimate(tiny_llm, 1000, tflops=1)
    assert (found.device, found.compute_dtype, found.precision) == ("cuda", "bfloat16", "bfloat16")
    assert found.llm_bytes == 2 * found.parameters
    assert found.state_bytes == 1000 * 3 * 16 * 2
    assert ssna.estimate(tiny_llm, 1000, tflops=1, device="cuda") == found
    assert ssna.estimate(tiny_llm, 1000, tflops=1, device="cuda:3").step_bytes == found.step_bytes
    wide = ssna.estimate(
        tiny_llm, 1000, tflops=1,
        extract_options=ExtractOptions(dtype="float32"), adapt_options=AdaptOptions(precision="float32"),
    )  # fmt: skip
    assert (wide.device, wide.compute_dtype, wide.precision) == ("cuda", "float32", "float32")
    assert (wide.llm_bytes, wide.state_bytes) == (2 * found.llm_bytes, 2 * found.state_bytes)
    on_cpu = ssna.estimate(tiny_llm, 1000, tflops=1, device="cpu")
    assert (on_cpu.device, on_cpu.compute_dtype, on_cpu.precision) == ("cpu", "float32", "float32")
    with pytest.raises(DeviceError, match="--device gpu is unknown"):
        ssna.estimate(tiny_llm, 1000, tflops=1, device="gpu")
    with pytest.raises(DeviceError, match="--device cuda is not there"):
        ssna.estimate(tiny_llm, 1000, device="cuda")
    shown = ssna_in_process("estimate", tiny_llm, "--items", "1000", "--tflops", "1", "--device", "auto").stdout
    assert "elsewhere (cuda), bfloat16, from --tflops" in shown
    assert "elsewhere (cuda), bfloat16, of which:" in shown


def test_without_a_speed_a_part_of_the_llm_is_timed(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measured_seconds_a_token", lambda *arguments: 1e-3)
    found = ssna.estimate(tiny_llm, 50, tokens=10, device="cpu")
    assert found.extraction_measured
    assert found.extraction_seconds == pytest.approx(0.5 + 3, abs=1e-3)
    shown = ssna_in_process("estimate", tiny_llm, "--items", "50", "--device", "cpu").stdout
    assert "cpu, float32, measured on a part" in shown
    assert "cpu, float32, of which:" in shown


def test_loading_counts_weights_and_the_header_of_a_gguf_file(tiny_llm: Path) -> None:
    files = find_config(str(tiny_llm))
    size = llm_size(files)
    plain = loading_seconds(files, size, "float32", 5.0)
    assert plain == pytest.approx(3 + 4 * size.parameters / 1e9)
    assert loading_seconds(replace(files, gguf=tiny_llm), size, "float32", 5.0) == pytest.approx(plain + 4 * 5)


def test_states_beyond_the_memory_budget_are_not_held(tiny_llm: Path) -> None:
    every = as_json(tiny_llm, "--items", 1000, "--tflops", 1)
    assert every["state_bytes"] == 1000 * 3 * 16 * 4
    few = as_json(tiny_llm, "--items", 1000, "--tflops", 1, "--memory-budget", "50kB")
    assert few["state_bytes"] == 50_000
    assert few["training_bytes"] == int(str(every["training_bytes"])) - 1000 * 3 * 16 * 4 + 50_000
    assert as_json(tiny_llm, "--items", 1000, "--tflops", 1, "--memory-budget", "1GB") == every


def test_a_memory_budget_too_small_for_two_items_is_refused_as_adapt_does(tiny_llm: Path) -> None:
    at_least = 2 * 3 * 16 * 4
    assert ssna.estimate(tiny_llm, 1000, memory_budget=at_least, device="cpu", tflops=1).state_bytes == at_least
    with pytest.raises(OptionError, match="--memory-budget 383 bytes: .* one item take 192 bytes"):
        ssna.estimate(tiny_llm, 1000, memory_budget=at_least - 1, device="cpu", tflops=1)


def test_memory_of_training_by_hand(tiny_llm: Path) -> None:
    options = AdaptOptions(width=8, length=5, batch_size=2, loss="in-batch")
    found = ssna.estimate(tiny_llm, 1000, layers=2, adapt_options=options, device="cpu", tflops=1)
    assert found.state_bytes == 1000 * 2 * 16 * 4
    fewer = replace(options, components=5)
    assert ssna.estimate(tiny_llm, 1000, layers=2, adapt_options=fewer, device="cpu", tflops=1).state_bytes == 40_000
    assert found.training_bytes == found.state_bytes + found.model_bytes + found.step_bytes
    # Item vectors (and one for padding) and the logarithm of counts, and as much again when all items are scored.
    table = 4 * (1001 * 8 + 1000)
    parameters = found.model_bytes - 2 * table
    assert parameters % (6 * 4) == 0
    with_ids = ssna.estimate(
        tiny_llm, 1000, layers=2, adapt_options=AdaptOptions(**{**vars(options), "item_id": True}), device="cpu",
        tflops=1,
    )  # fmt: skip
    assert with_ids.model_bytes - found.model_bytes == 6 * 4 * 1000 * 8
    last = replace(options, averaging=0.0)
    without_average = ssna.estimate(tiny_llm, 1000, layers=2, adapt_options=last, device="cpu", tflops=1)
    assert found.model_bytes - without_average.model_bytes == parameters / 6


def test_components_and_negatives_count(tiny_llm: Path) -> None:
    plain = as_json(tiny_llm, "--items", 10_000, "--tflops", 1)
    components = as_json(tiny_llm, "--items", 10_000, "--tflops", 1, "--components", 5)
    assert components["state_bytes"] == 10_000 * 3 * 5 * 4
    negatives = as_json(tiny_llm, "--items", 10_000, "--tflops", 1, "--negatives", 100)
    assert negatives["state_bytes"] == plain["state_bytes"]
    assert int(str(negatives["step_bytes"])) < int(str(plain["step_bytes"]))


def test_bfloat16_on_a_cpu_halves_states_and_little_else(tiny_llm: Path) -> None:
    def of(precision: str, device: str) -> ssna.Estimate:
        options = AdaptOptions(precision=precision)  # type: ignore[arg-type]
        return ssna.estimate(tiny_llm, 1000, history=50, adapt_options=options, device=device, tflops=1)

    wide, narrow, mixed = of("float32", "cpu"), of("bfloat16", "cpu"), of("bfloat16", "cuda")
    assert 2 * narrow.state_bytes == wide.state_bytes
    assert 0.9 * wide.step_bytes < narrow.step_bytes < wide.step_bytes  # Only the copied states of a step's items.
    assert mixed.step_bytes < 0.9 * of("float32", "cuda").step_bytes


def test_what_a_step_holds_grows_with_its_items(tiny_llm: Path) -> None:
    def step(items: int, **changes: object) -> int:
        options = AdaptOptions(**{"loss": "softmax", **changes})  # type: ignore[arg-type]
        return ssna.estimate(tiny_llm, items, adapt_options=options, device="cpu", tflops=1).step_bytes

    ten, twenty, thirty, forty = (step(items) for items in (10_000, 20_000, 30_000, 40_000))
    assert thirty - twenty == pytest.approx(twenty - ten, rel=0.3)
    assert step(10_000, loss="in-batch", batch_size=16) < ten / 2
    assert forty < thirty, "of so many items the values are computed again"
    read = step(2_000_000, loss="in-batch") - step(1_000_000, loss="in-batch")
    assert read == 1_000_000 * module._DATASET_BYTES_AN_ITEM, "of so many items a step no longer holds more"


def test_held_bytes_of_a_known_network() -> None:
    network = nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 3))
    given = torch.zeros(10, 6)
    # GELU holds what it is given, the second map what GELU gives; the first one's input was given.
    assert module._held(network, lambda: network(given), given) == 4 * (10 * 4 + 10 * 4)


def test_the_table_says_what_is_what(tiny_llm: Path) -> None:
    done = ssna_in_process("estimate", tiny_llm, "--items", 1000, "--layers", 2, "--tflops", 1, "--device", "cpu")
    assert done.returncode == 0
    assert "3 layers of width 16, the top 2 kept; 1,000 texts, 20,000 tokens" in done.stdout
    for row in ("extraction, once", "cache", "training", "layer states", "model and optimiser", "a step"):
        assert row in done.stdout
    assert "elsewhere (cpu), float32, from --tflops" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--items", "0"], "--items 0: expected at least 1.", id="no-items"),
        pytest.param(["--items", "9", "--tokens", "0.5"], "--tokens 0.5: expected at least 1.", id="no-tokens"),
        pytest.param(["--items", "9", "--history", "0"], "--history 0: expected at least 1.", id="no-history"),
        pytest.param(["--items", "9", "--layers", "4"], "has 3 layers. Give 1 to 3, or all", id="layers"),
        pytest.param(
            ["--items", "9", "--max-tokens", "999"],
            "reads 3 to 64 tokens. Give a number in that range",
            id="max-tokens",
        ),
        pytest.param(["--items", "9", "--heads", "2"], "No such option '--heads'", id="unknown-option"),
        pytest.param([], "Missing option '--items'", id="items-missing"),
        pytest.param(["--items", "9", "--tflops", "0"], "0.0 is not in the range x>0", id="speed"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], message: str, tiny_llm: Path) -> None:
    done = ssna_in_process("estimate", tiny_llm, *arguments, "--device", "cpu")
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_llm_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = ssna_in_process("estimate", "no/such/folder", "--items", "9", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: there is no no/such/folder; expected the folder of a model")
