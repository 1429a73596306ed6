"""How the cost of an epoch grows (docs/efficiency.md), on made-up catalogues and LLMs with random weights.

    python benchmarks/growth.py run --tokenizer LLM_FOLDER --threads 1
    python benchmarks/growth.py run --tokenizer LLM_FOLDER --study items --row ssna
    python benchmarks/growth.py paper

Neither time nor memory depends on what weights and states are, so random ones do. Every finished measurement is a line
of benchmarks/results/efficiency.jsonl, whose tables `efficiency.py table` prints. The folder of the tokenizer is that
of a BERT with the uncased English vocabulary, such as all-MiniLM-L6-v2.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from backbone_in_loop.costs import LLMS_ON_PAPER, Learning, Shape, paper_tables, training_bytes
from backbone_in_loop.methods import UNCACHED
from backbone_in_loop.training import Problem, start
from efficiency import RESULTS, ROWS, Row, fill_in
from efficiency_tables import REFERENCE, STUDY_VALIDATED
from lines import Lines
from measuring import Budget, in_a_fork, time_steps, time_validation
from train import as_they_are, made_up_cache

from ssna.cache import Cache, find_cache, keys_of_texts
from ssna.stage1_extract import ExtractOptions, extract_texts
from ssna.stage2_adapt import (
    ItemStates,
    ResidentStates,
    Sequences,
    StreamedStates,
    Training,
    TrainingData,
    leave_last,
)

SHAPES = {"MiniLM": (6, 384), "BERT-base": (12, 768), "BERT-large": (24, 1024)}
"""Blocks and width of LLMs; the feed-forward part is four times as wide, and attention heads read 64 dimensions"""
DECODERS: dict[str, dict[str, int]] = {
    "SmolLM-135M": {
        "hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536, "num_attention_heads": 9,
        "num_key_value_heads": 3,
    }
}  # fmt: skip
"""Shapes of Llama's form"""
# Words that are one token each, so that a text's length is known.
_WORDS = (
    "red green blue black white small large new old light heavy hard soft metal wood glass paper steel water air fire "
    "hand foot head eye door wall floor window table chair lamp box bag cup plate knife cable wire tube filter pump "
    "motor engine wheel belt screw tool kit set pack pair safety work home office school garden kitchen field test"
)
WORDS = _WORDS.split()
USERS, LENGTH = 2_000, 10
VOCABULARY = 30_522
BATCH_SIZE = 32
"""Sequences a step: so few that full fine-tuning of the largest LLM, and of the longest texts, fits into 16 GB"""
_CONSTANTS_OF = 256
_RESIDENT = 2**30  # Bytes of states beyond which they are streamed from a made-up cache.
_STREAMED = 200_000_000
_NAME = "extracted"


@dataclass(frozen=True)
class Case:
    """One size of everything that grows."""

    shape: str = "MiniLM"
    blocks: int | None = None
    """Instead of the shape's"""
    items: int = 10_000
    tokens: int = 16
    """Of each text, the two special ones included"""
    layers: int = 6
    """a"""

    @property
    def streamed(self) -> bool:
        """Whether the states of all items would fill the memory."""
        return 4 * self.items * self.layers * SHAPES[self.shape][1] > _RESIDENT


STUDIES: dict[str, dict[str, Case]] = {
    "items": {f"{items:,}": Case(items=items) for items in (1_000, 10_000, 100_000, 1_000_000)},
    "LLM": {name: Case(shape=name) for name in SHAPES},
    "depth": {f"{blocks} blocks": Case(blocks=blocks) for blocks in (6, 12, 24)},
    "a": {str(layers): Case(layers=layers) for layers in (1, 2, 3, 4, 6)},
    "tokens": {str(tokens): Case(tokens=tokens) for tokens in (8, 16, 32, 64, 128)},
}
LEARNING: dict[str, Learning] = {UNCACHED: "uncached", "lora": "frozen weights", "full": "full"}
EXTRACTED = "ssna-extracted"
"""ssna on states that stage one has really extracted, instead of made-up ones"""
EXTRACTED_IN = ("depth", "tokens")
"""Studies of what only the extraction meets"""
STUDIED: dict[str, Row] = {
    **{row: ROWS[row] for row in (REFERENCE, "ssna-default", UNCACHED, "lora", "full")},
    EXTRACTED: ROWS[REFERENCE],
}


