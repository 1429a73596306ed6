"""`ssna adapt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ssna.api.adapt import adapt
from ssna.api.study import study_layers
from ssna.cli.options import (
    cache_root_option,
    device_option,
    json_option,
    layers_number,
    memory_budget_option,
    one_or_each,
    option_of,
    whole_numbers,
)
from ssna.cli.results import metric_label, print_results
from ssna.devices import leads
from ssna.runs import is_finished, read_config
from ssna.stage2_adapt import (
    ACTIVATIONS,
    CANDIDATES,
    FUSIONS,
    LOSSES,
    MODELS,
    PRECISIONS,
    PREPARATIONS,
    SCHEDULES,
    SCORERS,
    SIDES,
    SPLITS,
    AdaptOptions,
)
from ssna.terminal import count, counted, print_json, print_line, print_note, print_table, training_progress

_option = option_of(AdaptOptions)
# What it uses, or refuses itself.
_OF_POPULARITY = {"model", "split", "candidates", "seed", "layers", "text"}
_OF_ADAPTERS = {"side_width", "side_dropout", "activation"}


@click.command("adapt", epilog="\b\nExample: ssna adapt data/ml-100k --llm minilm --item-id --output runs/text-and-ids")
@click.argument("dataset")
@click.option(
    "--llm",
    metavar="NAME",
    multiple=True,
    help="Cache of layer states: its name, or the path or id it was made from. Several are fused.",
)
@click.option("--cache", type=click.Path(file_okay=False), multiple=True, help="Folder of a cache, instead of --llm.")
@click.option("--output", required=True, metavar="RUN", help="Run folder to write.")
@_option("model", "The sequence model, or the popularity baseline.", type=click.Choice(MODELS))
@_option("side", "Integration of the layers' adapters; none learns item IDs only.", type=click.Choice(SIDES))
@click.option(
    "--layers",
    multiple=True,
    metavar="A",
    help="Top layers to adapt, or all; once for each LLM if they differ. A list such as 1,2,4 makes a study: a run for "
    "each.  [default: all that are cached]",
)
@click.option(
    "--text",
    multiple=True,
    callback=lambda context, parameter, values: one_or_each(values),
    metavar="TEMPLATE",
    help="What `ssna extract --text` read, instead of the items' text; once for each LLM if they differ.",
)
@_option("preparation", "Of the states.", type=click.Choice(PREPARATIONS))
@click.option(
    "--components",
    multiple=True,
    callback=whole_numbers,
    metavar="K",
    help="Principal components of each layer's states that are read; once for each LLM if they differ.  [default: all "
    "dimensions as they are]",
)
@click.option(
    "--side-width",
    multiple=True,
    callback=whole_numbers,
    metavar="D",
    help="Of the adapters; once for each LLM if they differ.  [default: --width]",
)
@_option("side_dropout", "Share of the adapters' outputs dropped in training.", type=float, metavar="P")
@_option("activation", "Of the adapters.", type=click.Choice(ACTIVATIONS))
@_option("item_id", "Add a learned ID embedding to each item.", is_flag=True)
@_option("id_dropout", "Share of ID embeddings left out of each training step.", type=float, metavar="P")
@_option("fusion", "Of several LLMs and of IDs: their sum, or weighted by the text.", type=click.Choice(FUSIONS))
@_option("split", f"What validates and tests: {', '.join(SPLITS)}.", metavar="NAME")
@_option("candidates", "What is ranked: interacted items, or all with a text.", type=click.Choice(CANDIDATES))
@_option("width", "Of item vectors and the sequence model.", type=int, metavar="D")
@_option("length", "Most recent interactions that are read.", type=int, metavar="L")
@_option("blocks", "Of the sequence model.", type=int, metavar="N")
@_option("heads", "Attention heads of each block.", type=int, metavar="N")
@_option("dropout", "Share of values dropped in training.", type=float, metavar="P")
@_option("scorer", "Cosine with a learned temperature, or dot product.", type=click.Choice(SCORERS))
@_option("repeat_bias", "Learn how likely items of the history are to come again.")
@_option("popularity_bias", "Learn how much likelier popular items are.")
@_option("loss", "Over all training items, or a sample of them.", type=click.Choice(LOSSES))
@_option("negatives", "Items drawn a step, for the losses sampled and gbce.", type=int, metavar="N")
@_option("calibration", "t of gBCE.", type=float, metavar="T")
@_option("batch_size", "Sequences a step.", type=int, metavar="B")
@_option("learning_rate", "Of AdamW, at its highest.", type=float, metavar="X")
@_option("schedule", "Of the learning rate after the warm-up.", type=click.Choice(SCHEDULES))
@_option("warmup", "Steps over which the learning rate rises.", type=int, metavar="N")
@_option("weight_decay", "Of AdamW, on matrices.", type=float, metavar="X")
@_option("clip", "Largest norm of the gradient.", type=float, metavar="X")
@_option("averaging", "Epochs over which parameters are averaged; 0 for none.", type=float, metavar="E")
@_option("precision", "Of the computation; auto is bfloat16 on a GPU that has it.", type=click.Choice(PRECISIONS))
@_option("compile", "Compile the model.", is_flag=True)
@_option("epochs", "At most so many.", type=int, metavar="E")
@_option("patience", "Epochs without a better validation NDCG@10 before stopping.", type=int, metavar="N")
@_option("seed", "Of initialisation, order and dropout.", type=int, metavar="S")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads.  [default: PyTorch's choice]")
@click.option(
    "--time-limit", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Begin no further epoch after it."
)
@memory_budget_option("half of what is free")
@click.option("--tensorboard", is_flag=True, help="Write the curves for TensorBoard too, in RUN/tensorboard.")
@click.option("--overwrite", is_flag=True, help="Replace a run folder that is there.")
@click.option("--resume", is_flag=True, help="Go on with a run folder that is there.")
@device_option
@cache_root_option
@json_option
def adapt_command(dataset: str, output: str, layers: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Stage two: train a recommender for DATASET from cached layer states. The LLM is never loaded.

    \b
    Text:             --llm NAME
    Text and IDs:     --llm NAME --item-id
    IDs only:         --side none
    Popularity:       --model popularity
    Two LLMs:         --llm NAME --llm OTHER
    Study of layers:  --llm NAME --layers 1,2,4,6
    Several GPUs:     torchrun --nproc-per-node 4 -m ssna adapt …
    """
    chosen = AdaptOptions(
        layers=None, **{field.name: options.pop(field.name) for field in fields(AdaptOptions) if field.name in options}
    )
    _note_what_is_not_used(chosen)
    numbers = [_layers_of(value) for value in layers]
    if any(len(listed) > 1 for listed in numbers):
        if len(numbers) > 1:
            raise click.BadParameter(
                "a list of layers is a study and is given once, for all LLMs.", param_hint="--layers"
            )
        _run_study(dataset, output, numbers[0], chosen, as_json, options)
        return
    chosen = replace(chosen, layers=one_or_each(tuple(listed[0] for listed in numbers)))
    was_finished = options["resume"] and is_finished(Path(output))
    with training_progress(shown=leads()) as (on_epoch, on_step):
        results = adapt(
            dataset,
            output,
            options=chosen,
            on_epoch=on_epoch,
            on_step=on_step,
            on_note=print_note if leads() else None,
            **options,
        )
    if not leads():
        return
    if was_finished:
        print_note(f"{output} is finished already; nothing was done.")
    if as_json:
        print_json(results)
        return
    _print_run(output, results, chosen)


