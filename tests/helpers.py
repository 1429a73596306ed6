"""What tests of several folders share: a tiny LLM, a made-up catalogue, and the installed command."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import torch

COLOUR_VARIABLES = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
WORDS = ["alpine", "boot", "camera", "desk", "engine", "fiddle", "guitar", "hammer", "ink", "jacket", "kettle", "lamp"]


def make_tiny_llm(folder: Path, *, layers: int = 3, width: int = 16, seed: int = 0) -> Path:
    """A random BERT and a WordPiece tokenizer over a few words, saved as a hub model would be."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789")
    tokens = [*specials, *WORDS, *letters, *(f"##{letter}" for letter in letters), ".", "-"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * width, max_position_embeddings=64, hidden_dropout_prob=0.1,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Catalogue:
    """A made-up source in the two-TSV form, in which an item is mostly followed by the one after it."""

    users: Path
    items: Path
    num_users: int
    num_items: int


def make_catalogue(folder: Path, *, users: int = 60, items: int = 24, seed: int = 0) -> Catalogue:
    """Write the two files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    titles = [f"{WORDS[i % len(WORDS)]} {WORDS[(i * 5 + i // 12) % len(WORDS)]} no {i}" for i in range(items)]
    item_lines = [f"i{i}\t{title}" for i, title in enumerate(titles)]
    user_lines = []
    for user in range(users):
        at = rng.randrange(items)
        history = []
        for _ in range(rng.randint(4, 9)):
            history.append(f"i{at}")
            at = (at + 1) % items if rng.random() < 0.8 else rng.randrange(items)
        user_lines.append(f"u{user:03d}\t{' '.join(history)}")
    (folder / "users.tsv").write_text("\n".join(user_lines) + "\n", encoding="utf-8")
    (folder / "items.tsv").write_text("\n".join(item_lines) + "\n", encoding="utf-8")
    return Catalogue(folder / "users.tsv", folder / "items.tsv", users, items)


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


def commands_in(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """The commands of a group that do something, with the groups that they are of before their names."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands_in(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def ssna_in_process(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> Outcome:
    """The same as `ssna`, but in this process: without the seconds in which a new one imports PyTorch."""
    from ssna.cli import main
    from ssna.terminal import be_quiet

    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as stdout,
        redirect_stderr(io.StringIO()) as stderr,
    ):
        if cwd is not None:
            patch.chdir(cwd)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["ssna", *map(str, arguments)])
        patch.setattr(signal, "signal", lambda *_: None)
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        finally:
            be_quiet(False)
    return Outcome(status, stdout.getvalue(), stderr.getvalue())


def ssna(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed `ssna` command, one CPU thread, and return what it printed and its exit status.

    For tests to which the process matters; the others take `ssna_in_process`.
    """
    command = [str(Path(sys.executable).parent / "ssna"), *map(str, arguments)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300, check=False)


def ssna_in_terminal(*arguments: str | Path, cwd: Path, columns: int = 80, **environment: str) -> str:
    """What the installed `ssna` command writes to a terminal, escape sequences and all; it must end well."""
    import pty

    reader, terminal = pty.openpty()
    command = [str(Path(sys.executable).parent / "ssna"), *map(str, arguments)]
    given = {name: value for name, value in os.environ.items() if name not in COLOUR_VARIABLES}
    given |= {"TERM": "xterm-256color", "COLUMNS": str(columns), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    shown = bytearray()
    with subprocess.Popen(command, cwd=cwd, stdout=terminal, stderr=terminal, env=given | environment) as process:
        os.close(terminal)
        with suppress(OSError):  # Linux has the end of a terminal as an error.
            while part := os.read(reader, 2**16):
                shown += part
    os.close(reader)
    assert process.returncode == 0, shown.decode()
    return shown.decode()
