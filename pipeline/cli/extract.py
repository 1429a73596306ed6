"""`ssna extract`."""

from __future__ import annotations

from typing import Any

import click

from ssna.api.extract import extract, plan_extraction
from ssna.cache import STORED_DTYPES
from ssna.cli.options import Command, cache_root_option, device_option, json_option, layers_number, option_of
from ssna.devices import leads
from ssna.stage1_extract import COMPUTE_DTYPES, POOLINGS, Extraction, ExtractOptions, Plan
from ssna.terminal import count, counted, print_json, print_line, print_table, size, work_progress

_option = option_of(ExtractOptions)
_EXAMPLES = """\b
Example: ssna extract data/ml-100k --llm sentence-transformers/all-MiniLM-L6-v2
         torchrun --nproc-per-node 8 -m ssna extract data/ml-100k --llm Qwen/Qwen3-8B
"""


def loading_options(command: Command) -> Command:
    """`--batch-tokens`, `--device-map` and `--trust-remote-code`: how the LLM is loaded and fed."""
    command = _option("trust_remote_code", "Run Python code that comes with the LLM.", is_flag=True)(command)
    command = _option("device_map", "Spread an LLM that one device cannot hold.", type=click.Choice(["auto"]))(command)
    return _option(
        "batch_tokens",
        "Tokens read at once.  [default: 2048 on a CPU, 16384 on a GPU]",
        type=click.IntRange(1),
        metavar="N",
    )(command)


@click.command("extract", epilog=_EXAMPLES)
@click.argument("dataset")
@click.option("--llm", required=True, metavar="PATH_OR_ID", help="Folder or GGUF file of an LLM, or its hub id.")
@_option("revision", "Branch, tag or commit of a hub id.", metavar="NAME")
@click.option(
    "--layers", callback=layers_number, default="all", show_default=True, metavar="A",
    help="Top layers to keep, or all: every block, without the embedding layer.",
)  # fmt: skip
@click.option(
    "--name",
    metavar="NAME",
    help="Of the cache, for `ssna adapt --llm`; each LLM and its settings need their own.  [default: from PATH_OR_ID]",
)
@click.option(
    "--text", metavar="TEMPLATE", help="Of the dataset's fields, e.g. '{description}', instead of the items' text."
)
@_option("max_tokens", "Longer texts are cut.  [default: 512, or the LLM's limit]", type=int, metavar="T")
@_option(
    "pooling",
    "Of a text's tokens.  [default: what the LLM was trained with if its folder says so, else mean]",
    type=click.Choice(POOLINGS),
)
@click.option("--prefix", metavar="TEXT", help="Goes before each text, e.g. 'passage: '.")
@_option("template", "What the LLM reads, e.g. 'Product: {text}'.", metavar="TEXT")
@_option(
    "dtype",
    "Of the computation; auto is float32 on a CPU, bfloat16 on a GPU.",
    type=click.Choice(COMPUTE_DTYPES),
)
@_option("store", "Of the cached states.", type=click.Choice(STORED_DTYPES))
@loading_options
@_option("tensor_parallel", "Under torchrun: share each weight, not the texts.", is_flag=True)
@_option("compile", "Compile the LLM (torch.compile).", is_flag=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be done: texts, tokens, size on disk.")
@device_option
@cache_root_option
@json_option
def extract_command(dataset: str, llm: str, prefix: str | None, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Stage one: run the frozen LLM over the item texts of DATASET that its cache lacks.

    Only new texts are computed. Interrupted at any moment, the same command goes on where it stood.
    """
    if prefix is not None:
        if options["template"] is not None:
            raise click.UsageError("--prefix and --template exclude each other. Give one of them.")
        options["template"] = f"{prefix}{{text}}"
    others = {name: options.pop(name) for name in ("name", "text", "device", "cache_root")}
    chosen = ExtractOptions(**options)
    if dry_run:
        _show(plan_extraction(dataset, llm, options=chosen, **others), as_json)
        return
    with work_progress("extracting", "texts", shown=leads()) as on_progress:
        done = extract(dataset, llm, options=chosen, on_progress=on_progress, **others)
    if as_json and leads():
        print_json(done.as_json())
    elif leads():
        print_line(extraction_line(done))


def extraction_line(done: Extraction) -> str:
    """The one line that says what an extraction did."""
    cached = "all texts were already cached" if done.cached == done.texts else f"{count(done.cached)} cached before"
    padding = f" ({done.padding:.1%} padding)" if done.extracted else ""
    return (
        f"{counted(done.texts, 'distinct text')}: {cached}, {count(done.extracted)} extracted, "
        f"{counted(done.tokens, 'token')}{padding}, {count(done.truncated)} truncated, {done.seconds:.1f} s, "
        f"{counted(len(done.layers), 'layer')} ({done.pooling} pooling), {size(done.bytes)} on disk, "
        f"cache '{done.name}' in {done.cache}"
    )


def _show(plan: Plan, as_json: bool) -> None:
    """Print what an extraction would do."""
    if as_json:
        print_json(plan.as_json())
        return
    print_line(
        f"{counted(plan.texts, 'distinct text')}: {count(plan.cached)} cached, {count(plan.missing)} to extract with "
        f"{counted(len(plan.layers), 'layer')} ({plan.pooling} pooling), {counted(plan.tokens, 'token')}, "
        f"{count(plan.truncated)} truncated, {size(plan.bytes)} on disk"
    )
    if plan.missing:
        print_table(
            ["tokens of a missing text", *plan.tokens_quantiles], [["", *map(count, plan.tokens_quantiles.values())]]
        )