def _note_what_is_not_used(chosen: AdaptOptions) -> None:
    """Say which of the options given have no effect beside the others."""
    context = click.get_current_context()
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is ParameterSource.COMMANDLINE}
    of_training = {field.name for field in fields(AdaptOptions)} - _OF_POPULARITY
    if chosen.model == "popularity":
        _note_unused(given & {*of_training, "tensorboard"}, "--model popularity, which is counted and not trained")
        return
    if not chosen.needs_states:
        _note_unused(
            given & {*_OF_ADAPTERS, "preparation", "components", "memory_budget"},
            "--side none, which reads no LLM states",
        )
    elif chosen.side == "frozen":
        _note_unused(given & _OF_ADAPTERS, "--side frozen, which has no adapters")
    if not chosen.item_id:
        _note_unused(given & {"id_dropout"}, "a model without --item-id")
    if chosen.model in ("gru4rec", "fmlp"):
        _note_unused(given & {"heads"}, f"--model {chosen.model}")
    if chosen.loss not in ("sampled", "gbce"):
        _note_unused(given & {"negatives"}, f"--loss {chosen.loss}")
    if chosen.loss != "gbce":
        _note_unused(given & {"calibration"}, f"--loss {chosen.loss}")


def _note_unused(names: set[str], by: str) -> None:
    if names and leads():
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))
        print_note(f"Without effect under {by}: {flags}.")


