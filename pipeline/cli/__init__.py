"""The `ssna` command. Each command parses its options and calls the function of the same name in `ssna`."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import re
import signal
import sys
from types import FrameType

import click

from ssna import __version__
from ssna.cache import SsnaError
from ssna.terminal import be_quiet, size

# Threads that wait for each other shall not spin: where another process takes a core, training would take many
# times as long, and on a free machine it gains nothing. OpenMP reads this when PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# oneDNN keeps the code that it has made for each of 1,024 shapes. Batches differ in theirs, so each new piece would lie
# where a step has freed memory, which the next step then cannot use as a whole, and memory would grow for hundreds of
# steps. Making code anew takes 2 % of a step's time (docs/performance.md).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")

_SUMMARIES = {
    "download": "Fetch a public dataset from its publisher.",
    "prepare": "Write a dataset folder from a public format.",
    "extract": "Run a frozen LLM once over the item texts (stage one).",
    "adapt": "Train a recommender from cached layer states (stage two).",
    "evaluate": "Compute the metrics of finished runs again.",
    "compare": "Test the difference of two runs over the same users.",
    "recommend": "Rank items for a user, a history or all users.",
    "similar": "Find the items that are nearest to an item.",
    "add-items": "Let new items be recommended, without training.",
    "report": "Show finished runs side by side on one HTML page.",
    "export": "Write what a serving system needs: vectors, ONNX, an index.",
    "serve": "Answer over HTTP, with a page to try it.",
    "estimate": "Predict time, disk and memory before one spends them.",
    "cache": "List, verify, compact and remove caches.",
}


def _quiet_option() -> click.Option:
    """`--quiet`, which every command has."""
    return click.Option(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=lambda context, parameter, quiet: be_quiet(quiet),
        help="No progress and no notes on stderr, only errors.",
    )


class _ReaderGone(BaseException):
    """The reader of our output has gone, as `head` does."""


class _Commands(click.Group):
    """The commands, each imported when it is called: help and `prepare` need not wait for PyTorch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _SUMMARIES:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"ssna.cli.{name}"), f"{name}_command")
        for each in command.commands.values() if isinstance(command, click.Group) else [command]:
            if all(parameter.name != "quiet" for parameter in each.params):
                each.params.append(_quiet_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click has it, with what may have been meant: it looks among commands that are imported already."""
        if args[0] not in _SUMMARIES and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], _SUMMARIES, n=1)
            meant = f"Did you mean {close[0]}?" if close else f"Expected one of {', '.join(_SUMMARIES)}."
            raise click.UsageError(f"No such command '{args[0]}'. {meant}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """As click has it, but for a reader that has gone (click would exit as if something had failed) and memory."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            raise SsnaError(_memory_sentence(error, ctx.invoked_subcommand or "")) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="\b\nExample: ssna adapt data/ml-100k --llm minilm --output runs/text",
)
@click.version_option(__version__, prog_name="ssna")
def cli() -> None:
    """Adapt frozen large language models (LLMs) to sequential recommendation.

    \b
    download   publisher         ->  public data
    prepare    public data       ->  dataset folder
    extract    dataset + LLM     ->  cache of layer states   (stage one, once per LLM)
    adapt      dataset + cache   ->  run folder              (stage two, per dataset)
    evaluate, compare, recommend, similar, add-items  <-  run folders
    report     run folders       ->  HTML page
    export     run folder        ->  vectors, ONNX, vector index
    serve      run folder        ->  HTTP service
    estimate   time, disk and memory, from an LLM's configuration
    cache      looks after caches
    """


_STOPPED = (
    "stopped. Run the same command again: `ssna extract` goes on from what it committed, `ssna adapt` with --resume "
    "from its last epoch, `ssna download` where it was; the others start anew."
)


# `ssna` alone, which shows its help; click before 8.2 has no exception for it.
_NO_ARGUMENTS: type[Exception] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())


class Terminated(BaseException):
    """SIGTERM came; an exception, so that an extraction commits the rows it holds."""


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and an exit status other than 0."""
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # Not under nohup.
        signal.signal(signal.SIGHUP, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # A title is no reason to fail in a terminal that lacks its letters.
    try:
        status = cli.main(prog_name="ssna", standalone_mode=False)
    except click.UsageError as error:
        if error.ctx is None or isinstance(error, _NO_ARGUMENTS):
            error.show()
            sys.exit(error.exit_code)
        message = " ".join(error.format_message().split())  # Choices are listed one a line.
        if isinstance(error, click.NoSuchOption) and error.ctx.command is cli:
            message = f"No such option {error.option_name}; options of a command come after its name."
        _fail(
            f"{message}{'' if message.endswith(('.', '?')) else '.'} See `{error.ctx.command_path} --help`.",
            error.exit_code,
        )
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SsnaError as error:
        _fail(str(error))
    except (click.Abort, KeyboardInterrupt):
        _fail(_STOPPED, 130)
    except Terminated:
        _fail(_STOPPED, 128 + signal.SIGTERM)
    except _ReaderGone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # What is left is flushed at exit.
        sys.exit(141)  # 128 + SIGPIPE, as shells have it.
    except OSError as error:
        _fail(_sentence(error))
    sys.exit(status if isinstance(status, int) else 0)


def _stop(signal_number: int, frame: FrameType | None) -> None:
    raise Terminated


def _fail(message: str, status: int = 1) -> None:
    rank = int(os.environ.get("RANK", "0"))  # Of the processes that torchrun started each has its own sentence.
    print(f"Error{f' of process {rank}' if rank else ''}: {message}", file=sys.stderr)
    sys.exit(status)


_MORE_MEMORY = "End other programs that hold memory, or take a machine with more"
_LESS_MEMORY = {
    "extract": "Give a lower --batch-tokens or --max-tokens",
    "adapt": (
        "Give a lower --memory-budget (the layer states beyond it are read from the cache) or --batch-size, --loss "
        "sampled if it is softmax, or fewer --layers"
    ),
    "add-items": "Give a lower --batch-tokens",
    **dict.fromkeys(
        ("evaluate", "compare", "recommend", "similar", "report", "serve"),
        f"If it was a GPU's, give --device cpu. {_MORE_MEMORY}",
    ),
}
"""What takes less memory, by command"""


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    # Of PyTorch's allocators, only that of GPUs has an exception of its own.
    torch = sys.modules.get("torch")  # What did not import it cannot have raised it.
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or "you tried to allocate" in str(error)
        or "out of memory" in str(error)
    )


def _memory_sentence(error: MemoryError | RuntimeError, command: str) -> str:
    asked = re.search(r"allocate ([\d.]+) ?(\w+)", str(error))
    more = ""
    if asked is not None:
        number, unit = asked.groups()
        more = f" ({size(int(number)) if unit == 'bytes' else f'{number} {unit}'} more could not be had)"
    return f"the memory ran out{more}. {_LESS_MEMORY.get(command, _MORE_MEMORY)}."


def _sentence(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}. Change or free the place, and run the command again."
