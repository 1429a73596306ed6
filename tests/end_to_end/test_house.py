"""The house: who may import whom, and that every command is where it is looked for."""

from __future__ import annotations

import ast
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


def test_every_listed_command_is_there_under_its_name() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
