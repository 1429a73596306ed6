"""The statistics, choices and methods of the accuracy grid."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ssna import AdaptOptions, Dataset

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def scripts() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def test_holm_corrects_as_by_hand() -> None:
    from grid.statistics import holm

    # Sorted .01, .02, .03, .2: times 4, 3, 2, 1, and never less than the one before.
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_a_metric_of_each_user_from_ranks() -> None:
    from grid.statistics import per_user

    ranks = np.array([1, 3, 10, 11, 0])
    assert per_user(ranks, "recall@10").tolist() == [1, 1, 1, 0, 0]
    assert per_user(ranks, "ndcg@10") == pytest.approx([1, 0.5, 1 / np.log2(11), 0, 0])


def test_an_interval_is_that_of_resampling_one_by_one() -> None:
    from grid.statistics import compare

    rng = np.random.default_rng(1)
    ours, theirs = rng.random((2, 80)), rng.random((3, 80)) * 0.8
    found = compare(ours, theirs)
    assert found.difference == pytest.approx(ours.mean() / theirs.mean() - 1)
    differences = []
    for _ in range(4000):
        users = rng.integers(0, 80, 80)
        differences.append(ours.mean(axis=0)[users].mean() / theirs.mean(axis=0)[users].mean() - 1)
    assert found.interval == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.02)
    seeds = []
    for _ in range(4000):  # Of S seeds S - 1 are drawn.
        users = rng.integers(0, 80, 80)
        mine, others = ours[rng.integers(0, 2, 1)][:, users].mean(), theirs[rng.integers(0, 3, 2)][:, users].mean()
        seeds.append(mine / others - 1)
    assert found.with_seeds == pytest.approx(np.quantile(seeds, [0.025, 0.975]), abs=0.02)
    share = np.mean(np.array(differences) <= 0)
    assert found.p_value == pytest.approx(2 * min(share, 1 - share), abs=0.02)


def test_the_least_p_value_is_a_bound() -> None:
    from grid.statistics import RESAMPLES, compare

    found = compare(np.full((1, 50), 0.9), np.full((1, 50), 0.1))
    assert found.p_value == 2 / (1 + RESAMPLES)
    assert found.interval == found.with_seeds == pytest.approx((8, 8))


def line(
    method: str, valid: float, test: float, options: Mapping[str, Any], llms: tuple[str, ...] = ("minilm",)
) -> dict[str, Any]:
    from grid.cells import Cell, pack

    return {
        **asdict(Cell.of("d", llms, method, {"seed": 0, **options})), "dataset_name": "made-up",
        "valid": {"ndcg@10": valid}, "test": {"recall@10": test, "ndcg@10": test}, "best_epoch": 1, "candidates": 100,
        "trainable_parameters": 10, "ranks": pack(np.ones(40, np.uint8)), "rarity": pack(np.zeros(40, np.uint8)),
    }  # fmt: skip


def append_row(path: Path, method: str, valid: float, llms: tuple[str, ...] = ("minilm",)) -> None:
    """Three seeds of a method as it is by default, and the first one of two worse trials."""
    from lines import append_line

    for seed in range(3):
        append_line(path, line(method, valid, 0.1, {"seed": seed}, llms))
    for options in ({"dropout": 0.4}, {"blocks": 1}):
        append_line(path, line(method, 0.05, 0.1, options, llms))


def test_validation_chooses_where_test_says_otherwise() -> None:
    from grid.tables import best, outcomes_of

    lines = [line("mean", 0.2, 0.1, {}), line("mean", 0.1, 0.9, {"dropout": 0.4}), line("mean", 0.25, 0.1, {"seed": 1})]
    lines.append(line("mean", 0.1, 0.9, {"blocks": 1}))
    lines.append(line("mean", 0.9, 0.9, {"width": 128}))  # Of another search.
    lines.append(line("residual", 0.22, 0.9, {}))
    outcomes = outcomes_of(lines)
    mean = outcomes[0]
    assert [each["options"]["dropout"] for each in mean.lines] == [0.2, 0.2]
    assert mean.valid == pytest.approx(0.225)
    assert best(outcomes) is mean
    assert not mean.finished  # Of two seeds nothing is said yet.
    assert outcomes_of([*lines, line("mean", 0.2, 0.1, {"seed": 2})])[0].finished
    assert not outcomes[1].finished


def test_the_single_adapter_is_the_studied_method_with_one_layer(tmp_path: Path) -> None:
    from grid.cells import Results
    from grid.methods import METHODS, ONE_LAYER_OF_STUDIED, STUDIED
    from grid.tables import series_table, tables
    from lines import append_line

    from ssna.stage2_adapt.side_network import SideNetwork

    made = []
    for side in (METHODS[STUDIED].options["side"], METHODS[ONE_LAYER_OF_STUDIED].options["side"]):
        torch.manual_seed(0)
        made.append(SideNetwork(1, 8, 4, integration=side))
    states = torch.randn(1, 5, 8)
    torch.testing.assert_close(made[0](states), made[1](states), rtol=0, atol=0)
    path = tmp_path / "lines.jsonl"
    append_row(path, STUDIED, 0.3)
    append_row(path, ONE_LAYER_OF_STUDIED, 0.2)
    append_line(path, line(STUDIED, 0.25, 0.1, {"layers": 2}))
    append_line(path, line(STUDIED, 0.25, 0.1, {"layers": 3, "dropout": 0.4}))
    shown = tables(Results(path))
    assert shown.count("| SSNA, residual (minilm) | last layer, one adapter (minilm) | 3, 3 | recall@10 |") == 1
    assert "| SSNA, residual (minilm) | SSNA, residual, a = 1 (minilm) |" not in shown, "the same comparison once more"
    assert "| SSNA, residual, a = 1 (minilm) | 3 | .2000 |" in shown
    assert "| SSNA, residual, a = 2 (minilm) | 1 | .2500 |" in shown
    assert "a = 3" not in shown, "of other options than those that the method has chosen with all layers"
    series = series_table(Results(path)).splitlines()
    assert [series[0], series[2]] == [
        "| | 1 | 2 | all |",
        "| made-up, minilm | .2000 (3) | .2500 (1) | **.3000 (3)** |",
    ]


def test_two_llms_are_compared_with_one_and_with_a_layer_of_each(tmp_path: Path) -> None:
    from grid.cells import Results
    from grid.methods import FUSED
    from grid.tables import tables
    from lines import append_line

    path = tmp_path / "lines.jsonl"
    append_row(path, FUSED, 0.4, ("minilm", "gemma"))
    append_row(path, "residual", 0.3)
    append_row(path, "last-moe", 0.2)
    append_row(path, "last-moe", 0.1, ("mpnet",))
    for seed in range(3):
        append_line(path, line(FUSED, 0.25, 0.1, {"layers": 1, "seed": seed}, ("minilm", "gemma")))
    shown = tables(Results(path))
    ours = "| SSNA, residual, two LLMs (minilm + gemma) |"
    assert f"{ours} SSNA, residual (minilm) | 3, 3 | recall@10 |" in shown
    assert f"{ours} last layer, whitened, mixture of experts (UniSRec) (minilm) | 3, 3 | recall@10 |" in shown
    assert "| SSNA, residual, two LLMs, a = 1 (minilm + gemma) | 3 | .2500 |" in shown
    assert f"{ours} SSNA, residual, two LLMs, a = 1 (minilm + gemma), same options | 3, 3 | recall@10 |" in shown
    assert shown.count(f"{ours} last layer") == 2, "two metrics of one comparison: not with a layer of a third LLM"


def test_each_llms_layers_are_compared_with_the_best_of_its_one(tmp_path: Path) -> None:
    from grid.cells import Results
    from grid.tables import tables

    path = tmp_path / "lines.jsonl"
    found = {
        "minilm": {"residual": 0.5, "last-moe": 0.4, "last-whitened": 0.2},
        "mpnet": {"residual": 0.3, "last-moe": 0.1, "last-whitened": 0.2},
    }
    for llm, methods in found.items():
        for method, valid in methods.items():
            append_row(path, method, valid, (llm,))
    compared = [shown.split(" | ")[:2] for shown in tables(Results(path)).splitlines() if "| recall@10 |" in shown]
    assert compared == [
        ["| SSNA, residual (minilm)", "last layer, whitened, mixture of experts (UniSRec) (minilm)"],
        ["| SSNA, residual (mpnet)", "last layer, whitened, projected (after WhitenRec) (mpnet)"],
    ]


def test_both_models_of_ids_are_compared_whichever_is_better(tmp_path: Path) -> None:
    from grid.cells import Results
    from grid.tables import tables

    path = tmp_path / "lines.jsonl"
    append_row(path, "residual", 0.3)
    append_row(path, "ids", 0.1, ())
    append_row(path, "ids-gru4rec", 0.2, ())
    compared = [shown.split(" | ")[1] for shown in tables(Results(path)).splitlines() if "| recall@10 |" in shown]
    assert compared == ["item IDs, SASRec", "item IDs, GRU4Rec"]


def test_forms_are_compared_with_the_options_of_one_of_them(tmp_path: Path) -> None:
    from grid.cells import Cell, Results, Row
    from grid.tables import tables
    from lines import append_line

    ours = Row("d", ("minilm",), "residual", {}, 0)
    form = Row("d", ("minilm",), "mean", {"layers": 2}, 2, ours)
    path = tmp_path / "lines.jsonl"
    # By its own first seed the mean would go on with the dropout of 0.4.
    for options, residual, other in (({}, 0.3, 0.1), ({"dropout": 0.4}, 0.2, 0.25), ({"blocks": 1}, 0.2, 0.1)):
        assert form.repeated(Results(path)) == [], "nothing is chosen yet"
        append_line(path, line("residual", residual, residual, options))
        append_line(path, line("mean", other, other, options))
    options = {"dropout": 0.2, "blocks": 2, "layers": 2}
    assert form.trials() == []
    assert form.repeated(Results(path)) == [Cell.of("d", ("minilm",), "mean", {**options, "seed": s}) for s in (0, 1)]
    for seed in (1, 2):
        append_line(path, line("residual", 0.3, 0.3, {"seed": seed}))
    append_line(path, line("mean", 0.1, 0.1, {"seed": 1}))
    against = "| SSNA, residual (minilm) | adapters of all layers, averaged (minilm), same options |"
    assert against not in tables(Results(path)), "two seeds"
    append_line(path, line("mean", 0.1, 0.1, {"seed": 2}))
    shown = tables(Results(path))
    assert "| adapters of all layers, averaged (minilm) | 1 (unfinished) | 0.4, 2 | .2500 |" in shown
    assert "all with SSNA's options (dropout 0.2, blocks 2) |" in shown
    assert "| adapters of all layers, averaged (minilm) | 3 | .1000 |" in shown
    assert shown.count(f"{against} 3, 3 |") == 2


def test_an_llms_best_number_of_layers_gets_three_seeds(tmp_path: Path) -> None:
    from accuracy import best_depths
    from grid.cells import Results, Row
    from lines import append_line

    path = tmp_path / "lines.jsonl"
    append_row(path, "residual", 0.18)
    ours = Row("d", ("minilm",), "residual", {}, 0)
    series = [Row("d", ("minilm",), "residual", {"layers": a}, 1, ours) for a in (2, 3, 4)]
    for layers, valid in ((2, 0.1), (3, 0.2), (4, 0.15)):
        assert best_depths([ours, *series], Results(path)) == [], "not all numbers are there"
        append_line(path, line("residual", valid, 0.1, {"layers": layers}))
    assert best_depths([ours, *series], Results(path)) == [Row("d", ("minilm",), "residual", {"layers": 3}, 3, ours)]
    assert best_depths([ours, *series[::2]], Results(path)) == [Row("d", ("minilm",), "residual", {}, 3)], "all layers"


def test_cells_are_told_apart_by_every_option() -> None:
    from grid.cells import Cell, Row

    cell = Cell.of("d", ("minilm",), "mean", {"seed": 3})
    assert cell.options == {**asdict(AdaptOptions()), "side": "mean", "seed": 3}
    assert cell.changed == {"side": "mean", "seed": 3}
    assert len({each.key for each in Row("d", ("minilm",), "mean", {}, 3).trials()}) > 1


def test_equal_sizes_are_as_equal_as_they_can_be() -> None:
    from grid.methods import EQUAL, _size, width_of_equal_size

    wanted = _size("residual", 6, 384, None)
    for method in EQUAL:
        width = width_of_equal_size(method, 6, 384)
        side = method.removesuffix("-equal")
        sizes = [abs(_size(side, 6, 384, each) - wanted) for each in (width - 1, width, width + 1)]  # type: ignore[arg-type]
        assert min(sizes) == sizes[1]
        assert sizes[1] < 0.02 * wanted


def test_the_gated_side_network_is_iisans() -> None:
    from grid.methods import GatedAdapters

    torch.manual_seed(0)
    network, states = GatedAdapters(3, 8, 4), torch.randn(3, 5, 8)
    with torch.no_grad():
        network.gates.copy_(torch.tensor([0.02, -0.1, 0.3]))
        state = torch.zeros(5, 8)
        for layer in range(3):
            gate = torch.sigmoid(network.gates[layer] / 0.1)
            fused = gate * states[layer] + (1 - gate) * state
            inner = torch.nn.functional.gelu(fused @ network.down[layer] + network.down_bias[layer])
            state = fused + inner @ network.up[layer] + network.up_bias[layer]
        torch.testing.assert_close(network(states), network.norm(network.out(state)))


def test_the_tables_of_ones_own_results_leave_the_document_alone(tmp_path: Path) -> None:
    from accuracy import DOCUMENT, main

    path, before = tmp_path / "lines.jsonl", DOCUMENT.read_text()
    append_row(path, "residual", 0.3)
    done = CliRunner().invoke(main, ["table", "--results", str(path)])
    assert done.exit_code == 0, done.output
    assert "| SSNA, residual (minilm) | 3 | 0.2, 2 | .3000 |" in done.stdout
    assert DOCUMENT.read_text() == before


def test_mistakes_get_a_sentence(tmp_path: Path, dataset: Dataset, shared_cache_root: Path) -> None:
    from accuracy import main

    def said(*words: str | Path) -> str:
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code != 0
        assert isinstance(done.exception, SystemExit), done.exception
        return done.stderr

    run = ("run", dataset.path, "--cache-root", shared_cache_root, "--results", tmp_path / "lines.jsonl")
    assert "two-llms reads 2 LLMs, and --llm names 1." in said(*run, "--llm", "tiny-bert", "--method", "two-llms")
    assert said(*run, "--llm", "absent").startswith("Error: no cache ")
    assert "dataset.json" in said("run", tmp_path, "--cache-root", shared_cache_root, "--llm", "tiny-bert")
    assert "holds no finished cell" in said("table", "--results", tmp_path / "lines.jsonl")


def test_missing_cells_are_trained_once(
    tmp_path: Path, dataset: Dataset, shared_cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accuracy import main
    from grid import cells

    monkeypatch.setattr(cells, "commit", lambda: "abc")
    path = tmp_path / "lines.jsonl"
    words = ["run", str(dataset.path), "--llm", "tiny-bert", "--cache-root", str(shared_cache_root)]
    words += ["--method", "popularity", "--results", str(path)]
    first = CliRunner().invoke(main, words)
    assert first.exit_code == 0, first.output
    assert first.stderr.startswith("0 finished, 1 known to be missing\n")
    assert f"{dataset.path.name} popularity {{" in first.stderr
    assert first.stderr.endswith("1 finished, none missing\n")
    lines = path.read_text()
    assert CliRunner().invoke(main, words).stderr == "1 finished, none missing\n"
    assert path.read_text() == lines


def test_the_document_has_the_rows_of_the_results() -> None:
    from grid.cells import Results
    from grid.tables import _all_rows, by_dataset, outcomes_of, series_table

    results = Results(BENCHMARKS / "results" / "accuracy.jsonl")
    document = (BENCHMARKS.parent / "docs" / "accuracy.md").read_text()
    for table in (series_table(results), *(_all_rows(outcomes_of(lines)) for _, lines in by_dataset(results))):
        assert table in document, "run `python benchmarks/accuracy.py table`"
