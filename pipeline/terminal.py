"""What people see: tables on stdout, progress on stderr (bars in a terminal, plain lines elsewhere)."""

from __future__ import annotations

import codecs
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ssna.stage2_adapt.training import Epoch

# Titles of runs that were made before `ssna.text.clean` took these out; a terminal could read them as commands.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PIPED_WIDTH = 160
_ANY_WIDTH = 10_000
_SECONDS_BETWEEN_LINES = 10


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `main`: rich would exit with status 1, as if something had failed."""
        raise  # rich calls this while it handles the BrokenPipeError.


_quiet = False


def be_quiet(quiet: bool) -> None:
    """Whether notes and progress are left out from now on; results and errors never are."""
    global _quiet
    _quiet = quiet


def _console(stderr: bool) -> Console:
    # Item titles hold brackets, so nothing is ever read as markup.
    made = partial(_Console, stderr=stderr, markup=False, highlight=False, emoji=False)
    console = made()
    if console.is_jupyter:  # rich would show each line as HTML of its own; and Jupyter sets FORCE_COLOR.
        console = made(force_jupyter=False, force_terminal=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


def print_json(content: Mapping[str, Any] | Sequence[Any]) -> None:
    """JSON for machines, on stdout; in ASCII where that is not UTF-8, and could lack a letter."""
    # A stream within Python has no encoding, and takes all letters.
    is_utf8 = sys.stdout.encoding is None or codecs.lookup(sys.stdout.encoding).name == "utf-8"
    print(json.dumps(content, indent=2, ensure_ascii=not is_utf8))


def print_line(text: str) -> None:
    """A line of results, on stdout."""
    _console(stderr=False).print(_harmless(text), soft_wrap=True)


def print_note(text: str) -> None:
    """A line about what is going on, on stderr."""
    if not _quiet:
        print_problem(text)


def print_problem(text: str) -> None:
    """A line about something that is wrong, on stderr, also when notes are left out."""
    _console(stderr=True).print(_harmless(text), soft_wrap=True)


def _harmless(text: str) -> str:
    """The text without control characters other than tabs and line ends."""
    return _CONTROLS.sub("", text)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; columns of numbers are aligned to the right and never folded.

    In a terminal that is too narrow for it, rows become columns; if that is too wide as well, each row becomes a small
    table of its own. (rich would leave out the columns for which there is no room, and say nothing.) A row whose first
    cell is empty says more of the row before.
    """
    columns, rows = [_harmless(name) for name in columns], [[_harmless(cell) for cell in row] for row in rows]
    console = _console(stderr=False)
    table = _table(columns, rows)
    if not console.is_terminal:  # A pipe is as wide as it must be.
        console.width = max(console.width, _narrowest(console, table))
    if _fits(console, table) or len(columns) < 3:
        console.print(table)
        return
    names, *cells = zip(columns, *rows, strict=True)
    turned = _table(names, cells)
    if _fits(console, turned):
        console.print(turned)
        return
    tables = list[tuple[str, list[tuple[str, str]]]]()
    for name, *values in rows:
        if name or not tables:
            tables.append((name, []))
        tables[-1][1].extend(
            (column, value) for column, value in zip(columns[1:], values, strict=True) if name or value
        )
    for name, cells_of_row in tables:
        console.print(_table([columns[0], name], cells_of_row))


def _fits(console: Console, table: Table) -> bool:
    return _narrowest(console, table) <= console.width


def _narrowest(console: Console, table: Table) -> int:
    """Characters in which a table has all its columns."""
    return Measurement.get(console, console.options.update(width=_ANY_WIDTH), table).minimum


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        numeric = all(_looks_numeric(row[i]) for row in rows)
        widest = max([len(column), *(len(row[i]) for row in rows)])
        table.add_column(
            Text(column), justify="right" if numeric else "left", min_width=widest if numeric else None, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _looks_numeric(cell: str) -> bool:
    return cell in ("", "-") or cell.lstrip("-−+.")[:1].isdigit()


def count(number: int) -> str:
    """A whole number with thousands separators."""
    return f"{number:,}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A whole number with what it counts: of one, and of many where that is not the same with an s."""
    return f"{count(number)} {one if number == 1 else many or f'{one}s'}"


def size(num_bytes: int) -> str:
    """Bytes in the largest fitting unit."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds in a unit that people read."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} seconds"


class _Rate(ProgressColumn):
    """Work done a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else _pace(task.speed, self._unit))


