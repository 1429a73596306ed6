"""What a training step reads: which sequences, in which order, and which items are candidates of its loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.sequences import Sequences, Split, gather_spans, training_windows

# Windows are sorted by length within groups of this many batches: little padding, and still another mixture each epoch.
_BATCHES_A_GROUP = 16


def shuffled_batches(lengths: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Positions of each batch's windows, in a new random order; every window is in exactly one batch.

    Args:
        lengths: ``(W,)``, items of each window.
        batch_size: windows of a batch; the last of a group may hold fewer.
        generator: advanced by each call.
    """
    order = torch.randperm(len(lengths), generator=generator)
    batches: list[Tensor] = []
    for group in torch.split(order, batch_size * _BATCHES_A_GROUP):
        by_length = group[lengths[group].argsort(stable=True)]
        batches += torch.split(by_length, batch_size)
    for i in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[i]


@dataclass(frozen=True)
class Batch:
    """B sequences of at most L inputs, and C candidate items, among which are all inputs and targets."""

    items: Tensor
    """``(C,)``: numbers of the candidates, ascending, from 1"""
    inputs: Tensor
    """``(B, L)``: places among the candidates, from 1; 0 is padding"""
    following: Tensor
    """``(B, L)``: the item that came next, likewise"""
    counts: Tensor
    """``(B,)``: inputs of each sequence"""
    log_inclusion: Tensor | None = None
    """``(C,)``: of a sample, the logarithm of the probability with which each item came to be a candidate"""
    drawn: Tensor | None = None
    """``(C,)`` float: how often each candidate was drawn as a negative"""

    def share(self, rank: int, world_size: int) -> Batch:
        """The sequences of one of several processes; all have the same candidates."""
        mine = slice(rank, None, world_size)
        return Batch(
            self.items, self.inputs[mine], self.following[mine], self.counts[mine], self.log_inclusion, self.drawn
        )


class BatchMaker:
    """Packed training sequences on the device, of which batches are made without Python work per item or user."""

    def __init__(
        self, sequences: Sequences, split: Split, num_trained: int, options: AdaptOptions, device: torch.device
    ) -> None:
        starts, ends = training_windows(sequences, split, options.length)
        self._options, self._device, self._num_trained = options, device, num_trained
        self._starts, self._ends = torch.from_numpy(starts), torch.from_numpy(ends)
        self._items = torch.from_numpy(sequences.items).to(device)
        self._all = torch.arange(1, num_trained + 1, device=device)
        self._windows_with: Tensor | None = None
        if options.loss in ("sampled", "in-batch"):
            counts = _windows_with_each(sequences, starts, ends, num_trained)
            self._windows_with = torch.from_numpy(counts).to(device)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._starts)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        groups, rest = divmod(len(self), self._options.batch_size * _BATCHES_A_GROUP)
        return groups * _BATCHES_A_GROUP + -(-rest // self._options.batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """All windows once, in random order."""
        lengths = self._ends - self._starts
        for windows in shuffled_batches(lengths, self._options.batch_size, generator):
            yield self._batch(windows, generator)

    def _batch(self, windows: Tensor, generator: torch.Generator) -> Batch:
        span, counts = gather_spans(self._items, self._starts[windows], self._ends[windows], self._options.length + 1)
        counts = counts.to(self._device) - 1
        if self._options.loss == "softmax":
            return Batch(self._all, span[:, :-1], span[:, 1:], counts)
        num_drawn = 0 if self._options.loss == "in-batch" else self._options.negatives
        draw = torch.randint(1, self._num_trained + 1, (num_drawn,), generator=generator).to(self._device)
        both, places = torch.unique(torch.cat([span.flatten(), draw]), return_inverse=True)
        # Padding, where there is any, is the smallest; without any, places begin at 1 as well.
        padded = both[0] == 0
        items, places = both[padded.long() :], places + (~padded).long()
        in_span, in_draw = places[: span.numel()].view(span.shape), places[span.numel() :]
        return Batch(
            items,
            in_span[:, :-1],
            in_span[:, 1:],
            counts,
            self._log_inclusion(items, len(windows), num_drawn) if self._windows_with is not None else None,
            torch.bincount(in_draw - 1, minlength=len(items)).float() if self._options.loss == "gbce" else None,
        )

    def _log_inclusion(self, items: Tensor, num_windows: int, num_drawn: int) -> Tensor:
        """Of items that are candidates if any of the batch's windows has them, or any of the draws takes them."""
        assert self._windows_with is not None
        absent_from_window = torch.log1p(-self._windows_with[items - 1] / len(self))  # -inf for an item of all windows
        absent = num_windows * absent_from_window + num_drawn * float(np.log1p(-1 / max(2, self._num_trained)))
        return torch.log(-torch.expm1(absent)).float()


def _windows_with_each(sequences: Sequences, starts: np.ndarray, ends: np.ndarray, num_trained: int) -> np.ndarray:
    """In how many windows each item stands ``(T,)``."""
    lengths = ends - starts
    window = np.repeat(np.arange(len(starts)), lengths)
    place = np.arange(len(window)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + starts[window]
    pairs = np.unique(window * (num_trained + 1) + sequences.items[place])
    return np.bincount(pairs % (num_trained + 1), minlength=num_trained + 1)[1:].astype(np.float64)
