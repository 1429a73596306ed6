"""The command on a small made-up catalogue, from source files to recommendations."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

import ssna as api
from tests.helpers import Catalogue, Outcome, ssna, ssna_in_process, ssna_in_terminal

TINY = ["--width", "16", "--length", "6", "--batch-size", "16", "--learning-rate", "0.01", "--epochs", "12"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, catalogue: Catalogue, tiny_llm: Path) -> Path:
    """A folder in which the whole way has been gone with the installed command."""
    folder = tmp_path_factory.mktemp("workplace")
    for arguments in (
        ["prepare", catalogue.users, catalogue.items, "data", "--format", "sequences"],
        ["extract", "data", "--llm", tiny_llm, "--name", "tiny"],
        ["adapt", "data", "--llm", "tiny", "--output", "runs/text", *TINY],
    ):
        done = ssna(*arguments, cwd=folder, SSNA_CACHE="caches")
        assert done.returncode == 0, done.stderr
    for arguments in (
        ["adapt", "data", "--llm", "tiny", "--item-id", "--output", "runs/text-and-ids", *TINY],
        ["adapt", "data", "--side", "none", "--output", "runs/ids", *TINY],
        ["adapt", "data", "--model", "popularity", "--output", "runs/popularity"],
    ):
        as_json(folder, *arguments)
    return folder


def run(folder: Path, *arguments: str | Path) -> Outcome:
    return ssna_in_process(*arguments, cwd=folder, SSNA_CACHE="caches")


def as_json(folder: Path, *arguments: str | Path) -> Any:
    done = run(folder, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_second_extraction_finds_everything_cached(workplace: Path, tiny_llm: Path) -> None:
    done = run(workplace, "extract", "data", "--llm", tiny_llm)
    assert "24 distinct texts: all texts were already cached, 0 extracted" in done.stdout
    summary = as_json(workplace, "extract", "data", "--llm", tiny_llm)
    assert set(summary) == {
        "cache", "name", "fingerprint", "layers", "pooling", "texts", "cached", "extracted", "tokens", "padding",
        "truncated", "seconds", "bytes",
    }  # fmt: skip
    assert (summary["name"], summary["texts"], summary["cached"], summary["extracted"]) == ("tiny", 24, 24, 0)


@pytest.mark.parametrize("name", ["text", "text-and-ids", "ids", "popularity"])
def test_a_run_folder_holds_what_the_contract_says(workplace: Path, name: str) -> None:
    folder = workplace / "runs" / name
    files = {path.name for path in folder.iterdir()}
    expected = {
        "config.json", "model.safetensors", "items.parquet", "histories.parquet", "metrics.jsonl", "results.json",
    }  # fmt: skip
    assert files == expected | ({"checkpoint.safetensors"} if name != "popularity" else set())
    results = json.loads((folder / "results.json").read_text())
    assert {
        "test", "valid", "users", "candidates", "best_epoch", "epochs", "epoch_seconds", "total_seconds",
        "peak_memory_bytes", "trainable_parameters", "history_filtered",
    } <= set(results)  # fmt: skip
    assert {"recall@10", "ndcg@10"} <= set(results["test"]) & set(results["valid"])
    assert (results["users"], results["candidates"], results["history_filtered"]) == (60, 24, False)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, results["epochs"] + 1))
    config = json.loads((folder / "config.json").read_text())
    assert config["options"]["seed"] == 0
    assert (config["caches"] == []) == (name in ("ids", "popularity"))


def test_the_trained_models_beat_popularity(workplace: Path) -> None:
    metrics = {
        name: json.loads((workplace / "runs" / name / "results.json").read_text())["test"]["ndcg@10"]
        for name in ("text", "text-and-ids", "ids", "popularity")
    }
    assert min(metrics["text"], metrics["text-and-ids"], metrics["ids"]) > 1.5 * metrics["popularity"]


def test_evaluate_gives_the_metrics_of_training_from_the_folder_alone(workplace: Path, tmp_path: Path) -> None:
    for name in ("text", "popularity"):
        moved = Path(shutil.copytree(workplace / "runs" / name, tmp_path / name))
        results = json.loads((moved / "results.json").read_text())
        again = as_json(tmp_path, "evaluate", moved)
        assert again["test"] == results["test"]
        assert again["valid"] == results["valid"]
    table = run(workplace, "evaluate", "runs/text", "runs/popularity").stdout
    for name in ("text", "popularity"):
        recall = json.loads((workplace / "runs" / name / "results.json").read_text())["test"]["recall@10"]
        row, *groups = [line for line in table.splitlines() if line.split()[:1] == [f"runs/{name}"]]
        assert [line.split()[1] for line in groups] == ["head", "tail", "unseen"]
        assert f"{recall:.4f}" in row
    assert "history not filtered" in table


def test_filtering_the_history_is_recorded(workplace: Path) -> None:
    plain, filtered = (as_json(workplace, "evaluate", "runs/text", *flag) for flag in ([], ["--filter-history"]))
    assert (plain["history_filtered"], filtered["history_filtered"]) == (False, True)
    assert plain["test"] != filtered["test"]


def test_the_same_seed_and_threads_give_the_same_metrics(workplace: Path) -> None:
    again = as_json(workplace, "adapt", "data", "--llm", "tiny", "--output", "runs/again", *TINY)
    first = json.loads((workplace / "runs" / "text" / "results.json").read_text())
    assert (again["test"], again["valid"], again["best_epoch"]) == (first["test"], first["valid"], first["best_epoch"])


def test_fewer_layers_need_no_new_extraction(workplace: Path) -> None:
    as_json(workplace, "adapt", "data", "--llm", "tiny", "--layers", "2", "--output", "runs/two-layers", *TINY)
    config = json.loads((workplace / "runs" / "two-layers" / "config.json").read_text())
    assert config["caches"][0]["layers"] == [3, 2]
    assert load_file(workplace / "runs" / "two-layers" / "model.safetensors")["items.sides.0.mean"].shape == (2, 16)


def test_the_llm_may_be_named_by_its_path(workplace: Path, tiny_llm: Path) -> None:
    arguments = ["adapt", "data", "--llm", tiny_llm, "--output", "runs/by-path", *TINY, "--epochs", "1"]
    assert as_json(workplace, *arguments)["epochs"] == 1


def test_recommend_for_a_user_leaves_out_the_history(workplace: Path) -> None:
    histories = pl.read_parquet(workplace / "runs/text/histories.parquet")
    answer = as_json(workplace, "recommend", "runs/text", "--user", histories["user_id"][0], "--top", "24")
    past = [item["item_id"] for item in answer["history"]]
    assert len(past) == len(histories["history"][0])
    following = [item["item_id"] for item in answer["items"]]
    assert len(following) == len(set(following)) == 24 - len(set(past))
    assert not set(following) & set(past)
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


def test_recommend_for_a_history_agrees_with_the_user_of_that_history(workplace: Path) -> None:
    answer = as_json(workplace, "recommend", "runs/text", "--user", "u000", "--allow-repeats")
    history = [part for item in answer["history"] for part in ("--history", item["item_id"])]
    by_history = as_json(workplace, "recommend", "runs/text", *history, "--allow-repeats")
    assert by_history == answer
    table = run(workplace, "recommend", "runs/text", "--user", "u000", "--allow-repeats").stdout
    for item in [*answer["history"][-10:], *answer["items"]]:
        assert item["title"] in table


def test_tables_fit_an_80_column_terminal_without_losing_digits(workplace: Path, catalogue: Catalogue) -> None:
    shutil.copy(catalogue.users, workplace / "users.tsv")
    shutil.copy(catalogue.items, workplace / "items.tsv")
    prepare = ["prepare", "users.tsv", "items.tsv", "narrow", "--format", "sequences", "--min-user", "6"]
    by_row = {"prepare": ["→"], "evaluate": ["Coverage@10", "NDCG@20"], "compare": ["95 % interval", "p"]}
    by_row["cache"] = ["fingerprint", "stored as"]
    runs = ["runs/text-and-ids", "runs/popularity"]
    listing = ["cache", "list", "--cache-root", "caches"]
    for arguments in (prepare, ["evaluate", *runs], ["evaluate", *runs, *runs], ["compare", *runs], listing):
        shown = ssna_in_terminal(*arguments, cwd=workplace, NO_COLOR="1").rpartition("\x1b[2K")[2]  # After the bars.
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
        assert "…" not in shown
        table = [line for line in shown.splitlines() if "fingerprint" not in line and "/narrow" not in line]
        assert max(len(line.rstrip()) for line in table[:8]) <= 80
        assert all(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", shown) for name in by_row[arguments[0]]), shown


@pytest.fixture(scope="module")
def adapt_process(workplace: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own, whose last line on stdout names what it imported of `transformers`."""
    script = (
        "import sys; from ssna.cli import main\n"
        "try: main()\n"
        "finally: print([m for m in sys.modules if m.split('.')[0] in ('transformers', 'tokenizers')])"
    )
    arguments = ["adapt", "data", "--llm", "tiny", "--output", "runs/process", *TINY, "--epochs", "2"]
    return subprocess.run(
        [sys.executable, "-c", script, *arguments, "--cache-root", "caches"],
        cwd=workplace, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip


def test_an_adapt_process_never_imports_transformers(adapt_process: subprocess.CompletedProcess[str]) -> None:
    assert adapt_process.stdout.splitlines()[-1] == "[]"


def test_help_and_prepare_do_not_wait_for_pytorch() -> None:
    script = "import sys; from ssna.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    for arguments in (["--help"], ["download", "--help"], ["prepare", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, timeout=120
        )
        assert done.stdout.splitlines()[-1] == "False"


