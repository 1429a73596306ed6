"""What the documents show is what there is: commands, links, and the tutorial line by line."""

from __future__ import annotations

import argparse
import ast
import configparser
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import typing
import warnings
from collections.abc import Iterator
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx2
import pytest
import torch
from fastapi.testclient import TestClient
from torch.distributed.run import get_args_parser

import ssna
from ssna import AdaptOptions, ExtractOptions
from ssna.cli import cli
from ssna.runs import open_run
from ssna.service import make_service
from tests.documents import DOCUMENTS, ROOT, SHOWN, blocks_of, commands_of, sentences_of, shown_in
from tests.helpers import commands_in, ssna_in_process


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
    command, name, arguments = subcommand(command, name, arguments)
    return command.make_context(name, arguments).params


def subcommand(command: click.Command, name: str, arguments: list[str]) -> tuple[click.Command, str, list[str]]:
    """The subcommand that is named first, its name and its arguments; of a command without any, the command.

    Raises:
        click.UsageError: if there is no such subcommand.
    """
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        found = command.get_command(click.Context(command), name)
        if found is None:
            raise click.UsageError(f"there is no command {name}")
        command = found
    return command, name, list(arguments)


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
@pytest.mark.parametrize("name", ["", "cache", *(name for name, _ in commands_in(cli))])
def test_every_command_has_help_with_examples_of_it(name: str) -> None:
    done = ssna_in_process(*name.split(), "--help")
    assert done.returncode == 0
    _, _, shown = done.stdout.partition("Example: ")
    lines = [line for line in re.sub(r"\\\n *", "", shown).splitlines() if line]
    examples = commands_of("\n".join(line.strip() for line in lines))
    assert examples
    assert len(examples) == len(lines)
    for words in examples:
        check(words)
        called = words[words.index("ssna") + 1 :]
        assert called[: len(name.split())] == name.split()


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
        for code in re.findall(r"`([^`\n]+)`", sentences_of(document)):
            if code.startswith("pip "):
                continue
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code):
                assert option in here, f"{path.name} names {option} in `{code}`"


def named_in_sentences(document: str) -> list[list[str]]:
    """Commands of ssna that sentences set as code, whole or only by name and options, in words."""
    found = re.findall(r"`(?:[A-Z_]+=\S+ )?(ssna [a-z][^`]*)`", sentences_of(document))
    return [shlex.split(code) for code in found]


def check_named(words: list[str]) -> None:
    """Check a command that a sentence names: its options; if nothing is left out, all of it.

    Raises:
        AssertionError, click.UsageError, SsnaError: if there is no such command or option.
    """
    command, _, _ = subcommand(cli, "ssna", words[1:])
    options = {word for word in words if word.startswith("--")}
    assert options <= {*_options_of(command, ""), "--help"}, shlex.join(words)
    whole = len(words) > 2 and not words[2].startswith("-") and "…" not in " ".join(words)
    if whole and words[1] not in ("cache", "download"):  # They are followed by a command, and by a name from a list.
        check(words)


NAMED = [(path.name, words) for path in DOCUMENTS for words in named_in_sentences(path.read_text())]


@pytest.mark.usefixtures("without_files")
@pytest.mark.parametrize(("document", "words"), NAMED, ids=[f"{name}: {shlex.join(words)}" for name, words in NAMED])
def test_commands_in_sentences_have_the_options_they_are_named_with(document: str, words: list[str]) -> None:
    check_named(words)


@pytest.mark.usefixtures("without_files")
def test_a_command_in_a_sentence_with_a_mistake_does_not_pass() -> None:
    text = "Say `ssna export --explain`, `NO_COLOR=1 ssna adapts …`,\n`ssna serve RUN RUN` or `ssna.serve`.\n"
    found = named_in_sentences(text)
    assert found == [["ssna", "export", "--explain"], ["ssna", "adapts", "…"], ["ssna", "serve", "RUN", "RUN"]]
    for words in found:
        with pytest.raises((AssertionError, click.UsageError)):
            check_named(words)


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


OTHER_PROGRAMS = ("make", "pip", "curl", "tensorboard")
MAKEFILE = (ROOT / "Makefile").read_text()
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def other_commands_of(document: str) -> list[list[str]]:
    """Command lines of other programs in a document's blocks, and those set as code in its sentences."""
    lines = [line for block in blocks_of(document) for line in re.sub(r"\\\n\s*", " ", block.text).splitlines()]
    sentences = re.sub(r"^```.*?^```$", "", document, flags=re.M | re.S)
    lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", sentences)]
    begins = re.compile(rf"({'|'.join(OTHER_PROGRAMS)}) ")
    return [shlex.split(line, comments=True) for line in lines if begins.match(line)]


