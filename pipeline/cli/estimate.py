"""`ssna estimate`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click

from ssna.api.estimate import Estimate, estimate
from ssna.cache import STORED_DTYPES
from ssna.cli.options import default_of, device_option, json_option, layers_number, memory_budget_option, option_of
from ssna.stage1_extract import COMPUTE_DTYPES, ExtractOptions
from ssna.stage2_adapt import LOSSES, PRECISIONS, SIDES, AdaptOptions
from ssna.terminal import counted, duration, print_json, print_line, print_table, size

_extracting, _adapting = option_of(ExtractOptions), option_of(AdaptOptions)
_EXAMPLES = """\b
Example: ssna estimate sentence-transformers/all-MiniLM-L6-v2 --items 100000 --tokens 25
         ssna estimate Qwen/Qwen3-8B --items 1000000 --layers 8 --device cuda
         ssna estimate Qwen/Qwen3-8B --items 1000000 --layers 8 --tflops 300
"""


@click.command("estimate", epilog=_EXAMPLES)
@click.argument("llm", metavar="PATH_OR_ID")
@click.option("--items", type=int, required=True, metavar="N", help="Distinct item texts.")
@click.option(
    "--tokens", type=float, default=default_of(estimate, "tokens"), show_default=True, metavar="T",
    help="Of a text on average; `ssna extract --dry-run` counts them.",
)  # fmt: skip
@click.option("--history", type=int, metavar="L", help="Interactions of a user on average.  [default: --length]")
@click.option(
    "--layers", callback=layers_number, default="all", show_default=True, metavar="A", help="Top layers to adapt."
)
@_extracting("revision", "Branch, tag or commit of a hub id.", metavar="NAME")
@_extracting("dtype", "Of the extraction.", type=click.Choice(COMPUTE_DTYPES))
@_extracting("store", "Of the cached states.", type=click.Choice(STORED_DTYPES))
@_extracting("max_tokens", "Longer texts are cut.  [default: 512, or the LLM's limit]", type=int, metavar="T")
@_extracting("batch_tokens", "Tokens read at once.", type=click.IntRange(1), metavar="N")
@_adapting(
    "components", "Principal components of each layer's states that are read.  [default: all]", type=int, metavar="K"
)
@_adapting("side", "Integration of the layers' adapters.", type=click.Choice(SIDES[:-1]))
@_adapting("item_id", "Add a learned ID embedding to each item.", is_flag=True)
@_adapting("width", "Of item vectors and the sequence model.", type=int, metavar="D")
@_adapting("length", "Most recent interactions that are read.", type=int, metavar="L")
@_adapting("loss", "Over all training items, or a sample of them.", type=click.Choice(LOSSES))
@_adapting("negatives", "Candidates drawn in each step.", type=int, metavar="N")
@_adapting("batch_size", "Sequences a step.", type=int, metavar="B")
@_adapting("precision", "Of the training.", type=click.Choice(PRECISIONS))
@memory_budget_option("enough for all")
@click.option(
    "--tflops", type=click.FloatRange(0, min_open=True), metavar="X",
    help="What a device elsewhere reaches on such an LLM, in 10^12 operations a second; nothing is timed then. It "
    "counts as a GPU with bfloat16 unless --device names another kind.",
)  # fmt: skip
@device_option
@json_option
def estimate_command(llm: str, as_json: bool, **options: Any) -> None:
    """Predict the time of an extraction, the size of its cache and the memory of training.

    Only the LLM's configuration is read. A small part of it, with random weights, is timed on the device, unless
    --tflops tells the speed.
    """
    extracting = ExtractOptions(**_taken(ExtractOptions, options))
    adapting = AdaptOptions(**_taken(AdaptOptions, options))
    found = estimate(llm, extract_options=extracting, adapt_options=adapting, **options)
    if as_json:
        print_json(found.as_json())
    else:
        _show(found)


def _taken(kind: type, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are fields of a kind, taken out; the number of layers is one of all and stays."""
    names = {field.name for field in fields(kind)} & set(options) - {"layers"}
    return {name: options.pop(name) for name in names}


def _show(found: Estimate) -> None:
    layers = "all" if found.layers == found.blocks else f"the top {found.layers}"
    print_line(
        f"{found.llm}: {found.parameters / 1e6:,.0f} million parameters, {counted(found.blocks, 'layer')} of width "
        f"{found.width}, {layers} kept; {counted(found.items, 'text')}, {counted(round(found.tokens), 'token')}"
    )
    if found.extraction_measured:
        where, how = found.device, "measured on a part"
    else:
        where, how = f"elsewhere ({found.device})", "from --tflops"
    print_table(
        ["", "expected", ""],
        [
            ["extraction, once", duration(found.extraction_seconds), f"{where}, {found.compute_dtype}, {how}"],
            ["the LLM's weights", size(found.llm_bytes), "on the device, in the extraction only"],
            ["cache", size(found.cache_bytes), "on disk"],
            ["training", size(found.training_bytes), f"{where}, {found.precision}, of which:"],
            ["  layer states", size(found.state_bytes), "of all items, or within --memory-budget"],
            ["  model and optimiser", size(found.model_bytes), ""],
            ["  a step, and reading", size(found.step_bytes), ""],
        ],
    )