def test_a_cached_extraction_never_imports_transformers(workplace: Path, tiny_llm: Path) -> None:
    script = "import sys; from ssna.cli import main\ntry: main()\nfinally: print('transformers' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "extract", "data", "--llm", tiny_llm, "--cache-root", "caches"],
        cwd=workplace, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False"


def test_results_go_to_stdout_and_progress_to_stderr(adapt_process: subprocess.CompletedProcess[str]) -> None:
    assert "epoch   2   loss" in adapt_process.stderr
    assert "valid NDCG@10" in adapt_process.stderr
    assert "loss" not in adapt_process.stdout
    assert "Recall@10" in adapt_process.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "runs/text", "runs/popularity"],
        ["compare", "runs/popularity", "runs/text"],
        ["recommend", "runs/text", "--user", "u000"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_installed_command_prints_what_it_does_in_this_process(workplace: Path, arguments: list[str]) -> None:
    installed, here = ssna(*arguments, cwd=workplace), run(workplace, *arguments)
    assert (installed.returncode, installed.stdout, installed.stderr) == (here.returncode, here.stdout, here.stderr)
    assert installed.returncode == 0


def test_resume_finishes_starts_and_leaves_alone(workplace: Path) -> None:
    arguments = ["adapt", "data", "--side", "none", "--output", "runs/resumed", *TINY, "--resume"]
    (workplace / "runs/resumed").mkdir()
    first = as_json(workplace, *arguments)
    before = {path: path.stat().st_mtime_ns for path in (workplace / "runs/resumed").iterdir()}
    again = run(workplace, *arguments)
    assert again.returncode == 0
    assert "runs/resumed is finished already; nothing was done" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (workplace / "runs/resumed").iterdir()} == before
    (workplace / "runs/resumed/results.json").unlink()
    assert as_json(workplace, *arguments)["test"] == first["test"]
    other = run(workplace, *arguments, "--seed", "7")
    assert other.returncode == 1
    assert "runs/resumed cannot be resumed with --seed 7: it was started with --seed 0" in other.stderr
    assert "finished already" not in other.stderr


