"""The wheel: what it holds, and that it installs into an empty environment and runs."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"pipeline": "ssna", **{name: f"ssna/{name}" for name in ("stage1_extract", "stage2_adapt", "cache")}}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the tracked files alone, as from a fresh clone."""
    source = tmp_path_factory.mktemp("source")
    archive = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in archive.decode().split("\0"):
        if name and (ROOT / name).exists():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source)]
    subprocess.run(command, capture_output=True, check=True, timeout=280)
    (built,) = out.glob("*.whl")
    return built


def tracked_modules() -> set[str]:
    """Where the wheel should hold each tracked file of the four folders."""
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = set()
    for name in listed.splitlines():
        folder, _, rest = name.partition("/")
        names.add(f"{FOLDERS[folder]}/{rest}")
    return names


def test_the_wheel_holds_exactly_the_tracked_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
        described = archive.read(metadata).decode()
    assert held == tracked_modules()
    assert "ssna/py.typed" in held
    assert re.search(r"^License(-Expression)?: Apache-2\.0$", described, re.MULTILINE)
    for extra in ("demo", "test", "dev", "gguf", "export", "serve", "benchmarks"):
        assert f"Provides-Extra: {extra}" in described


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment_and_runs(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=True)
    binaries = tmp_path / "empty" / ("Scripts" if sys.platform == "win32" else "bin")
    constraints = ROOT / "constraints.txt"
    for what in (["torch"], [str(wheel)]):  # torch first, so that its CPU build is found where there is one.
        subprocess.run([binaries / "pip", "install", "-q", "-c", constraints, *what], check=True, timeout=900)
    for command in (["ssna"], ["python", "-m", "ssna"]):
        done = subprocess.run(
            [binaries / command[0], *command[1:], "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("ssna, version ")
    script = (
        "import ssna; print(ssna.__file__, *(getattr(ssna, name).__name__ for name in ssna.__all__ if name[0] != '_'))"
    )
    done = subprocess.run([binaries / "python", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(tmp_path / "empty") in done.stdout
    assert {"adapt", "evaluate", "extract", "prepare", "recommend"} <= set(done.stdout.split())