def _pace(speed: float, unit: str) -> str:
    return f"{speed:,.0f} {unit}/s" if speed >= 1 else f"{1 / speed:,.0f} s each"


def _bars(console: Console, *amounts: ProgressColumn) -> Progress:
    """What is done, a bar, the amounts and the time left; gone when the work is done."""
    words = TextColumn("{task.description}", markup=False)
    return Progress(words, BarColumn(), *amounts, TimeRemainingColumn(), console=console, transient=True)


@contextmanager
def work_progress(doing: str, unit: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A callback that shows how many are done, how many a second and the time left; `doing` is a verb's -ing form."""
    if _quiet or not shown:
        yield lambda done, total: None
        return
    console = _console(stderr=True)
    if not console.is_terminal:
        yield _plain_work(console, doing, unit)
        return
    with _bars(console, MofNCompleteColumn(), _Rate(unit)) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _plain_work(console: Console, doing: str, unit: str) -> Callable[[int, int], None]:
    started = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal started, last
        now = time.monotonic()
        if done == 0:  # What came before, such as loading an LLM, says nothing about how long the rest takes.
            started = last = now
        elif now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            rate = done / (now - started)
            left = duration((total - done) / rate)
            console.print(f"{doing}: {done:,} of {total:,} {unit}, {_pace(rate, unit)}, {left} left")

    return show


@contextmanager
def files_progress(shown: bool = True) -> Iterator[Callable[[str, int, int | None], None]]:
    """A callback that shows the name of the file under way, its bytes that are done and of all, and the time left."""
    if _quiet or not shown:
        yield lambda name, done, total: None
        return
    console = _console(stderr=True)
    if not console.is_terminal:
        yield _plain_files(console)
        return
    with _bars(console, DownloadColumn()) as progress:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=None)
            progress.update(tasks[name], completed=done, total=total)

        yield show


def _plain_files(console: Console) -> Callable[[str, int, int | None], None]:
    last = time.monotonic()

    def show(name: str, done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            console.print(f"{name}: {size(done)}" + ("" if total is None else f" of {size(total)}"))

    return show


@contextmanager
def training_progress(shown: bool = True) -> Iterator[tuple[Callable[[Epoch], None], Callable[[int, int], None]]]:
    """Two callbacks: one prints a line for each finished epoch, one shows the steps of the epoch under way."""
    if _quiet or not shown:
        yield lambda epoch: None, lambda done, total: None
        return
    console = _console(stderr=True)
    if not console.is_terminal:
        yield lambda epoch: console.print(epoch_line(epoch)), lambda done, total: None
        return
    with _bars(console, MofNCompleteColumn(), _Rate("steps")) as progress:
        task = progress.add_task("epoch 1", total=None)

        def on_epoch(epoch: Epoch) -> None:
            console.print(epoch_line(epoch))
            reached = f", last loss {epoch.loss:.3f}, NDCG@10 {epoch.valid.get('ndcg@10', float('nan')):.4f}"
            progress.reset(task, description=f"epoch {epoch.epoch + 1}{reached}")

        yield on_epoch, lambda done, total: progress.update(task, completed=done, total=total)


def epoch_line(epoch: Epoch) -> str:
    """One line about an epoch."""
    valid = "".join(
        f"   valid {label} {epoch.valid[name]:.4f}"
        for name, label in (("recall@10", "Recall@10"), ("ndcg@10", "NDCG@10"))
        if name in epoch.valid
    )
    return f"epoch {epoch.epoch:3d}   loss {epoch.loss:.4f}{valid}   {epoch.seconds + epoch.valid_seconds:.1f} s"
