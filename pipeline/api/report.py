"""`ssna.report`: finished runs side by side, as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssna.cache import write_atomically
from ssna.devices import resolve_device
from ssna.errors import RunError, is_whole_number
from ssna.folders import check_output_file
from ssna.reports import GENERATOR, SAMPLED_USERS, Group, digest_of_test, group_of, in_order, read_run, render
from ssna.runs import open_run, runs_of_study


@dataclass(frozen=True)
class ReportGroup:
    """A part of a page: runs that were tested on the same, so that their metrics compare."""

    dataset: str
    """Its name; several, if runs of datasets with other names were tested on the same ids and histories"""
    split: str
    users: int
    """That are tested"""
    items: int
    """That are ranked"""
    runs: list[str]
    """Their names on the page"""


@dataclass(frozen=True)
class Report:
    """A page that was written."""

    output: Path
    groups: list[ReportGroup]
    """In the order of the page; those of the same dataset follow each other"""
    num_bytes: int


def report(
    runs: Sequence[Path | str] | Path | str,
    output: Path | str = "report.html",
    *,
    users: int = SAMPLED_USERS,
    overwrite: bool = False,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Write a page with training curves, metrics, costs, layers, item vectors and sample users of finished runs.

    Args:
        runs: run folders; the folder of a study of layers stands for all its runs.
        output: the HTML file.
        users: how many users, drawn at random, are shown with their ids and histories; 0 for none, as for a page that
            goes to people who may not see them.
        overwrite: replace the report that is there.
        device: a PyTorch device, or `auto`.
        on_progress: called with the number of runs that are read and ranked, and of all.

    Raises:
        RunError: if a folder is no finished run, or is named twice, or the number of users is none.
        OutputError: if something stands at `output` that may not be replaced.
    """
    if not is_whole_number(users) or users < 0:
        raise RunError(f"--users {users!r}: expected a whole number, 0 for none.")
    users = int(users)
    folders = _run_folders([runs] if isinstance(runs, (str, Path)) else runs)
    output = Path(output)
    check_output_file(output, overwrite, _is_report, "report")
    where, found = resolve_device(device), dict[str, Group]()
    progress = on_progress or (lambda done, total: None)
    for number, (folder, name) in enumerate(zip(folders, _names(folders), strict=True)):
        progress(number, len(folders))
        opened = open_run(folder, where)
        if (key := digest_of_test(opened)) not in found:
            found[key] = group_of(opened, users)
        found[key].runs.append(read_run(opened, name, found[key], where))
    progress(len(folders), len(folders))
    groups = in_order(found.values())
    page = render(groups)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, page)
    about = [
        ReportGroup(group.dataset, group.split, group.num_users, group.num_items, [run.name for run in group.runs])
        for group in groups
    ]
    return Report(output, about, len(page.encode()))


def _run_folders(given: Sequence[Path | str]) -> list[Path]:
    """Each run's folder, those of studies in the order of their tables."""
    folders = list[Path]()
    for path in map(Path, given):
        folders += [path / run for run in runs_of_study(path)] or [path]
    if not folders:
        raise RunError("no run was given. Name at least one run folder.")
    seen = set[Path]()
    for folder in folders:
        if folder.resolve() in seen:
            raise RunError(f"{folder} is named twice. Give each run once; a study stands for all its runs.")
        seen.add(folder.resolve())
    return folders


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or, where two are the same, their paths as they were given."""
    last = [folder.resolve().name for folder in folders]
    return [name if last.count(name) == 1 else str(folder) for folder, name in zip(folders, last, strict=True)]


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(1000)