def _layers_of(value: str) -> list[int | None]:
    """The numbers of one `--layers`."""
    context = click.get_current_context()
    parameter = next(one for one in context.command.params if one.name == "layers")
    return [layers_number(context, parameter, number) for number in value.split(",")]


def _run_study(
    dataset: str,
    output: str,
    layers: Sequence[int | None],
    chosen: AdaptOptions,
    as_json: bool,
    options: Mapping[str, Any],
) -> None:
    """One run for each number of layers, and their table."""
    with training_progress(shown=leads()) as (on_epoch, on_step):
        done = study_layers(
            dataset,
            output,
            layers,
            options=chosen,
            on_epoch=on_epoch,
            on_step=on_step,
            on_note=print_note if leads() else None,
            **options,
        )
    if not leads():
        return
    if as_json:
        print_json(done)
        return
    columns = ("valid", "recall@10"), ("valid", "ndcg@10"), ("test", "recall@10"), ("test", "ndcg@10")
    print_table(
        ["run", "layers", *(f"{part} {metric_label(name)}" for part, name in columns), "parameters", "s an epoch"],
        [
            [
                f"{output}/{run['run']}",
                str(run["layers"]),
                *(f"{run['results'][part].get(name, float('nan')):.4f}" for part, name in columns),
                count(run["results"]["trainable_parameters"]),
                f"{run['results']['epoch_seconds']:.2f}",
            ]
            for run in done["runs"]
        ],
    )


def _print_run(output: str, results: Mapping[str, Any], chosen: AdaptOptions) -> None:
    print_results({output: results})
    best, epochs = results["best_epoch"], results["epochs"]
    cut = " (ended by --epochs)" if epochs == chosen.epochs and epochs - best < chosen.patience else ""
    trained = f"best epoch {best} of {epochs}{cut}, " if epochs else ""
    others = ""
    if left_out := results["users_not_evaluated"]:
        only = "it only trains" if left_out == 1 else "they only train"
        reason = f"too short to be, {only}" if chosen.split != "time" else "without history or target"
        others = f" ({count(left_out)} {reason})"
    for cache in read_config(Path(output))["caches"]:
        folder, layers = Path(cache["path"]).name, cache["layers"]
        text = "" if cache.get("text") is None else f", text '{cache['text']}'"
        which = (
            f"its {len(layers)} top layers ({layers[0]} down to {layers[-1]})" if len(layers) > 1 else "its top layer"
        )
        print_line(f"{output}: states of {folder}, {which}{text}")
    print_line(
        f"{output}: {trained}{counted(results['users'], 'user')} evaluated{others}, "
        f"{counted(results['candidates'], 'candidate')}, {results['total_seconds']:.1f} s"
    )
