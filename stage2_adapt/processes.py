"""Training by several processes that `torchrun` started: what each does, and how they put it together.

Every process makes the same batch, encodes its share of the batch's items and reads its share of the sequences. The
gradients, summed, are those of one process with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssna.cache import SsnaError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """All processes of a training, seen from one of them. With one process nothing is sent and nothing copied."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def span(self, count: int, rank: int | None = None) -> tuple[int, int]:
        """Where the share of a process, of this one by default, begins and ends among so many things in a row."""
        rank = self.rank if rank is None else rank
        each = -(-count // self.size)
        return min(rank * each, count), min((rank + 1) * each, count)

    def gathered(self, mine: Tensor, count: int) -> Tensor:
        """All rows ``(count, d)`` of which this process made its span; gradients flow back to where a row was made."""
        if self.size == 1:
            return mine
        return cast(Tensor, _GatheredRows.apply(mine, count, self))  # type: ignore[no-untyped-call]

    def exchange(self, rows: Tensor) -> None:
        """Fill in the rows that the other processes made, each its span, in place."""
        for rank in range(self.size) if self.size > 1 else ():
            first, last = self.span(len(rows), rank)
            if last > first:
                dist.broadcast(rows[first:last], rank)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of all processes' gradients; one that has none counts as zero."""
        if self.size == 1:
            return
        with_gradient = list(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in with_gradient]
        flat = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
        sizes = [parameter.numel() for parameter in with_gradient]
        for parameter, gradient in zip(with_gradient, torch.split(flat, sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)

    def every(self, value: Value) -> list[Value]:
        """What each process has for this, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def first(self, value: Value) -> Value:
        """What the first process has for this: the one answer where clocks and disks differ."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]

    def checked_by_first(self, check: Callable[[], None]) -> None:
        """Let the first process check what only it reads; what it finds wrong ends all processes with its sentence."""
        found: SsnaError | None = None
        if self.leads:
            try:
                check()
            except SsnaError as error:
                found = error
        if (found := self.first(found)) is not None:
            raise found


@contextmanager
def processes_of_torchrun(device: torch.device) -> Iterator[Processes]:
    """Those that `torchrun` started, in touch with each other until the end; without it, this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    if dist.is_initialized():  # By a caller, who trains several runs and ends it.
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # While the first process evaluates the others wait, however long; it is torchrun that ends them if it dies.
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=7))
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


class _GatheredRows(torch.autograd.Function):
    """See `Processes.gathered`."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, count: int, processes: Processes) -> Tensor:
        ctx.span = processes.span(count)
        each = -(-count // processes.size)
        padded = mine.new_zeros(each, mine.shape[1])
        padded[: len(mine)] = mine
        everything = mine.new_empty(each * processes.size, mine.shape[1])
        dist.all_gather(list(everything.chunk(processes.size)), padded)
        return everything[:count]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        summed = gradient.contiguous().clone()
        dist.all_reduce(summed)
        first, last = ctx.span
        return summed[first:last], None, None
