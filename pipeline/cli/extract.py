"""`ssna extract`."""

from __future__ import annotations

from typing import Any

import click

from ssna.api.extract import extract
from ssna.cache import STORED_DTYPES
from ssna.cli.options import cache_root_option, default_of, device_option, json_option, layers_number
from ssna.stage1_extract import Extraction
from ssna.terminal import count, extraction_progress, print_json, print_line, size


@click.command("extract", epilog="\b\nExample: ssna extract data/ml-100k --llm sentence-transformers/all-MiniLM-L6-v2")
@click.argument("dataset")
@click.option("--llm", required=True, metavar="PATH_OR_ID", help="Folder of an encoder LLM, or its hub id.")
@click.option(
    "--layers", callback=layers_number, default="all", show_default=True, metavar="A",
    help="Top layers to keep, or all: every block, without the embedding layer.",
)  # fmt: skip
@click.option("--name", metavar="NAME", help="Of the cache, for `ssna adapt --llm`.  [default: from PATH_OR_ID]")
@click.option("--max-tokens", type=int, metavar="T", help="Longer texts are cut.  [default: 512, or the LLM's limit]")
@click.option(
    "--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default=default_of(extract, "dtype"),
    show_default=True, help="Of the computation; auto is float32 on a CPU, bfloat16 on a GPU.",
)  # fmt: skip
@click.option(
    "--store", type=click.Choice(STORED_DTYPES), default=default_of(extract, "store"), show_default=True,
    help="Of the cached states.",
)  # fmt: skip
@click.option(
    "--batch-tokens", type=click.IntRange(1), metavar="N",
    help="Tokens read at once.  [default: 2048 on a CPU, 16384 on a GPU]",
)  # fmt: skip
@device_option
@cache_root_option
@json_option
def extract_command(dataset: str, llm: str, as_json: bool, **options: Any) -> None:
    """Stage one: run the frozen LLM over the item texts of DATASET that its cache lacks.

    Only new texts are computed. Interrupted at any moment, the same command goes on where it stood.
    """
    with extraction_progress() as on_progress:
        done = extract(dataset, llm, on_progress=on_progress, **options)
    if as_json:
        print_json(done.as_json())
    else:
        print_line(extraction_line(done))


def extraction_line(done: Extraction) -> str:
    """The one line that says what an extraction did."""
    cached = "all texts were already cached" if done.cached == done.texts else f"{count(done.cached)} cached before"
    return (
        f"{count(done.texts)} distinct texts: {cached}, {count(done.extracted)} extracted, "
        f"{count(done.tokens)} tokens, {count(done.truncated)} truncated, {done.seconds:.1f} s, "
        f"{size(done.bytes)} on disk, cache '{done.name}' in {done.cache}"
    )
