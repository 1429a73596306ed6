"""A user's mistakes: one clear sentence, an exit status other than 0, nothing half-written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
import pytest
import torch

from ssna import AdaptOptions, Dataset, ExtractOptions, adapt, extract, prepare
from ssna.cli import _LESS_MEMORY, cli
from ssna.cli.adapt import adapt_command
from ssna.stage2_adapt import load_tensors, save_tensors
from tests.helpers import Catalogue, ssna_in_process


@pytest.fixture
def place(tmp_path: Path, catalogue: Catalogue, dataset: Dataset, tiny_llm: Path, shared_cache_root: Path) -> Path:
    """An own folder with the source (`users.tsv`, `items.tsv`), the dataset (`data`), the LLM and its cache."""
    shutil.copy(catalogue.users, tmp_path / "users.tsv")
    shutil.copy(catalogue.items, tmp_path / "items.tsv")
    shutil.copytree(dataset.path, tmp_path / "data")
    shutil.copytree(tiny_llm, tmp_path / "llm")
    shutil.copytree(shared_cache_root, tmp_path / "caches")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pairs.tsv").write_text("u\ti1 i2 i3\n")
    prepare([tmp_path / "pairs.tsv", tmp_path / "items.tsv"], tmp_path / "pairs", format="sequences")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    return tmp_path


PREPARE = "prepare users.tsv items.tsv out --format sequences"
ADAPT = "adapt data --llm tiny-bert --output out --epochs 1"


def append(file: str, line: str) -> Callable[[Path], object]:
    def spoil(place: Path) -> None:
        with (place / file).open("a") as opened:
            opened.write(line)

    return spoil


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda place: (place / old).rename(place / new)


def nothing(place: Path) -> None:
    pass


def drop_text_column(place: Path) -> None:
    path = place / "data/items.parquet"
    pl.read_parquet(path).drop("text").write_parquet(path)


def add_item(place: Path) -> None:
    items, interactions = place / "data/items.parquet", place / "data/interactions.parquet"
    for path, row in ((items, {"item_id": "new", "text": "lamp", "title": "lamp"}), (interactions, {"item_id": "new"})):
        old = pl.read_parquet(path)
        last = old.tail(1).with_columns(**{name: pl.lit(value) for name, value in row.items() if name in old.columns})
        pl.concat([old, last]).write_parquet(path)


def unfinished_run(place: Path) -> None:
    adapt(place / "data", place / "out", llm="tiny-bert", cache_root=place / "caches", options=AdaptOptions(epochs=1))
    (place / "out/results.json").unlink()


def unfinished_run_and_other_cache(**options: str) -> Callable[[Path], object]:
    def spoil(place: Path) -> None:
        unfinished_run(place)
        chosen = ExtractOptions(**options)  # type: ignore[arg-type]
        extract(place / "data", place / "llm", name="other", cache_root=place / "caches", options=chosen, device="cpu")

    return spoil


def fewer_users(place: Path) -> None:
    prepare([place / "users.tsv", place / "items.tsv"], place / "fewer", format="sequences", min_user=6)


def two_runs(place: Path) -> None:
    """Of two datasets from the same files."""
    fewer_users(place)
    for dataset, run in (("data", "out"), ("fewer", "other")):
        adapt(place / dataset, place / run, options=AdaptOptions(model="popularity"))


CASES = [
    pytest.param(nothing, "prepare missing.tsv items.tsv out --format sequences", "missing.tsv: there is no such file", id="no-source"),
    pytest.param(nothing, "prepare llm out --format movielens", "llm has no ratings (found: config.json, ", id="no-movielens"),
    pytest.param(nothing, "prepare users.tsv out --format mind", "users.tsv is neither a folder nor a zip or tar; expected folders or zips of MIND", id="no-mind"),
    pytest.param(nothing, "prepare users.tsv items.tsv out --format amazon", "items.tsv: line 1 is neither JSON nor a Python literal", id="no-amazon"),
    pytest.param(nothing, "download ml-2m", "no public dataset is called 'ml-2m'; expected one of ml-100k", id="no-such-download"),
    pytest.param(nothing, "prepare missing out --format recbole", "missing: there is no such file or folder", id="no-source-folder"),
    pytest.param(nothing, "extract missing --llm llm", "the dataset folder missing does not exist", id="extract-no-dataset"),
    pytest.param(nothing, "adapt missing --llm tiny-bert --output out", "the dataset folder missing does not exist", id="adapt-no-dataset"),
    pytest.param(drop_text_column, "extract data --llm llm", "has the column 'text' not at all", id="no-text-column"),
    pytest.param(drop_text_column, ADAPT, "has the column 'text' not at all", id="adapt-no-text-column"),
    pytest.param(append("users.tsv", "u\tunheard-of\n"), PREPARE, "1 interactions are with 1 unknown items (unheard-of)", id="unknown-item"),
    pytest.param(lambda p: [append("users.tsv", "u\te\n")(p), append("items.tsv", "e\t \n")(p)], PREPARE, "1 interactions are with 1 items without text (e)", id="empty-text"),
    pytest.param(nothing, f"{ADAPT} --layers 9", "has 3 layers", id="adapt-too-many-layers"),
    pytest.param(nothing, "extract data --llm llm --layers 9", "has 3 layers. Give 1 to 3, or all", id="extract-too-many-layers"),
    pytest.param(add_item, ADAPT, "lacks 1 of the 25 items of data (new). Run `ssna extract data --llm ", id="not-cached"),
    pytest.param(nothing, "extract data --llm empty", "empty holds no model: config.json is missing", id="no-model"),
    pytest.param(nothing, "extract data --llm ./nowhere", "there is no ./nowhere; expected the folder of a model", id="no-model-folder"),
    pytest.param(rename("llm/model.safetensors", "llm/pytorch_model.bin"), "extract data --llm llm", "only pickle weights (pytorch_model.bin)", id="pickle"),
    pytest.param(nothing, ADAPT.replace("output out", "output llm") + " --overwrite", "llm is not empty and is no run folder", id="overwrite-an-llm"),
    pytest.param(lambda p: (p / "llm/model.safetensors").write_bytes(b"version https://git-lfs"), "extract data --llm llm --cache-root new", "cannot be loaded by transformers", id="damaged-weights"),
    pytest.param(lambda p: (p / "llm/tokenizer.json").write_text("{}"), "extract data --llm llm --cache-root new", "cannot be loaded by transformers", id="damaged-tokenizer"),
    pytest.param(lambda p: (p / "llm/tokenizer.json").unlink(), "extract data --llm llm --cache-root new", "has no tokenizer", id="no-vocabulary"),
    pytest.param(nothing, PREPARE.replace("out", "full"), "full exists and is not empty", id="prepare-output-full"),
    pytest.param(nothing, ADAPT.replace("output out", "output full"), "full exists and is not empty", id="adapt-output-full"),
    pytest.param(nothing, ADAPT.replace("output out", "output full") + " --overwrite", "full is not empty and is no run folder", id="overwrite-not-ours"),
    pytest.param(nothing, f"{PREPARE} --text {{brand}}", "--text '{brand}' names the field 'brand', which is not in items.tsv (found: item_id, title)", id="template-field"),
    pytest.param(lambda p: (p / "items.tsv").write_bytes(b"a\tcaf\xe9\n"), PREPARE, "items.tsv is not utf-8 text: byte 0xe9 in line 1", id="encoding"),
    pytest.param(nothing, f"{PREPARE} --min-user 1000", "no interaction is left with at least 1000 a user", id="k-core"),
    pytest.param(nothing, "adapt data --side none --output out --split time", "--split time needs the time of every interaction", id="no-timestamps"),
    pytest.param(nothing, "adapt data --output out", "expected --llm or --cache, found neither", id="no-llm"),
    pytest.param(nothing, "adapt data --llm unheard-of --output out", "no cache below caches fits 'unheard-of' (found: tiny-bert)", id="no-cache"),
    pytest.param(nothing, "adapt data --cache empty --output out", "empty is not a cache", id="not-a-cache"),
    pytest.param(nothing, "adapt data --side none --llm tiny-bert --output out", "--side none reads no LLM states", id="llm-for-nothing"),
    pytest.param(nothing, f"{ADAPT} --device cuda:7", "--device cuda:7 is not there", id="no-gpu"),
    pytest.param(nothing, f"{ADAPT} --device abacus", "--device abacus is unknown", id="no-such-device"),
    pytest.param(nothing, f"{ADAPT} --device cuda", "--device cuda is not there: PyTorch", id="no-gpu-at-all", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")),
    pytest.param(nothing, f"{ADAPT} --layers 1,2,x", "'--layers': found 'x', expected a whole number or 'all'. See `ssna adapt --help`", id="layers-are-numbers"),
    pytest.param(nothing, f"{ADAPT} --layers 1,1", "--layers names the same number twice. Give each once", id="layers-twice"),
    pytest.param(nothing, f"{ADAPT} --layers 1,0", "--layers 0: expected at least 1", id="no-layers"),
    pytest.param(nothing, "adapt data --side none --layers 2 --output out", "--layers 2 goes with a side network; this model reads no LLM states", id="layers-for-nothing"),
    pytest.param(nothing, f"{ADAPT} --side-width x", "'--side-width': found 'x', expected a whole number or 'all'", id="side-width-is-a-number"),
    pytest.param(nothing, f"{ADAPT} --side-width 8 --side-width 9", "--side-width was given 2 times, for 1 LLM.", id="side-width-of-two"),
    pytest.param(nothing, f"{ADAPT} --fusion gate", "--fusion gate weighs the parts of an item vector, of which there is one here", id="gate-of-one-part"),
    pytest.param(nothing, "adapt data --side none --output out --fusion gate", "--fusion gate weighs the parts of an item vector, of which there is one here", id="gate-of-ids"),
    pytest.param(nothing, f"{ADAPT} --heads 3", "--width 64 cannot be divided among --heads 3; make it a multiple", id="heads"),
    pytest.param(nothing, f"{ADAPT} --negatives 0", "--negatives 0: expected at least 1", id="no-negatives"),
    pytest.param(nothing, f"{ADAPT} --split nonsense", "--split nonsense: expected one of leave-one-out, leave-last-K, time", id="no-such-split"),
    pytest.param(nothing, f"{ADAPT} --memory-budget nonsense", "found 'nonsense', expected an amount of memory such as 500MB, 4GB or 2GiB", id="memory-is-an-amount"),
    pytest.param(nothing, f"{ADAPT} --time-limit -1", "'--time-limit': -1.0 is not in the range x>0", id="time-is-positive"),
    pytest.param(nothing, f"{ADAPT} --sides gru", "No such option '--sides'. (Did you mean", id="no-such-option"),
    pytest.param(nothing, "adapt", "Missing argument 'DATASET'. See `ssna adapt --help`", id="no-argument"),
    pytest.param(nothing, "adpat data", "No such command 'adpat'. Did you mean adapt? See `ssna --help`", id="no-such-command"),
    pytest.param(nothing, "--json evaluate out", "No such option --json; options of a command come after its name", id="option-before-command"),
    pytest.param(nothing, "prepare users.tsv items.tsv out", "Missing option '--format'. Choose from: table, sequences, recbole,", id="no-format"),
    pytest.param(lambda p: [(p / "r.csv").write_text("user_id,item_id\nu,a\n"), (p / "m.csv").write_text("item_id,title\na,A\n")], "prepare m.csv r.csv out --format table", "r.csv has the column 'user_id' of interactions, and m.csv has not. Name the interactions' file first", id="files-swapped"),
    pytest.param(lambda p: (p / "r.csv").write_text("user_id,item_id\nu,a\n"), "prepare r.csv r.csv out --format table", "r.csv is named as interactions and as items", id="a-file-twice"),
    pytest.param(nothing, ADAPT.replace("data", "empty"), "empty has no dataset.json; expected a folder made by `ssna prepare`", id="not-a-dataset"),
    pytest.param(nothing, ADAPT.replace("data", "users.tsv"), "the dataset folder users.tsv is a file; expected a folder", id="dataset-is-a-file"),
    pytest.param(nothing, ADAPT.replace("output out", "output users.tsv"), "users.tsv is a file; expected the name of a new or empty folder", id="output-is-a-file"),
    pytest.param(nothing, ADAPT.replace("output out", "output users.tsv") + " --resume", "users.tsv is a file; expected the name of a new or empty folder", id="resume-a-file"),
    pytest.param(nothing, ADAPT.replace("output out", "output users.tsv") + " --layers 1,2", "users.tsv is a file; expected the name of a new or empty folder", id="study-in-a-file"),
    pytest.param(nothing, ADAPT.replace("output out", "output llm") + " --resume", "llm holds no run to resume. Give the folder of a run, or a new one", id="resume-an-llm"),
    pytest.param(unfinished_run, ADAPT.replace("--epochs 1", "--item-id --resume"), "out cannot be resumed with --item-id: it was started without --item-id", id="resume-with-ids"),
    pytest.param(unfinished_run, f"{ADAPT} --resume --layers 2", "out cannot be resumed with --layers 2: it was started without --layers", id="resume-other-layers"),
    pytest.param(unfinished_run, f"{ADAPT} --resume --epochs 2", "out cannot be resumed with --epochs 2: it was started with --epochs 1", id="resume-other-epochs"),
    pytest.param(lambda p: [unfinished_run(p), fewer_users(p)], ADAPT.replace("data", "fewer") + " --resume", "fewer: it was started with ", id="resume-other-dataset"),
    pytest.param(unfinished_run_and_other_cache(store="float32"), ADAPT.replace("tiny-bert", "other") + " --resume", " (--store float16, not float32). Give what it was started with", id="resume-other-dtype"),
    pytest.param(unfinished_run_and_other_cache(pooling="last"), ADAPT.replace("tiny-bert", "other") + " --resume", " (--pooling mean, not last). Give what it was started with", id="resume-other-pooling"),
    pytest.param(unfinished_run_and_other_cache(pooling="cls"), f"{ADAPT} --llm other --resume", "out cannot be resumed with --llm tiny-bert and --llm other: it was started with --llm tiny-bert", id="resume-two-llms"),
    pytest.param(nothing, f"{ADAPT} --overwrite --resume", "--overwrite and --resume exclude each other", id="both"),
    pytest.param(nothing, "adapt pairs --side none --output out", "no user has two interactions to train on", id="nothing-to-train-on"),
    pytest.param(nothing, "evaluate missing", "the run folder missing does not exist", id="no-run"),
    pytest.param(nothing, "evaluate empty", "empty has no config.json", id="not-a-run"),
    pytest.param(unfinished_run, ADAPT, "out holds an unfinished run. Go on with --resume", id="adapt-unfinished"),
    pytest.param(nothing, "evaluate users.tsv", "the run folder users.tsv is a file; expected a folder made by `ssna adapt`", id="run-is-a-file"),
    pytest.param(nothing, "evaluate llm", "llm is no run folder", id="evaluate-an-llm"),
    pytest.param(two_runs, "compare out other", "out and other were not tested on the same users (found ", id="compare-other-datasets"),
    pytest.param(unfinished_run, "compare out out", "out is not finished (it has no results.json)", id="compare-unfinished"),
    pytest.param(unfinished_run, "evaluate out", "out is not finished (it has no results.json)", id="unfinished"),
    pytest.param(nothing, "recommend missing --user u000", "the run folder missing does not exist", id="recommend-no-run"),
]  # fmt: skip


def files_below(place: Path) -> dict[str, int]:
    """Every file with its date, but for the memory of file hashes, which any command may write."""
    files = (path for path in place.rglob("*") if path.is_file() and path.name != "file-hashes.json")
    return {str(path): path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize(("spoil", "command", "message"), CASES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    place: Path,
    spoil: Callable[[Path], object],
    command: str,
    message: str,
) -> None:
    spoil(place)
    before, was_there = files_below(place), (place / "out").exists()
    done = ssna_in_process(*command.split(), cwd=place, SSNA_CACHE="caches")
    assert done.stdout == ""
    error = [line for line in done.stderr.splitlines() if line]
    assert len(error) == 1, done.stderr
    # What click finds is 2, and the sentence ends by naming the help.
    assert done.returncode == (2 if error[0].endswith("--help`.") else 1)
    assert error[0].startswith("Error: ")
    assert message in error[0]
    assert files_below(place) == before
    assert (place / "out").exists() == was_there
    assert not list(place.glob("new/*/")), "no cache for an LLM that could not be used"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("recommend out", "found neither"),
        ("recommend out --user u000 --history i1", "found both"),
        ("recommend out --user nobody", "out has no user 'nobody' among its 60"),
        ("recommend out --history nothing", "out has no item 'nothing' among its 24"),
        ("recommend out --history i1,i2", "Give --history once for each item."),
        ("recommend out --user u000 --top 0", "--top 0: expected at least 1"),
        ("adapt data --llm tiny-bert --output out", "out exists and is not empty"),
    ],
)
def test_mistakes_with_a_finished_run(run_place: Path, command: str, message: str) -> None:
    done = ssna_in_process(*command.split(), cwd=run_place, SSNA_CACHE="caches")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("{}", "study.json lacks runs; expected what `ssna adapt` writes."),
        ('{"runs": 3}', "study.json: runs is not as it should be;"),
        ('{"runs": [{"layers": 1}]}', "study.json lacks runs[0].run;"),
        ('{"runs": ["layers-1"]}', "study.json: runs[0] is not as it should be;"),
        ('{"runs": [{"run": 1}]}', "study.json: runs[0].run is not as it should be;"),
    ],
)
def test_another_study_json_is_one_sentence(run_place: Path, tmp_path: Path, study: str, message: str) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text(study)
    for command in ("report study --output out.html", "evaluate study", "recommend study --user u"):
        done = ssna_in_process(*command.split(), cwd=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert message in done.stderr


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("study.json", lambda line: line.pop("layers"), "study.json lacks layers-1.layers;"),
        ("study.json", lambda line: line["results"].pop("test"), "study.json lacks layers-1.results.test;"),
        ("layers-1/config.json", lambda config: config.pop("caches"), "layers-1/config.json lacks caches;"),
        (
            "layers-1/config.json",
            lambda config: config.update(dataset=[]),
            "config.json: dataset is not as it should be;",
        ),
    ],
)
def test_what_is_missing_in_a_study_that_goes_on_is_named(
    run_place: Path, study_place: Path, tmp_path: Path, file: str, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    place = Path(shutil.copytree(study_place, tmp_path / "place"))
    content = json.loads((place / "out" / file).read_text())
    change(content["runs"][0] if file == "study.json" else content)
    (place / "out" / file).write_text(json.dumps(content))
    done = ssna_in_process(*ADAPT.split(), "--layers", "1,2", "--resume", cwd=place, SSNA_CACHE="caches")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert message in done.stderr


@pytest.fixture(scope="module")
def study_place(run_place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a study of two layers instead of the run."""
    place = Path(shutil.copytree(run_place, tmp_path_factory.mktemp("study") / "place"))
    shutil.rmtree(place / "out")
    done = ssna_in_process(*ADAPT.split(), "--layers", "1,2", cwd=place, SSNA_CACHE="caches")
    assert done.returncode == 0, done.stderr
    return place