def check_other(words: list[str], client: TestClient) -> None:
    """Check a command of make against the Makefile, of pip against setup.cfg, of curl against the service.

    One of TensorBoard is parsed by its own parser, with the options that need no plugin.

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
    elif program == "tensorboard":
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # Of a package within it.
            from tensorboard.plugins.core.core_plugin import CorePluginLoader
            from tensorboard.program import TensorBoard
        TensorBoard([CorePluginLoader()]).configure(("tensorboard", *arguments))
    else:
        answer_of_curl(arguments, client).raise_for_status()


# What needs packages that `pip install '.[demo]'` does not bring, and the extra that does.
NEED_EXTRAS = {
    r"\bssna export \w": "export",
    r"\bssna serve \w": "serve",
    r"\bssna adapt .*--tensorboard\b": "tensorboard",
    r"--device-map\b": "gguf",
    r"benchmarks/(?:efficiency|growth)\.py": "benchmarks",
}


def extras_unnamed(document: str) -> list[str]:
    """Extras that a section of a document needs, and that neither it nor the document's beginning says to install."""
    beginning, *sections = re.split(r"^(?=## )", document, flags=re.M)
    lacking = []
    for section in (beginning, *sections):
        installed = [
            words[-1] for words in other_commands_of(f"{beginning}\n{section}") if words[:2] == ["pip", "install"]
        ]
        named = {extra for last in installed for extra in last.removesuffix("]").partition("[")[2].split(",")}
        lacking += [
            f"{extra}, in: {section.splitlines()[0]}"
            for pattern, extra in NEED_EXTRAS.items()
            if re.search(pattern, section) and extra not in named
        ]
    return lacking


GUIDES = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # That says what there is, not how to have it.


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_extras_are_named_beside_what_needs_them(path: Path) -> None:
    assert extras_unnamed(path.read_text()) == []


def test_an_extra_that_is_named_elsewhere_only_is_missed() -> None:
    show, install = "## One\n\n    ssna serve RUN\n", "\n    pip install '.[demo,serve]'\n"
    assert extras_unnamed(show) == ["serve, in: ## One"]
    assert extras_unnamed(f"{show}\n## Two\n{install}") == ["serve, in: ## One"]
    assert extras_unnamed(show + install) == []
    assert extras_unnamed(f"# Page\n{install}\n{show}") == []


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
def test_other_programs_have_what_they_are_shown_with(document: str, words: list[str], client: TestClient) -> None:
    check_other(words, client)


def test_of_other_programs_there_are_some() -> None:
    found = {program: {words[1] for _, words in OTHERS if words[0] == program} for program in OTHER_PROGRAMS}
    assert found["make"] >= {"demo", "test", "lint"}
    assert found["pip"] == {"install", "download"}
    assert found["curl"]
    assert found["tensorboard"] == {"--logdir"}
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
        "tensorboard --log-dir runs",
        "curl -s http://127.0.0.1:8000/recommended",
        "curl -s http://127.0.0.1:8001/health",
        "curl -s http://127.0.0.1:8000/similar?items=50",
        """curl http://127.0.0.1:8000/recommend -H 'Content-Type: application/json' -d '{"histories": ["50"]}'""",
        """curl http://127.0.0.1:8000/recommend -H 'Content-Type: application/json' -d '{"history": ["50"],}'""",
    ],
)
def test_other_programs_with_a_mistake_do_not_pass(command: str, client: TestClient) -> None:
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


def classes_in(annotation: Any) -> Iterator[type]:
    """The classes that a type hint is made of."""
    parts = annotation if isinstance(annotation, list) else typing.get_args(annotation)
    if not parts and isinstance(annotation, type):
        yield annotation
    for part in parts:
        yield from classes_in(part)


def test_every_class_that_signatures_and_fields_name_is_public() -> None:
    found = set[str]()
    for name in set(ssna.__all__) - {"__version__"}:
        public = getattr(ssna, name)
        methods = [method for _, method in inspect.getmembers(public, inspect.isfunction)]
        for each in (public, *(methods if inspect.isclass(public) else ())):
            for annotation in typing.get_type_hints(each).values():
                found |= {one.__name__ for one in classes_in(annotation) if one.__module__.startswith("ssna")}
    assert {"AdaptOptions", "ReportGroup", "Epoch"} <= found <= set(ssna.__all__)


def test_python_that_is_shown_calls_what_there_is() -> None:
    calls = 0
    for path in DOCUMENTS:
        for block in blocks_of(path.read_text()):
            for node in ast.walk(ast.parse(block.text)) if block.language == "python" else ():
                if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("ssna."):
                    called = attrgetter(ast.unparse(node.func).removeprefix("ssna."))(ssna)
                    named = {keyword.arg or "": keyword.value for keyword in node.keywords}
                    inspect.signature(called).bind(*node.args, **named)
                    calls += 1
    assert calls >= 6


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