def test_cold_items_are_ranked_with_all_candidates(workplace: Path, catalogue: Catalogue, tiny_llm: Path) -> None:
    items = workplace / "more-items.tsv"
    items.write_text(catalogue.items.read_text() + "cold\talpine camera\n")
    run(workplace, "prepare", catalogue.users, items, "data-cold", "--format", "sequences")
    run(workplace, "extract", "data-cold", "--llm", tiny_llm)
    arguments = ["adapt", "data-cold", "--llm", "tiny", "--candidates", "all", "--output", "runs/cold", *TINY]
    assert as_json(workplace, *arguments, "--item-id")["candidates"] == 25
    answer = as_json(workplace, "recommend", "runs/cold", "--user", "u000", "--top", "25")
    assert "cold" in [item["item_id"] for item in answer["items"]]
    model = load_file(workplace / "runs/cold/model.safetensors")
    assert model["items.id_table"].shape == (24, 16), "no ID vector for an item without training interactions"


def test_python_functions_do_what_the_commands_do(workplace: Path, tiny_llm: Path, tmp_path: Path) -> None:
    options = api.AdaptOptions(width=16, length=6, batch_size=16, learning_rate=0.01, epochs=12)
    seen = []
    results = api.adapt(
        workplace / "data", tmp_path / "run", llm="tiny", cache_root=workplace / "caches", options=options, threads=1,
        device="cpu", on_epoch=seen.append,
    )  # fmt: skip
    command = json.loads((workplace / "runs/text/results.json").read_text())
    assert results["test"] == command["test"]
    assert len(seen) == results["epochs"]
    assert api.evaluate(tmp_path / "run")["test"] == results["test"]
    found = api.recommend(tmp_path / "run", history=["i1", "i2"], k=3)
    assert [item.title for item in found.history] == [
        api.recommend(workplace / "runs/text", history=[item]).history[0].title for item in ("i1", "i2")
    ]
    assert len(found.items) == 3