@pytest.mark.parametrize("command", ["add-items out users.tsv", "adapt data --llm tiny-bert --output out --resume"])
def test_what_is_missing_in_config_json_is_named(run_place: Path, tmp_path: Path, command: str) -> None:
    place = Path(shutil.copytree(run_place, tmp_path / "place"))
    config = json.loads((place / "out/config.json").read_text())
    del config["dataset"]["fingerprint"], config["precision"]
    (place / "out/config.json").write_text(json.dumps(config))
    done = ssna_in_process(*command.split(), cwd=place, SSNA_CACHE="caches")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: out/config.json lacks dataset.fingerprint; expected what `ssna adapt` writes. Run that again with "
        "--overwrite.\n"
    )


def test_a_damaged_run_can_be_replaced_as_its_message_says(run_place: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(run_place, tmp_path / "place"))
    for damage in (lambda path: path.write_text("{"), Path.unlink):
        damage(place / "out" / "config.json")
        said = ssna_in_process("evaluate", "out", cwd=place)
        assert said.returncode == 1
        done = ssna_in_process(*ADAPT.split(), "--overwrite", cwd=place, SSNA_CACHE="caches")
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run_place(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, shared_cache_root: Path) -> Path:
    """A folder with a dataset, a cache and a run."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(dataset.path, place / "data")
    shutil.copytree(shared_cache_root, place / "caches")
    done = ssna_in_process(*ADAPT.split(), cwd=place, SSNA_CACHE="caches")
    assert done.returncode == 0, done.stderr
    return place


def test_users_too_short_to_be_evaluated_are_counted_and_said(place: Path) -> None:
    append("users.tsv", "short1\ti1 i2\nshort2\ti3\n")(place)
    assert ssna_in_process(*PREPARE.split(), cwd=place).returncode == 0
    done = ssna_in_process("adapt", "out", "--model", "popularity", "--output", "run", cwd=place)
    assert done.returncode == 0
    assert "60 users evaluated (2 too short to be, they only train)" in done.stdout


CHOICES = {option.opts[0]: option.type for option in adapt_command.params if isinstance(option.type, click.Choice)}


@pytest.mark.parametrize("option", CHOICES)
def test_an_unknown_choice_lists_the_choices(option: str, tmp_path: Path) -> None:
    done = ssna_in_process("adapt", "data", "--output", "out", option, "lstm", cwd=tmp_path)
    assert done.returncode == 2
    choices = ", ".join(f"'{choice}'" for choice in CHOICES[option].choices)
    assert done.stderr == (
        f"Error: Invalid value for '{option}': 'lstm' is not one of {choices}. See `ssna adapt --help`.\n"
    )


def test_the_choices_of_adapt_are_those_of_its_options() -> None:
    """So that the test before this one misses none."""
    assert set(CHOICES) == {
        "--model", "--side", "--preparation", "--activation", "--fusion", "--candidates", "--scorer", "--loss",
        "--schedule", "--precision",
    }  # fmt: skip


def test_a_loss_that_is_no_number_ends_in_one_sentence_and_keeps_the_checkpoint(place: Path) -> None:
    """As if the run had been started with the learning rate with which it goes on, and had been fine so far."""
    command = "adapt data --side none --output out --batch-size 16 --epochs 9 --learning-rate 1e30"
    adapt(place / "data", place / "out", options=AdaptOptions(side="none", batch_size=16, epochs=2))
    (place / "out/results.json").unlink()
    config, checkpoint = place / "out/config.json", place / "out/checkpoint.safetensors"
    asked = json.loads(config.read_text())
    done = ssna_in_process(*command.split(), "--resume", cwd=place)
    assert "out cannot be resumed with --learning-rate 1e+30: it was started with --learning-rate 0.001" in done.stderr
    asked["options"] |= {"epochs": 9, "learning_rate": 1e30}
    config.write_text(json.dumps(asked))
    done = ssna_in_process(*command.split(), "--resume", cwd=place)  # The checkpoint is not of what config.json says.
    assert "out cannot be resumed with --learning-rate 1e+30: it was started with --learning-rate 0.001" in done.stderr
    tensors, about = load_tensors(checkpoint)
    save_tensors(checkpoint, tensors, {**about, "made_from": asked})
    kept = [(place / "out" / name).read_bytes() for name in ("checkpoint.safetensors", "metrics.jsonl")]
    done = ssna_in_process(*command.split(), "--resume", cwd=place)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "Error: the loss became NaN in step 2 of epoch 3. The checkpoint of the epochs before, if any, is kept: train "
        "again with a lower --learning-rate (and --overwrite), or take the best of them by --resume --time-limit 1.\n"
    )
    assert [(place / "out" / name).read_bytes() for name in ("checkpoint.safetensors", "metrics.jsonl")] == kept
    assert not (place / "out/results.json").exists()
    done = ssna_in_process(*command.split(), "--resume", "--time-limit", "0.001", cwd=place)
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "out/results.json").read_text())["epochs"] == 2


def of_a_cpu(*_: object, **__: object) -> None:
    torch.empty(10**15)


def of_a_gpu(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1 GiB."
    )


def of_numpy(*_: object, **__: object) -> None:
    np.empty(10**15, np.float32)


def of_python(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("allocate", "asked"),
    [
        (of_a_cpu, " (4000.0 TB more could not be had)"),
        (of_a_gpu, " (20.00 MiB more could not be had)"),
        (of_numpy, " (3.55 PiB more could not be had)"),
        (of_python, ""),
    ],
)
@pytest.mark.parametrize(
    ("command", "module", "advice"),
    [
        (
            "adapt data --side none --output out",
            "adapt",
            "Give a lower --memory-budget (the layer states beyond it are",
        ),
        ("recommend run --user 1", "recommend", "If it was a GPU's, give --device cpu. End other programs"),
        ("export run out", "export", "End other programs that hold memory, or take a machine with more.\n"),
    ],
    ids=["adapt", "recommend", "export"],
)
def test_memory_that_runs_out_ends_in_one_sentence(
    command: str, module: str, advice: str, allocate: Callable[..., None], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"ssna.cli.{module}.{module}", allocate)
    done = ssna_in_process(*command.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: the memory ran out{asked}. {advice}")
    assert len(done.stderr.splitlines()) == 1


def test_what_to_do_about_memory_are_options_that_there_are() -> None:
    for name, advice in _LESS_MEMORY.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", advice)) <= options, name


def test_other_errors_of_pytorch_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssna.cli.recommend.recommend", lambda *_, **__: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        ssna_in_process("recommend", "run", "--user", "1")
