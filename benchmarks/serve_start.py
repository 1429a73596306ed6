"""How long `ssna serve` takes until it answers, against the import of PyTorch, which it cannot do without.

    python benchmarks/serve_start.py RUN

Starts the service and the import in turn, after one unmeasured round that fills the page cache, and prints the median
and the range of their ratio. The figure in docs/serving.md is this script's.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import urllib.request

import click


def seconds_until_it_answers(run: str) -> float:
    """From the start of the process to its answer to a request."""
    command = [sys.executable, "-m", "ssna", "serve", run, "--port", "0", "--device", "cpu", "--json"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
        assert service.stdout is not None
        try:
            line = service.stdout.readline()
            if not line:
                raise SystemExit("the service did not start; `ssna serve` says why")
            with urllib.request.urlopen(f"{json.loads(line)['url']}/health") as answer:
                answer.read()
            return time.perf_counter() - started
        finally:
            service.terminate()


def seconds_to_import_torch() -> float:
    """Of a process that does nothing else."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - started


@click.command()
@click.argument("run")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
def main(run: str, rounds: int) -> None:
    """Measure the start of the service of RUN."""
    ratios = [seconds_until_it_answers(run) / seconds_to_import_torch() for _ in range(rounds + 1)][1:]
    click.echo(
        f"start of the service / import of torch: median {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}, {rounds} rounds)"
    )


if __name__ == "__main__":
    main()
