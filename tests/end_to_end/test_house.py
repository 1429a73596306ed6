"""The house: who may import whom, and that what the documents show is what there is."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from ssna.cli import cli

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "pipeline": {"ssna", "ssna.stage1_extract", "ssna.stage2_adapt", "ssna.cache"},
    "stage1_extract": {"ssna.stage1_extract", "ssna.cache"},
    "stage2_adapt": {"ssna.stage2_adapt", "ssna.cache"},
    "cache": {"ssna.cache"},
}


def imported_modules(path: Path) -> list[str]:
    modules = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules.append(node.module or "")
    return modules


def part_of(module: str) -> str:
    """Which of the four parts a module of ours belongs to."""
    second = ".".join(module.split(".")[:2])
    return second if second in MAY_IMPORT["pipeline"] else "ssna"


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_import_arrows_point_one_way(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for module in imported_modules(path):
            top = module.split(".")[0]
            assert top not in MAY_IMPORT, f"{path}: a bare `{module}`; imports are always ssna.…"
            if top == "ssna":
                assert part_of(module) in MAY_IMPORT[folder], f"{path} imports {module}"
            if top in ("transformers", "huggingface_hub"):
                assert folder == "stage1_extract", f"{path} imports {module}"


def commands_of(path: Path) -> list[list[str]]:
    """Every `ssna …` command line in a document or script, continued lines joined."""
    joined = path.read_text().replace("\\\n", " ")
    names = "download|prepare|extract|adapt|evaluate|compare|recommend|serve|export|estimate|cache"
    lines = re.findall(rf"^(?:\$ |run |    )?(ssna (?:{names}) .*)$", joined, re.M)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("name", ["README.md", "demo.sh", "docs/datasets.md"])
def test_every_command_that_is_shown_has_the_options_it_is_shown_with(name: str) -> None:
    commands = commands_of(ROOT / name)
    assert len(commands) >= 8
    for _, command, *arguments in commands:
        known = cli.get_command(click.Context(cli), command)
        assert known is not None
        parsed = known.make_context(command, arguments, resilient_parsing=False)
        assert isinstance(parsed, click.Context)


def test_every_listed_command_is_there_under_its_name() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_the_readme_shows_every_command_of_the_demo() -> None:
    def normal(command: list[str]) -> list[str]:
        places = {"$DATA": "demo/ml-100k", "$LLM": "LLM"}
        return [places.get(word, word) for word in command if word != "--overwrite"]

    shown = [normal(command) for command in commands_of(ROOT / "README.md")]
    for command in commands_of(ROOT / "demo.sh"):
        assert normal(command) in shown


def test_documents_link_to_files_that_exist() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name} links to {target}"
