"""The documents of the repository, read: their blocks of code and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "docs").glob("*.md")),
]


@dataclass(frozen=True)
class Block:
    """Lines that a document sets as code."""

    language: str
    """Of a fence, such as `sh`; empty if the fence names none, or the block is indented"""
    text: str


def blocks_of(document: str) -> Iterator[Block]:
    """Fenced and indented blocks, in order."""
    fence = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
    indented = re.compile(r"(?:^\n|\A)((?:^ {4}[^\n]*\n)+)", re.M)
    found = [(match.start(), Block(match[1], match[2])) for match in fence.finditer(document)]
    without = fence.sub(lambda match: re.sub(r"[^\n]", "x", match[0]), document)
    found += [
        (match.start(), Block("", re.sub(r"^ {4}", "", match[1], flags=re.M))) for match in indented.finditer(without)
    ]
    return (block for _, block in sorted(found, key=lambda pair: pair[0]))


def sentences_of(document: str) -> str:
    """What a document says outside of its blocks."""
    without_fences = re.sub(r"^```.*?^```$", "", document, flags=re.M | re.S)
    return re.sub(r"^ {4}.*$", "", without_fences, flags=re.M)


def commands_of(text: str) -> list[list[str]]:
    """Every command line of a block or script that calls ssna or a benchmark, in words; continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    pattern = r"^(?:\$ |run )?((?:(?:ssna|torchrun) |python benchmarks/).*)$"
    return [shlex.split(line, comments=True) for line in re.findall(pattern, joined, re.M)]


def shown_in(path: Path) -> list[list[str]]:
    """The commands of a document's blocks in order, then those of benchmarks that its sentences have as code."""
    document = path.read_text()
    sentences = re.sub(r"^```.*?^```$", "", document, flags=re.M | re.S)
    spans = (code.replace("\n", " ") for code in re.findall(r"`(python benchmarks/[^`]+)`", sentences))
    return [
        *(command for block in blocks_of(document) for command in commands_of(block.text)),
        *(shlex.split(code) for code in spans),
    ]


SHOWN = [(path.relative_to(ROOT).as_posix(), command) for path in DOCUMENTS for command in shown_in(path)]
SHOWN += [("demo.sh", command) for command in commands_of((ROOT / "demo.sh").read_text())]
