"""The `ssna` command. Each command parses its options and calls the function of the same name in `ssna`."""

from __future__ import annotations

import io
import signal
import sys
from types import FrameType

import click

from ssna import __version__
from ssna.cache import SsnaError
from ssna.cli.adapt import adapt_command
from ssna.cli.evaluate import evaluate_command
from ssna.cli.extract import extract_command
from ssna.cli.prepare import prepare_command
from ssna.cli.recommend import recommend_command


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="\b\nExample: ssna adapt data/ml-100k --llm minilm --output runs/text",
)
@click.version_option(__version__, prog_name="ssna")
def cli() -> None:
    """Adapt frozen large language models (LLMs) to sequential recommendation.

    \b
    prepare    public data       ->  dataset folder
    extract    dataset + LLM     ->  cache of layer states   (stage one, once per LLM)
    adapt      dataset + cache   ->  run folder              (stage two, per dataset)
    evaluate, recommend          <-  run folder
    """


for command in (prepare_command, extract_command, adapt_command, evaluate_command, recommend_command):
    cli.add_command(command)


_STOPPED = (
    "stopped. Run the same command again: `ssna extract` goes on from what it committed, `ssna adapt` with --resume "
    "from its last epoch; the others start anew."
)


class _Terminated(BaseException):
    """SIGTERM came; an exception, so that an extraction commits the rows it holds."""


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and an exit status other than 0."""
    signal.signal(signal.SIGTERM, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # A title is no reason to fail in a terminal that lacks its letters.
    try:
        status = cli.main(prog_name="ssna", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SsnaError as error:
        _fail(str(error))
    except (click.Abort, KeyboardInterrupt):
        _fail(_STOPPED, 130)
    except _Terminated:
        _fail(_STOPPED, 128 + signal.SIGTERM)
    except BrokenPipeError:  # The reader of our output has gone, as `head` does.
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        _fail(_sentence(error))
    sys.exit(status if isinstance(status, int) else 0)


def _stop(signal_number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _fail(message: str, status: int = 1) -> None:
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(status)


def _sentence(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}. Change or free the place, and run the command again."
