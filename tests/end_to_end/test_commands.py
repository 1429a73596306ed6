"""What all commands have in common: `--json`, `--quiet`, progress, and colours only where they are wanted."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import ssna as api
from ssna.cli import cli
from ssna.dataset import Dataset, open_dataset
from tests.helpers import COLOUR_VARIABLES, Catalogue, Outcome, commands_in, ssna, ssna_in_process, ssna_in_terminal

# A call of each command, and what it tells on stderr in a terminal.
CALLS = {
    "prepare": ("users.tsv items.tsv out --format sequences", "users.tsv"),
    "extract": ("data --llm llm --cache-root out", "extracting"),
    "adapt": ("data --side none --width 8 --epochs 2 --output out", "epoch   2"),
    "evaluate": ("ids text", "ranking"),
    "compare": ("ids text", "comparing"),
    "recommend": ("ids --all-users --output out.parquet", "ranking"),
    "similar": ("ids i1 --top 1000", "found only 23 other items"),
    "add-items": ("text new.csv --llm llm --cache-root caches", "extracting"),
    "report": ("ids text --output out.html", "ranking"),
    "export": ("ids out --format npy", "exporting"),
    "estimate": ("llm --items 10 --tflops 1", ""),
    "cache list": ("", ""),
    "cache info": ("--cache-root without", "There is no cache in"),
    "cache verify": ("tiny-bert", "verifying"),
    "cache compact": ("tiny-bert", "compacting"),
    "cache remove": ("tiny-bert --yes", ""),
}
# The others, and where they are called.
ELSEWHERE = {"download": "tests/pipeline/test_download.py", "serve": "tests/end_to_end/test_serve.py"}


@pytest.fixture(scope="module")
def original(
    tmp_path_factory: pytest.TempPathFactory,
    catalogue: Catalogue,
    dataset: Dataset,
    tiny_llm: Path,
    shared_cache_root: Path,
    ids_run: Path,
) -> Path:
    """Sources, an LLM, a dataset, a cache, two runs and a new item, under the names that `CALLS` has."""
    folder = tmp_path_factory.mktemp("original")
    for path, name in ((catalogue.users, "users.tsv"), (catalogue.items, "items.tsv")):
        shutil.copy(path, folder / name)
    for path, name in ((dataset.path, "data"), (tiny_llm, "llm"), (shared_cache_root, "caches"), (ids_run, "ids")):
        shutil.copytree(path, folder / name)
    options = api.AdaptOptions(width=8, epochs=1)
    api.adapt(folder / "data", folder / "text", llm="tiny-bert", cache_root=folder / "caches", options=options)
    (folder / "new.csv").write_text("item_id,title\nn1,desk engine\n")
    (folder / "without").mkdir()
    return folder


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(original, tmp_path / "place"))


def call(place: Path, name: str, *options: str, **environment: str) -> Outcome:
    done = ssna_in_process(
        *name.split(), *CALLS[name][0].split(), *options, cwd=place, SSNA_CACHE="caches", **environment
    )
    assert done.returncode == 0, done.stderr
    return done


def as_json(place: Path, name: str) -> Any:
    return json.loads(call(place, name, "--json").stdout)


def test_each_command_has_json_and_quiet_and_is_called_here_or_elsewhere() -> None:
    commands = dict(commands_in(cli))
    for name, command in commands.items():
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert {"--json", "--quiet", "-q"} <= flags, name
    assert set(commands) == set(CALLS) | set(ELSEWHERE)
    for name, path in ELSEWHERE.items():
        calls = (Path(__file__).parents[2] / path).read_text()
        assert all(f'"{word}"' in calls for word in (name, "--json", "--quiet")), name


@pytest.mark.parametrize("name", CALLS)
def test_json_is_all_that_a_command_prints_with_json(place: Path, name: str) -> None:
    assert as_json(place, name) is not None


@pytest.mark.parametrize("name", CALLS)
def test_what_is_told_in_a_terminal_is_not_told_when_quiet(original: Path, tmp_path: Path, name: str) -> None:
    outcomes = []
    for number, options in enumerate(([], ["--quiet"])):
        here = shutil.copytree(original, tmp_path / str(number))
        outcomes.append(call(here, name, *options, FORCE_COLOR="1", COLUMNS="300"))
    loud, quiet = outcomes
    assert CALLS[name][1] in loud.stderr
    assert bool(loud.stderr) == bool(CALLS[name][1])
    assert quiet.stderr == ""
    assert bool(quiet.stdout) == bool(loud.stdout)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_keeps_each_letter_whatever_the_encoding_of_stdout(place: Path, encoding: str) -> None:
    command = ["prepare", *CALLS["prepare"][0].split(), "--name", "Bücher ō", "--json"]
    done = ssna(*command, cwd=place, PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout)["name"] == "Bücher ō"
    assert ("Bücher" in done.stdout) == (encoding == "utf-8")


def test_titles_of_runs_made_before_are_no_commands_to_a_terminal(place: Path) -> None:
    frame = pl.read_parquet(place / "ids/items.parquet")
    frame.with_columns(title="\x1b]0;owned\x07\x9b2J\x7f" + pl.col("title")).write_parquet(place / "ids/items.parquet")
    for arguments in (["similar", "ids", "i1"], ["recommend", "ids", "--history", "i1", "--explain"]):
        shown = ssna_in_terminal(*arguments, cwd=place, columns=200, NO_COLOR="1")
        assert "]0;owned2J" in shown
        assert not re.search("[\x00-\x08\x0e-\x1a\x7f-\x9f]|\x1b\\]", shown)


def test_prepare_prints_what_dataset_json_says(place: Path) -> None:
    printed, written = as_json(place, "prepare"), open_dataset(place / "out")
    assert printed == {"path": "out", "fingerprint": written.fingerprint, **written.description}
    assert printed["steps"][-1]["after"]["users"] == 60


def test_add_items_prints_the_numbers_of_items(place: Path) -> None:
    assert as_json(place, "add-items") == {
        "added": 1, "replaced": 0, "known": 0, "without_text": 0, "extracted": 1, "candidates": 25,
        "notes": [],
    }  # fmt: skip


def test_cache_remove_prints_what_is_gone(place: Path) -> None:
    (cache,) = (place / "caches").glob("tiny-bert-*")
    num_bytes = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    expected = [{"path": str(cache.relative_to(place)), "bytes": num_bytes, "deleted": True}]
    assert as_json(place, "cache remove") == expected
    assert not cache.exists()


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:[349]\d|10\d)[;m]")


@pytest.mark.parametrize("name", ["adapt", "evaluate"])
def test_a_terminal_shows_progress_in_colours_unless_there_shall_be_none(
    original: Path, tmp_path: Path, name: str
) -> None:
    shown = []
    for number, environment in enumerate(({}, {"NO_COLOR": "1"})):
        here = Path(shutil.copytree(original, tmp_path / str(number)))
        shown.append(ssna_in_terminal(name, *CALLS[name][0].split(), cwd=here, **environment))
        assert CALLS[name][1] in shown[number]
        assert "━━━" in shown[number], "there is no bar"
    coloured, plain = shown
    assert COLOUR.search(coloured)
    assert not COLOUR.search(plain), COLOUR.findall(plain)


def test_a_pipe_gets_no_escape_sequences(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in COLOUR_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    done = ssna("adapt", *CALLS["adapt"][0].split(), cwd=place)
    assert "epoch   2" in done.stderr
    assert "NDCG@10" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
