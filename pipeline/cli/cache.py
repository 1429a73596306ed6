"""`ssna cache`."""

from __future__ import annotations

from pathlib import Path

import click

from ssna.api.caches import (
    CacheSummary,
    Verification,
    compact_cache,
    describe_cache,
    list_caches,
    locate_cache,
    remove_cache,
    verify_cache,
)
from ssna.cache import CacheError, Compaction, resolve_cache_root
from ssna.cli.options import Command, cache_root_option, json_option
from ssna.terminal import (
    count,
    counted,
    print_json,
    print_line,
    print_note,
    print_problem,
    print_table,
    size,
    work_progress,
)


@click.group("cache", epilog="\b\nExample: ssna cache verify minilm --repair")
def cache_command() -> None:
    """Look after caches. CACHE is a name, the path or id of its LLM, or its folder.

    Without any, info, verify and compact take all there are; remove wants to be told which.
    """


def _caches_argument(command: Command) -> Command:
    return click.argument("caches", nargs=-1, metavar="[CACHE]…")(command)


def _chosen(caches: tuple[str, ...], cache_root: str | None) -> list[Path]:
    if caches:
        return [locate_cache(which, cache_root) for which in caches]
    root = resolve_cache_root(cache_root)
    if not root.is_dir():
        raise CacheError(f"there is no cache root {root}. Name another --cache-root; `ssna extract` makes one.")
    found = list_caches(cache_root)
    if not found:
        print_note(f"There is no cache in {root}.")
    return found


@cache_command.command("list", epilog="\b\nExample: ssna cache list")
@cache_root_option
@json_option
def list_command(cache_root: str | None, as_json: bool) -> None:
    """Name, LLM, layers, rows and size of every cache."""
    summaries = list[CacheSummary]()
    for path in list_caches(cache_root):
        try:
            summaries.append(describe_cache(path))
        except CacheError as error:  # One that is damaged does not hide the others.
            print_problem(f"{error} See `ssna cache verify {path}`.")
    if as_json:
        print_json([summary.as_json() for summary in summaries])
        return
    if not summaries:
        print_line(f"There is no readable cache in {resolve_cache_root(cache_root)}; `ssna extract` makes one.")
        return
    print_table(
        ["name", "LLM", "layers", "pooling", "stored as", "rows", "size", "fingerprint"],
        [
            [
                s.name,
                s.llm,
                f"{s.layers} of {s.blocks}",
                s.pooling,
                s.stored_dtype,
                count(s.rows),
                size(s.bytes),
                s.fingerprint[:12],
            ]
            for s in summaries
        ],
    )


@cache_command.command("info", epilog="\b\nExample: ssna cache info minilm")
@_caches_argument
@cache_root_option
@json_option
def info_command(caches: tuple[str, ...], cache_root: str | None, as_json: bool) -> None:
    """All about a cache."""
    summaries = [describe_cache(path) for path in _chosen(caches, cache_root)]
    if as_json:
        print_json([summary.as_json() for summary in summaries])
        return
    for summary in summaries:
        print_table(["cache", summary.name], [[name, _cell(name, summary)] for name in summary.as_json()])


def _cell(name: str, summary: CacheSummary) -> str:
    value = getattr(summary, name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return size(value) if name == "bytes" else count(value) if isinstance(value, int) else str(value)


@cache_command.command("verify", epilog="\b\nExample: ssna cache verify minilm --repair")
@_caches_argument
@click.option("--repair", is_flag=True, help="Set damaged segments aside; the next extract fills the gap.")
@cache_root_option
@json_option
@click.pass_context
def verify_command(
    context: click.Context, caches: tuple[str, ...], repair: bool, cache_root: str | None, as_json: bool
) -> None:
    """Recompute every checksum; exit status 1 if anything is damaged."""
    found, unreadable = list[Verification](), dict[Path, str]()
    for path in _chosen(caches, cache_root):
        try:
            with work_progress("verifying", "segments") as on_progress:
                found.append(verify_cache(path, repair=repair, on_progress=on_progress))
        except CacheError as error:  # Of its manifest; the other caches are verified all the same.
            unreadable[path] = str(error)
            print_problem(str(error))
            continue
        for segment in found[-1].damaged:
            print_problem(f"{path}: segment {segment.segment}: {segment.damage}")
            for key in segment.bad_keys:
                print_problem(f"  row {key}")
    if as_json:
        broken = [{"path": str(path), "sound": False, "error": error} for path, error in unreadable.items()]
        print_json([*(verification.as_json() for verification in found), *broken])
    else:
        for verification in found:
            bad = len(verification.damaged)
            state = "sound" if verification.sound else f"{bad} damaged" if bad else "its index was wrong and is removed"
            held = f"{counted(verification.segments, 'segment')}, {counted(verification.rows, 'row')}"
            print_line(f"{verification.path}: {held}, {state}")
            for place in verification.set_aside:
                print_line(f"set aside: {place}")
            if verification.set_aside:
                print_line("Run `ssna extract` again with the settings of this cache to compute their rows anew.")
    if unreadable or not all(verification.sound for verification in found):
        context.exit(1)


@cache_command.command("compact", epilog="\b\nExample: ssna cache compact minilm")
@_caches_argument
@cache_root_option
@json_option
def compact_command(caches: tuple[str, ...], cache_root: str | None, as_json: bool) -> None:
    """Join small segments into few. Safe beside readers, and when interrupted."""
    done = dict[Path, Compaction]()
    for path in _chosen(caches, cache_root):
        with work_progress("compacting", "rows") as on_progress:
            done[path] = compact_cache(path, on_progress=on_progress)
    if as_json:
        print_json({str(path): vars(compaction) for path, compaction in done.items()})
        return
    for path, compaction in done.items():
        print_line(
            f"{path}: {counted(compaction.segments_before, 'segment is', 'segments are')} now "
            f"{count(compaction.segments_after)}, {counted(compaction.rows_dropped, 'repeated row')} dropped"
        )


@cache_command.command("remove", epilog="\b\nExample: ssna cache remove minilm --yes")
@click.argument("caches", nargs=-1, required=True, metavar="CACHE…")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cache_root_option
@json_option
def remove_command(caches: tuple[str, ...], yes: bool, cache_root: str | None, as_json: bool) -> None:
    """Delete caches."""
    done = list[dict[str, object]]()
    for path in [locate_cache(which, cache_root) for which in caches]:
        num_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        summary = f"{path} ({size(num_bytes)})"
        try:
            confirmed = yes or click.confirm(f"Delete {summary}?", err=True)
        except click.Abort as error:
            raise CacheError(
                f"{path} was kept: nobody answered. Give --yes to delete it without being asked."
            ) from error
        done.append({"path": str(path), "bytes": num_bytes, "deleted": confirmed})
        if confirmed:
            remove_cache(path)
        if not as_json:
            (print_line if confirmed else print_note)(f"{'deleted' if confirmed else 'kept'} {summary}")
    if as_json:
        print_json(done)
