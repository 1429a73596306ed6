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


def shuffled_batches(
    lengths: Tensor, batch_size: int, generator: torch.Generator, batches_a_group: int = _BATCHES_A_GROUP
) -> Iterator[Tensor]:
    """Positions of each batch's windows, in a new random order; every window is in exactly one batch.

    Args:
        lengths: ``(W,)``, items of each window.
        batch_size: windows of a batch; the last of a group may hold fewer.
        generator: advanced by each call.
        batches_a_group: among so many the windows are sorted by length.
    """
    order = torch.randperm(len(lengths), generator=generator)
    batches: list[Tensor] = []
    for group in torch.split(order, batch_size * batches_a_group):
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
        # With nothing but the batch as negatives, items of long windows must be there for short ones as well.
        self._batches_a_group = 1 if options.loss == "in-batch" else _BATCHES_A_GROUP
        self._kind: Tensor | None = None
        self._log_absent: Tensor | None = None
        if options.loss in ("sampled", "in-batch"):
            kind = np.frexp(ends - starts)[1].astype(np.int64)  # Lengths by powers of two
            absent = _log_absent_from_a_window(sequences, starts, ends, kind, num_trained)
            self._kind = torch.from_numpy(kind)
            self._log_absent = torch.from_numpy(absent).to(device)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self._starts)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        groups, rest = divmod(len(self), self._options.batch_size * self._batches_a_group)
        return groups * self._batches_a_group + -(-rest // self._options.batch_size)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """All windows once, in random order."""
        lengths = self._ends - self._starts
        for windows in shuffled_batches(lengths, self._options.batch_size, generator, self._batches_a_group):
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
            self._log_inclusion(items, windows, num_drawn) if self._log_absent is not None else None,
            torch.bincount(in_draw - 1, minlength=len(items)).float() if self._options.loss == "gbce" else None,
        )

    def _log_inclusion(self, items: Tensor, windows: Tensor, num_drawn: int) -> Tensor:
        """Of items that are candidates if any of the batch's other windows has them, or any of the draws takes them.

        Windows of a batch are about as long, and items are not as frequent in long windows as in short ones: what is
        known of the other windows is how many there are of which kind.
        """
        assert self._kind is not None
        assert self._log_absent is not None
        kinds = torch.bincount(self._kind[windows], minlength=len(self._log_absent)) * (1 - 1 / len(windows))
        absent = kinds.to(self._log_absent) @ self._log_absent[:, items - 1]
        absent += num_drawn * float(np.log1p(-1 / max(2, self._num_trained)))
        return torch.log(-torch.expm1(absent))


def _log_absent_from_a_window(
    sequences: Sequences, starts: np.ndarray, ends: np.ndarray, kind: np.ndarray, num_trained: int
) -> np.ndarray:
    """Logarithm of the share of windows of each kind that each item is not in, float32 ``(kinds, T)``."""
    lengths = ends - starts
    window = np.repeat(np.arange(len(starts)), lengths)
    place = np.arange(len(window)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + starts[window]
    pairs = np.unique(window * (num_trained + 1) + sequences.items[place])
    window, item = pairs // (num_trained + 1), pairs % (num_trained + 1)
    log_absent = np.zeros((int(kind.max(initial=0)) + 1, num_trained), np.float32)
    for number, row in enumerate(log_absent):
        of_kind = kind[window] == number
        if of_kind.any():
            count = np.bincount(item[of_kind], minlength=num_trained + 1)[1:]
            # Not exactly 0 for an item that all have: minus infinity times no window would be no number.
            row[:] = np.log(np.maximum(1 - count / (kind == number).sum(), 1e-12))
    return log_absent