@click.group()
def main() -> None:
    """Measure, or count on paper."""


@main.command()
@click.option("--tokenizer", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of an LLM.")
@click.option("--study", "studies", multiple=True, type=click.Choice(list(STUDIES)), default=list(STUDIES))
@click.option("--row", "rows", multiple=True, type=click.Choice(list(STUDIED)), default=list(STUDIED))
@click.option("--stretches", default=3, show_default=True)
@click.option("--seconds", default=15.0, show_default=True, help="Of a stretch, at most.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where LLMs and the cache of a million items stay.")
def run(
    tokenizer: Path,
    studies: tuple[str, ...],
    rows: tuple[str, ...],
    stretches: int,
    seconds: float,
    device: str,
    threads: int,
    folder: Path | None,
) -> None:
    """Measure what is missing."""
    results, budget = Lines(RESULTS), Budget(stretches, seconds)
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        for study in studies:
            for value, case in STUDIES[study].items():
                for row in rows:
                    if row == EXTRACTED and study not in EXTRACTED_IN:
                        continue
                    about = {"study": study, "value": value, "row": row, "device": device, "threads": threads}
                    of_all = (case, row, torch.device(device), threads, place)
                    wanted = [({"kind": "growth", **about}, partial(measure, *of_all, budget))]
                    if study == STUDY_VALIDATED and row == REFERENCE:
                        wanted.append(({"kind": "growth validation", **about}, partial(validate, *of_all)))
                    if any(of not in results for of, _ in wanted):
                        # What is only made up takes memory too, so it is made by another process.
                        in_a_fork(partial(make_up, case, row, tokenizer, place))
                    fill_in(results, wanted)


def make_up(case: Case, row: str, tokenizer: Path, place: Path) -> dict[str, Any]:
    """Write the LLM or the cache that a case needs, if it is not there."""
    if row == EXTRACTED or STUDIED[row].method != "cached":
        llm = random_llm(case.shape, case.blocks, tokenizer, place)
        if row == EXTRACTED:
            texts = made_up_problem(case).texts  # Which name themselves.
            shared = extracted_root(case, place), _NAME, ExtractOptions(layers=case.layers), "cpu"
            extract_texts(lambda: iter([(texts, texts)]), str(llm), *shared, lambda done, total: None)
    elif case.streamed:
        made_up_cache(place, case.items)
    return {}


def extracted_root(case: Case, place: Path) -> Path:
    """Where the cache is into which a case's texts are extracted: each has its own, since they may share an LLM."""
    return place / f"{llm_folder(case.shape, case.blocks)}-{case.tokens}-tokens"


def measure(case: Case, row: str, device: torch.device, threads: int, place: Path, budget: Budget) -> dict[str, Any]:
    """Of a row in a case, what `time_steps` says."""
    torch.set_num_threads(threads)
    found = time_steps(make_training(case, row, device, place), device, budget)
    return {**found, **counted(case, row, found["items_a_step"])}


def validate(case: Case, row: str, device: torch.device, threads: int, place: Path) -> dict[str, Any]:
    """Of a row in a case, what `time_validation` says."""
    torch.set_num_threads(threads)
    return time_validation(make_training(case, row, device, place), device)


def counted(case: Case, row: str, texts: float) -> dict[str, Any]:
    """What the formulas on paper say of a step with so many texts: operations, and bytes of the LLM in float32."""
    blocks, width = SHAPES[case.shape]
    shape = Shape(case.shape, case.blocks or blocks, width, 4 * width, width, width, False, VOCABULARY)
    learning = LEARNING.get(row)
    if learning is None:
        return {}
    tokens = round(texts * case.tokens)
    return {
        "counted_flop": shape.training_flop(case.tokens, learning) * texts,
        "counted_bytes": training_bytes(shape, tokens, learning, value=4),
    }


def make_training(case: Case, row: str, device: torch.device, place: Path) -> Training:
    """A training that has not begun, of what `make_up` wrote."""
    how, problem = STUDIED[row], made_up_problem(case)
    options = how.options(layers=case.layers, batch_size=BATCH_SIZE)
    if how.method == "cached":
        extracted = row == EXTRACTED
        states = extracted_states(case, problem, device, place) if extracted else made_up_states(case, device, place)
        shared = (problem.sequences, problem.split, problem.num_items, problem.num_trained)
        return Training(TrainingData(*shared, states, [(case.layers, SHAPES[case.shape][1])]), options, device)
    llm = place / llm_folder(case.shape, case.blocks)
    if how.method != UNCACHED:
        options = replace(options, layers=None)
    return start(problem, str(llm), how.method, options, device, constants_of=_CONSTANTS_OF)


def made_up_problem(case: Case) -> Problem:
    """Users with random items. Only items that somebody has get a text of their own: no other text is ever read."""
    rng = np.random.default_rng(0)
    sequences = Sequences(rng.integers(1, case.items + 1, USERS * LENGTH), np.arange(USERS + 1) * LENGTH)
    texts = [WORDS[0]] * case.items
    for item in np.unique(sequences.items):
        texts[item - 1] = " ".join(rng.choice(WORDS, case.tokens - 2))
    return Problem(sequences, leave_last(sequences), case.items, texts)


def made_up_states(case: Case, device: torch.device, place: Path) -> ItemStates:
    """Random states of all items; of a catalogue that they would fill the memory with, streamed ones."""
    size = case.layers, SHAPES[case.shape][1]
    if not case.streamed:
        return ResidentStates([torch.randn(size[0], case.items, size[1], device=device)])
    cache = made_up_cache(place, case.items)  # It is there, and opened.
    rows = cache.select(keys_of_texts(str(number) for number in range(case.items)), size[0])
    return StreamedStates.within(_STREAMED, [rows], [as_they_are(*size)], device)


def extracted_states(case: Case, problem: Problem, device: torch.device, place: Path) -> ItemStates:
    """The states of a case's own texts, as `make_up` had them extracted."""
    cache = Cache.open(find_cache(extracted_root(case, place), _NAME))
    rows = cache.select(keys_of_texts(problem.texts), case.layers)
    return ResidentStates.read([rows], [as_they_are(case.layers, SHAPES[case.shape][1])], device)


def random_llm(shape: str, blocks: int | None, tokenizer: Path, place: Path) -> Path:
    """The folder of an LLM of a shape, with random weights; written, if it is not there.

    Args:
        shape: a key of `SHAPES`, a BERT, or of `DECODERS`.
        blocks: instead of the shape's.
        tokenizer: folder of the LLM whose tokenizer it gets.
        place: where its folder goes.
    """
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

    target = place / llm_folder(shape, blocks)
    if target.exists():
        return target
    unfinished = target.with_name(f"{target.name}.unfinished")
    unfinished.mkdir(exist_ok=True)
    for file in tokenizer.iterdir():
        if "token" in file.name or file.name == "vocab.txt":
            shutil.copy(file, unfinished)
    if shape in DECODERS:
        model = LlamaModel(LlamaConfig(vocab_size=VOCABULARY, **DECODERS[shape]))
    else:
        own, width = SHAPES[shape]
        config = BertConfig(
            vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=blocks or own,
            num_attention_heads=width // 64, intermediate_size=4 * width,
        )  # fmt: skip
        model = BertModel(config, add_pooling_layer=False)
    model.save_pretrained(unfinished)
    unfinished.rename(target)
    return target


def llm_folder(shape: str, blocks: int | None) -> str:
    """Its name."""
    return shape if blocks is None else f"{shape}-{blocks}"


@main.command()
@click.option("--tokens", default=20, show_default=True, help="Of a text.")
@click.option("--texts", default=50_000, show_default=True, help="That the LLM reads in an epoch.")
def paper(tokens: int, texts: int) -> None:
    """FLOP and bytes of an epoch for LLMs that were not run, by the formulas in backbone_in_loop/costs.py."""
    click.echo(paper_tables(LLMS_ON_PAPER, tokens, texts))


if __name__ == "__main__":
    main()