def test_whole_numbers_stand_for_ids_that_are_digits(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_id,item_id\n" + "".join(f"{u},{u + i}\n" for u in (1, 2) for i in range(4)))
    (tmp_path / "m.csv").write_text("item_id,title\n" + "".join(f"{i},no {i}\n" for i in range(1, 7)))
    api.prepare([tmp_path / "r.csv", tmp_path / "m.csv"], tmp_path / "data", format="table")
    api.adapt(tmp_path / "data", tmp_path / "run", options=api.AdaptOptions(model="popularity"))
    assert api.recommend(tmp_path / "run", user=2) == api.recommend(tmp_path / "run", user="2")
    assert api.recommend(tmp_path / "run", history=[2, 3]) == api.recommend(tmp_path / "run", history=["2", "3"])


def dataset_in_time(place: Path, rows: list[tuple[str, str, int]], folder: str) -> None:
    """Users, items and times as a dataset folder."""
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_parquet(place / "log.parquet")
    items = sorted({item for _, item, _ in rows})
    pl.DataFrame({"item_id": items, "title": [f"lamp {item}" for item in items]}).write_parquet(place / "lamps.parquet")
    arguments = ("log.parquet", "lamps.parquet", folder, "--format", "table", "--timestamp-unit", "s")
    assert run(place, "prepare", *arguments).returncode == 0


def by_turns(users: str, times: range) -> list[tuple[str, str, int]]:
    """Interactions of these users, one after the other, at these times."""
    return [(users[time % len(users)], f"i{time % 7}", time) for time in times]


def test_a_split_that_leaves_nobody_is_refused_before_anything_is_trained(workplace: Path) -> None:
    dataset_in_time(workplace, by_turns("abcd", range(8)), "pairs")
    dataset_in_time(
        workplace, [*by_turns("ab", range(80)), *by_turns("c", range(80, 90)), *by_turns("d", range(90, 100))], "relay"
    )
    longest = "interactions, and the longest of"
    for data, split, said in (
        (
            "data",
            "leave-last-90",
            f"that takes a history of 181 {longest} data has 9. Give at most --split leave-last-4.",
        ),
        (
            "data",
            "leave-last-5",
            f"that takes a history of 11 {longest} data has 9. Give at most --split leave-last-4.",
        ),
        (
            "pairs",
            "leave-one-out",
            f"that takes a history of 3 {longest} pairs has 2. Give a dataset with histories of at least 3 "
            "interactions.",
        ),
        (
            "relay",
            "time",
            "no user of relay has interactions both before and in a period that validates or tests. Give --split "
            "leave-one-out.",
        ),
    ):
        for model in (["--side", "none", *TINY], ["--model", "popularity"]):
            refused = run(workplace, "adapt", data, *model, "--split", split, "--output", "runs/nobody")
            expected = f"Error: --split {split} leaves nobody to validate or test: {said}\n"
            assert (refused.returncode, refused.stderr) == (1, expected)
    assert not (workplace / "runs/nobody").exists()
    deepest = ("adapt", "data", "--model", "popularity", "--split", "leave-last-4", "--output", "runs/deepest")
    assert as_json(workplace, *deepest)["users"] > 0


def test_a_split_that_only_tests_is_told(workplace: Path) -> None:
    rows = [*by_turns("ab", range(80)), *by_turns("c", range(80, 90)), *by_turns("ab", range(90, 100))]
    dataset_in_time(workplace, rows, "gap")
    done = run(
        workplace, "adapt", "gap", "--side", "none", *TINY, "--epochs", "1", "--split", "time", "--output", "runs/gap"
    )
    assert done.returncode == 0, done.stderr
    assert (
        "Nobody can be validated with --split time (no user has interactions both before and in the period that "
        "validates): training lasts 1 epoch, and the last one counts as the best.\n"
    ) in done.stderr
    assert "2 users evaluated" in done.stdout


def test_runs_that_do_not_compare_are_told_apart(workplace: Path) -> None:
    rows = [*by_turns("ab", range(90)), *by_turns("c", range(90, 100))]
    dataset_in_time(workplace, rows, "untested")
    nobody = ("adapt", "untested", "--side", "none", *TINY, "--epochs", "1", "--split", "time", "--output", "runs/no")
    assert run(workplace, *nobody).returncode == 0
    shown = run(workplace, "evaluate", "runs/text", "runs/no").stdout
    assert "runs/no: no users to test on, 7 candidates, split time, history not filtered\n" in shown
    assert "These runs were not tested on the same users and candidates: their metrics do not compare." in shown
    assert "nan" not in shown
    assert "do not compare" not in run(workplace, "evaluate", "runs/text", "runs/ids").stdout
    with pytest.raises(api.SsnaError, match="the history is the text '12'; expected a list of item ids"):
        api.recommend(workplace / "runs/text", history="12")
    with pytest.raises(api.SsnaError, match="the history is 0; expected a list of item ids"):
        api.recommend(workplace / "runs/text", history=0)  # type: ignore[arg-type]
    assert {"adapt", "evaluate", "recommend"} <= set(dir(api))


def test_a_reader_that_goes_is_no_failure_of_the_command(workplace: Path) -> None:
    """As `ssna evaluate … | head`: the status of a process that SIGPIPE ended, and no traceback."""
    for flags in ([], ["--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [str(Path(sys.executable).parent / "ssna"), "evaluate", "runs/popularity", *flags]
        done = subprocess.run(command, cwd=workplace, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, "")


def test_what_an_adapt_command_does_not_do_as_asked_is_told(workplace: Path) -> None:
    counted = ["adapt", "data", "--model", "popularity", "--output", "runs/counted", "--seed", "3"]
    done = run(workplace, *counted, "--epochs", "5", "--no-repeat-bias", "--resume")
    assert done.stderr.splitlines() == [
        "Without effect under --model popularity, which is counted and not trained: --epochs, --repeat-bias.",
        "runs/counted holds no run yet: one is started.",
    ]
    assert run(workplace, *counted, "--overwrite").stderr == ""
    trained = ["adapt", "data", "--output", "runs/unused", *TINY, "--epochs", "1", "--negatives", "9", "--overwrite"]
    done = run(workplace, *trained, "--side", "none", "--loss", "in-batch", "--activation", "relu")
    assert done.stderr.splitlines()[:2] == [
        "Without effect under --side none, which reads no LLM states: --activation.",
        "Without effect under --loss in-batch: --negatives.",
    ]
    unused = ["--side-width", "8", "--calibration", "1", "--id-dropout", "0.1"]
    done = run(workplace, *trained, "--llm", "tiny", "--side", "frozen", *unused)
    assert done.stderr.splitlines()[:3] == [
        "Without effect under --side frozen, which has no adapters: --side-width.",
        "Without effect under a model without --item-id: --id-dropout.",
        "Without effect under --loss sampled: --calibration.",
    ]


def test_the_saved_item_embeddings_are_of_the_best_epoch(workplace: Path) -> None:
    model = load_file(workplace / "runs/text/model.safetensors")
    items = pl.read_parquet(workplace / "runs/text/items.parquet")
    assert items["item_index"].to_list() == list(range(1, 25))
    assert model["sequence.item_embeddings"].shape == (25, 16)
    assert not model["sequence.item_embeddings"][0].any()
    assert np.isfinite(model["sequence.item_embeddings"]).all()


def test_intervals_and_popularity_are_told(workplace: Path) -> None:
    result = as_json(workplace, "evaluate", "runs/text", "--bootstrap", "200")
    low, high = result["intervals"]["ndcg@10"]
    assert low < result["test"]["ndcg@10"] < high
    assert sum(group["targets"] for group in result["test_by_popularity"].values()) == result["users"]
    table = run(workplace, "evaluate", "runs/text", "--bootstrap", "200").stdout
    assert re.search(rf"{low:.4f} to {high:.4f}", table)
    assert re.search(r"runs/text +unseen +\d", table)


def test_two_runs_are_compared_over_the_same_users(workplace: Path) -> None:
    found = as_json(workplace, "compare", "runs/popularity", "runs/text")["ndcg@10"]
    first, second = (as_json(workplace, "evaluate", run)["test"]["ndcg@10"] for run in ("runs/popularity", "runs/text"))
    assert (found["first"], found["second"]) == (pytest.approx(first), pytest.approx(second))
    assert found["low"] <= second - first <= found["high"]
    assert 0 < found["p_value"] <= 1
    same = as_json(workplace, "compare", "runs/text", "runs/text")["recall@10"]
    assert (same["difference"], same["low"], same["high"], same["p_value"]) == (0, 0, 0, 1)
    table = run(workplace, "compare", "runs/popularity", "runs/text").stdout
    assert "95 % interval" in table
    users = as_json(workplace, "evaluate", "runs/text")["users"]
    assert found["users"] == users
    assert f"{users} users" in table


def test_runs_with_other_targets_are_not_compared(workplace: Path) -> None:
    run(workplace, "adapt", "data", "--model", "popularity", "--split", "leave-last-2", "--output", "runs/last-two")
    refused = run(workplace, "compare", "runs/popularity", "runs/last-two")
    assert refused.returncode == 1
    assert "were not tested on the same users" in refused.stderr or "the same targets" in refused.stderr


def test_split_by_time_evaluates_users_with_interactions_in_the_test_period(workplace: Path, tiny_llm: Path) -> None:
    rows = [(f"u{u}", f"i{(u + step) % 6}", 100 * step + u) for u in range(10) for step in range(10)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_csv(workplace / "events.csv")
    pl.DataFrame({"item_id": [f"i{i}" for i in range(6)], "title": list("abcdef")}).write_csv(workplace / "things.csv")
    assert run(workplace, "prepare", "events.csv", "things.csv", "timed", "--format", "table").returncode == 0
    results = as_json(workplace, "adapt", "timed", "--side", "none", "--split", "time", "--output", "runs/timed", *TINY)
    assert results["users"] == 10


def test_streaming_gives_the_metrics_of_resident_states_and_says_so(workplace: Path) -> None:
    arguments = ["adapt", "data", "--llm", "tiny", "--output", "runs/streamed", *TINY, "--memory-budget", "1KB"]
    done = run(workplace, *arguments, "--json")
    assert "the layer states take 0 MB, more than the memory budget of 0 MB: they are streamed" in done.stderr
    resident = json.loads((workplace / "runs/text/results.json").read_text())
    assert json.loads(done.stdout)["test"] == resident["test"]


def test_a_study_of_layers_trains_a_run_for_each_and_goes_on(workplace: Path) -> None:
    arguments = ["adapt", "data", "--llm", "tiny", "--layers", "1,3", "--output", "runs/study", *TINY, "--epochs", "2"]
    study = as_json(workplace, *arguments)
    assert study == json.loads((workplace / "runs/study/study.json").read_text())
    assert [(entry["layers"], entry["run"]) for entry in study["runs"]] == [(1, "layers-1"), (3, "layers-3")]
    for entry in study["runs"]:
        folder = workplace / "runs/study" / entry["run"]
        assert json.loads((folder / "results.json").read_text()) == entry["results"]
        (cache,) = json.loads((folder / "config.json").read_text())["caches"]
        assert cache["layers"] == [3, 2, 1][: entry["layers"]]
    again = run(workplace, *arguments)
    assert "runs/study holds a study already. Go on with --resume" in again.stderr
    shutil.rmtree(workplace / "runs/study/layers-1")
    (workplace / "runs/study/.tmp-1-a").touch()  # As if it had been killed while it wrote study.json.
    resumed = run(workplace, *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "runs/study/layers-1: 1 layer" in resumed.stderr
    assert "runs/study/layers-3: 3" not in resumed.stderr
    assert "runs/study/layers-3" in resumed.stdout
    assert json.loads((workplace / "runs/study/study.json").read_text())["runs"][1] == study["runs"][1]
    arguments[arguments.index("1,3")] = "2,1"
    further = as_json(workplace, *arguments, "--resume")
    assert [entry["run"] for entry in further["runs"]] == ["layers-1", "layers-2", "layers-3"]
    other = run(workplace, *arguments, "--resume", "--seed", "5")
    assert other.stderr == (
        "Error: the study runs/study cannot be resumed with --seed 5: it was started with --seed 0. Give what it was "
        "started with, or another --output.\n"
    )
    single = run(workplace, "adapt", "data", "--llm", "tiny", "--layers", "1", "--output", "runs/study", "--resume")
    assert "runs/study is a study of layers. Give a list such as --layers 1,2 to go on with it" in single.stderr
    asked = run(workplace, "evaluate", "runs/study")
    assert asked.stderr == (
        "Error: runs/study is a study of layers. Give one of its runs: runs/study/layers-1, "
        "runs/study/layers-2, runs/study/layers-3.\n"
    )
    before = {path: path.read_bytes() for path in (workplace / "runs/study").rglob("*") if path.is_file()}
    wrong = run(
        workplace, "adapt", "nowhere", "--llm", "tiny", "--layers", "1,2", "--output", "runs/study", "--overwrite"
    )
    assert wrong.returncode == 1
    assert {path: path.read_bytes() for path in before} == before, "nothing goes before the inputs were found good"
    replaced = as_json(workplace, *arguments, "--overwrite", "--seed", "5")
    assert [entry["run"] for entry in replaced["runs"]] == ["layers-1", "layers-2"]
    options: Any = {"options": api.AdaptOptions(width=8, epochs=1), "llm": "tiny", "cache_root": workplace / "caches"}
    study = api.study_layers(workplace / "data", workplace / "runs/numpy", np.arange(1, 3), **options)  # type: ignore[assignment,arg-type]
    assert study == json.loads((workplace / "runs/numpy/study.json").read_text())
    assert [entry["layers"] for entry in study["runs"]] == [1, 2]
    assert sorted(path.name for path in (workplace / "runs/study").iterdir()) == ["layers-1", "layers-2", "study.json"]
    deeper = run(workplace, "adapt", "data", "--llm", "tiny", "--layers", "1,9", "--output", "runs/too-deep")
    assert "--layers 9: the cache" in deeper.stderr
    assert deeper.stderr.count("\n") == 1, "nothing is announced before all numbers were checked"
    with_all = run(workplace, "adapt", "data", "--llm", "tiny", "--layers", "all,9", "--output", "runs/too-deep")
    assert with_all.stderr == deeper.stderr
    assert not (workplace / "runs/too-deep").exists()


def test_each_llm_may_have_layers_and_widths_of_its_own(workplace: Path, tiny_llm: Path) -> None:
    assert run(workplace, "extract", "data", "--llm", tiny_llm, "--name", "other", "--prefix", "a ").returncode == 0
    two = ["adapt", "data", "--llm", "tiny", "--llm", "other", *TINY, "--epochs", "1", "--output", "runs/two"]
    widths = ["--side-width", "8", "--side-width", "24", "--components", "5", "--components", "all"]
    done = run(workplace, *two, "--layers", "1", "--layers", "3", *widths)
    assert done.returncode == 0, done.stderr
    tensors = load_file(workplace / "runs/two/model.safetensors")
    assert [tensors[f"items.sides.{number}.down"].shape for number in (0, 1)] == [(1, 5, 8), (3, 16, 24)]
    assert tensors["items.sides.0.projection"].shape == (1, 16, 5)
    wrong = run(workplace, *two, "--overwrite", "--layers", "1", "--layers", "2", "--layers", "3")
    assert "--layers was given 3 times, for 2 LLMs" in wrong.stderr
    study = [*two[:-1], "runs/two-study", "--side-width", "8", "--side-width", "24", "--layers", "1,2"]
    for flags in ([], ["--resume"]):  # What config.json has as lists is no difference.
        done = run(workplace, *study, *flags)
        assert done.returncode == 0, done.stderr


def test_two_texts_of_one_llm_are_fused(tmp_path: Path, catalogue: Catalogue, tiny_llm: Path) -> None:
    """Where an item has no second text the first stands in."""
    titles = dict(line.split("\t") for line in catalogue.items.read_text().splitlines())
    about = ["" if item == "i3" else f"{title.split()[0]} {item}" for item, title in titles.items()]
    items = pl.DataFrame({"item_id": list(titles), "title": list(titles.values()), "about": about})
    items.write_parquet(tmp_path / "items.parquet")
    histories = [line.split("\t") for line in catalogue.users.read_text().splitlines()]
    pairs = [(user, item) for user, history in histories for item in history.split()]
    pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row").write_parquet(tmp_path / "pairs.parquet")
    extract = ["extract", "data", "--llm", tiny_llm, "--name", "tiny"]
    for arguments in (["prepare", "pairs.parquet", "items.parquet", "data", "--format", "table"], extract):
        assert run(tmp_path, *arguments).returncode == 0

    both = ["adapt", "data", "--llm", "tiny", "--llm", "tiny", *TINY, "--epochs", "2", "--output", "run"]
    own, other = ["--text", "{text}"], ["--text", "{about}."]
    missing = run(tmp_path, *both, *own, *other)
    assert re.search(r"lacks 23 of the 24 items .*Run `ssna extract data .*--text '\{about\}\.' ", missing.stderr)
    planned = run(tmp_path, *extract, *other, "--dry-run")
    assert planned.stdout.startswith("24 distinct texts: 1 cached, 23 to extract")
    assert run(tmp_path, *extract, *other).returncode == 0
    done = run(tmp_path, *both, *own, *other)
    assert done.returncode == 0, done.stderr
    caches = json.loads((tmp_path / "run/config.json").read_text())["caches"]
    assert [cache["text"] for cache in caches] == ["{text}", "{about}."]
    assert caches[0]["fingerprint"] == caches[1]["fingerprint"]
    assert caches[0]["rows_digest"] != caches[1]["rows_digest"]
    model = load_file(tmp_path / "run/model.safetensors")
    assert not np.array_equal(model["items.sides.0.mean"], model["items.sides.1.mean"])

    for wrong, said in (
        ([*both, "--resume"], "name the same cache more than once"),
        ([*both, *own, *other, *own, "--resume"], "--text was given 3 times, for 2 LLMs"),
        (
            [*extract, "--text", "{nothing}"],
            "--text '{nothing}' names the field 'nothing', which is not in data/items.parquet (found: item_id, ",
        ),
        (
            [*both, *other, *own, "--resume"],
            "cannot be resumed with --text {about}. --text {text}: it was started with",
        ),
        (["adapt", "data", "--side", "none", *own, "--output", "ids"], "--text {text} goes with a side network"),
    ):
        failed = run(tmp_path, *wrong)
        assert said in failed.stderr
        assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "budget"), [([], []), (["--precision", "bfloat16", "--clip", "0.1"], ["--memory-budget", "1KB"])]
)
def test_processes_of_torchrun_train_one_run_together(
    workplace: Path, tmp_path: Path, changes: list[str], budget: list[str]
) -> None:
    """With streamed states as well, though one process has them resident."""
    arguments = ["adapt", "data", "--llm", "tiny", *TINY, "--epochs", "3", "--dropout", "0", *changes]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ssna"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SSNA_CACHE": "caches"}
    done = subprocess.run(
        [*command, *arguments, "--layers", "1,2", "--output", tmp_path / "together", "--json", *budget],
        capture_output=True, text=True, check=False, timeout=120, env=environment, cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("streamed from the cache" in done.stderr) == bool(budget)
    alone = as_json(workplace, *arguments, "--layers", "2", "--output", tmp_path / "alone")
    _, together = json.loads(done.stdout)["runs"]
    assert together["results"]["valid"] == pytest.approx(alone["valid"], abs=0.05)
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("alone", "together/layers-2")]
    losses = [[json.loads(line)["loss"] for line in text.splitlines()] for text in lines]
    # bfloat16 has 8 bits, and what they round off grows from step to step.
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-3)
    assert losses[1] == pytest.approx(losses[0], rel=2e-2 if budget else 1e-3)
