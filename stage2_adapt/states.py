"""The layer states of a run's items: prepared once, and then on the device or streamed from the cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssna.cache import Selection
from ssna.stage2_adapt.options import OptionError, PreparationName

# Dimensions that vary less than this share of the mean deviation of their layer vary by rounding only.
_SMALLEST_DEVIATION = 1e-4
# Directions in which standardised training states vary less than this share of the mean variance are dropped: what is
# in them is rounding, and there are some whenever there are fewer items than dimensions.
_SMALLEST_VARIANCE = 1e-4
_BYTES_AT_ONCE = 2**25  # Of the states that are looked at to fit the preparation, or prepared.


@dataclass(frozen=True)
class Preparation:
    """What is done to the states ``(A, n, D)`` before the side network reads them; the constants belong to the run."""

    mean: Tensor
    """``(A, D)``"""
    deviation: Tensor
    """``(A, D)``"""
    projection: Tensor | None = None
    """``(A, D, K)``, a map of standardised states to their principal components; None for none, and then K is D"""

    @property
    def width(self) -> int:
        """K, of a prepared state."""
        return self.mean.shape[1] if self.projection is None else self.projection.shape[2]

    def apply(self, states: Tensor) -> Tensor:
        """The states ``(A, n, K)`` of raw ones ``(A, n, D)``, whose memory is used."""
        states = states.sub_(self.mean[:, None]).div_(self.deviation[:, None])
        return states if self.projection is None else torch.bmm(states, self.projection)


def read_lowest_first(rows: Selection, places: slice | npt.NDArray[np.int64]) -> Tensor:
    """The states at these places, lowest layer first ``(A, n, D)``; the cache has them top layer first ``(n, A, D)``.

    This is the one place where the order is turned. Each layer of the result is contiguous.
    """
    states = np.empty((len(rows.layers), len(rows.row[places]), rows.width), np.float32)
    rows.read(places, into=states[::-1].swapaxes(0, 1))
    return torch.from_numpy(states)


def prepared_width(state_width: int, name: PreparationName, components: int | None) -> int:
    """K, of a prepared state, of the width D that states have in the cache."""
    return state_width if name == "none" else min(components or state_width, state_width)


def fit_preparation(blocks: Iterable[Tensor], name: PreparationName, components: int | None = None) -> Preparation:
    """The constants for these states, blocks ``(A, n, D)`` of the distinct ones of the training items.

    `standardize` gives every dimension of every layer mean 0 and deviation 1: raw LLM states are anisotropic, so that
    without it texts differ by a few per cent of a vector that all share. A dimension that is the same for all of these
    is scaled as its layer is on average: other items may differ in it. Of layers with more dimensions than `components`
    only so many principal components are read, with one scale for all, such that their mean variance is 1. `whiten`
    gives each of them variance 1, also if none are left out. `none` changes nothing, and leaves nothing out.
    """
    count, correlated, empty = 0, False, torch.zeros(0)
    near, total, products = empty, empty, empty
    for block in blocks:
        layers, _, width = block.shape
        if name == "none":
            return Preparation(torch.zeros(layers, width), torch.ones(layers, width))
        states = block.double()
        if not count:  # Sums of differences from a vector near the mean lose nothing to rounding.
            correlated = name == "whiten" or prepared_width(width, name, components) < width
            near = states.mean(dim=1, keepdim=True)
            total = torch.zeros_like(near[:, 0])
            products = states.new_zeros(layers, width, width) if correlated else torch.zeros_like(total)
        states -= near
        total += states.sum(dim=1)
        if correlated:  # Added where the sums are: of wide states there is not room for many of them.
            products.baddbmm_(states.transpose(1, 2), states)
        else:
            products += states.square().sum(dim=1)
        count += block.shape[1]
    shift = total / count  # (A, D)
    mean = (near[:, 0] + shift).float()
    squares = products.diagonal(dim1=1, dim2=2) if correlated else products
    deviation = _deviations(squares / count - shift * shift)
    if not correlated:
        return Preparation(mean, deviation)
    maps = []
    for layer, moved, scale in zip(products, shift, deviation.double(), strict=True):
        covariance = (layer / count - moved[:, None] * moved) / (scale[:, None] * scale)
        maps.append(_projection(covariance, components, name == "whiten"))
    return Preparation(mean, deviation, torch.stack(maps))


def _deviations(variance: Tensor) -> Tensor:
    """What the dimensions ``(A, D)`` of these variances are divided by."""
    deviation = variance.clamp_min(0).sqrt()
    of_layer = deviation.mean(dim=1, keepdim=True)
    usual = torch.where(of_layer > 0, of_layer, 1.0).expand_as(deviation)
    return torch.where(deviation > _SMALLEST_DEVIATION * of_layer, deviation, usual).float()


def _projection(covariance: Tensor, components: int | None, whiten: bool) -> Tensor:
    """The map ``(D, K)`` from standardised states of this covariance to their principal components, largest first."""
    variances, directions = (each.flip(-1)[..., :components] for each in torch.linalg.eigh(covariance))
    # An eigenvector has no sign of its own, and which one is found differs between machines.
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    kept = variances > _SMALLEST_VARIANCE * variances.mean()
    scale = variances if whiten else variances[kept].mean()
    projection: Tensor = (directions * largest.sign() * torch.where(kept, scale.clamp_min(1e-30).rsqrt(), 0)).float()
    return projection


def blocks_of(rows: Selection, places: npt.NDArray[np.int64] | None = None) -> Iterator[Tensor]:
    """The states at these places of a selection, or all, lowest layer first, in blocks ``(A, n, D)``."""
    at_once = max(1, _BYTES_AT_ONCE // bytes_of_item([rows]))
    for first in range(0, len(rows) if places is None else len(places), at_once):
        part = slice(first, first + at_once)
        yield read_lowest_first(rows, part if places is None else places[part])


class ItemStates(Protocol):
    """The prepared states of items 1 to N, of one LLM or several; on the device, lowest layer first.

    Their dtype is the one in which matrix products read them (`dtype_of_products`).
    """

    @property
    def items_at_once(self) -> int | None:
        """Items whose states may be held in one piece, and as many in another one; None if all states are there."""
        ...

    def between(self, first: int, last: int) -> list[Tensor]:
        """Of each LLM, those of items `first` + 1 to `last`: ``(A, last - first, K)``."""
        ...

    def of(self, items: Tensor) -> list[Tensor]:
        """Of each LLM, those of these items ``(n,)``, numbers from 1: ``(A, n, K)``."""
        ...


@dataclass(frozen=True)
class ResidentStates:
    """All states on the device."""

    parts: Sequence[Tensor] = ()
    """Of each LLM ``(A, N, K)``; none for a model without a side network"""
    items_at_once: None = None
    _memory: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)
    """Where `of` puts the states of each LLM: on a CPU new memory costs more than the copy into it"""

    @classmethod
    def read(
        cls,
        selections: Sequence[Selection],
        preparations: Sequence[Preparation],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> ResidentStates:
        """Read and prepare them; besides the result no more than a block is held."""
        parts = []
        for rows, preparation in zip(selections, preparations, strict=True):
            states = torch.empty(len(rows.layers), len(rows), preparation.width, dtype=dtype, device=device)
            done = 0
            for block in blocks_of(rows):
                states[:, done : done + block.shape[1]] = preparation.apply(block)
                done += block.shape[1]
            parts.append(states)
        return cls(parts)

    def between(self, first: int, last: int) -> list[Tensor]:
        """See `ItemStates`; without a copy."""
        return [states[:, first:last] for states in self.parts]

    def of(self, items: Tensor) -> list[Tensor]:
        """See `ItemStates`. They are there until the next call, which uses their memory again."""
        parts = []
        for number, states in enumerate(self.parts):
            shape = (len(states), len(items), states.shape[2])
            if number not in self._memory or len(self._memory[number]) < math.prod(shape):
                self._memory[number] = states.new_empty(math.prod(shape))
            into = self._memory[number][: math.prod(shape)].view(shape)
            parts.append(torch.index_select(states, 1, items - 1, out=into))
        return parts


@dataclass(frozen=True)
class StreamedStates:
    """States that are read from the memory-mapped cache and prepared each time that they are needed."""

    selections: Sequence[Selection]
    """Of each LLM, the rows of items 1 to N"""
    preparations: Sequence[Preparation]
    device: torch.device
    items_at_once: int
    dtype: torch.dtype = torch.float32

    @classmethod
    def within(
        cls,
        budget: int,
        selections: Sequence[Selection],
        preparations: Sequence[Preparation],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> StreamedStates:
        """States of which never more than so many bytes are held: a piece that is used, and the next one.

        That is as many items under mixed precision: what is made is float32 at first.

        Raises:
            OptionError: if that is less than two items take.
        """
        return cls(selections, preparations, device, items_within(budget, bytes_of_item(selections)), dtype)

    def between(self, first: int, last: int) -> list[Tensor]:
        """See `ItemStates`."""
        return self._read(slice(first, last))

    def of(self, items: Tensor) -> list[Tensor]:
        """See `ItemStates`."""
        return self._read(items.cpu().numpy() - 1)

    def _read(self, places: slice | npt.NDArray[np.int64]) -> list[Tensor]:
        parts = []
        for rows, preparation in zip(self.selections, self.preparations, strict=True):
            states = preparation.apply(read_lowest_first(rows, places)).to(self.dtype)
            parts.append(states.to(self.device, non_blocking=True))
        return parts


def bytes_of_states(
    selections: Sequence[Selection], preparations: Sequence[Preparation], dtype: torch.dtype = torch.float32
) -> int:
    """What `ResidentStates` of these take."""
    items = zip(selections, preparations, strict=True)
    return sum(dtype.itemsize * len(rows.layers) * len(rows) * preparation.width for rows, preparation in items)


def bytes_of_item(selections: Sequence[Selection]) -> int:
    """Of its states as they are read."""
    return sum(torch.float32.itemsize * len(rows.layers) * rows.width for rows in selections)


def items_within(budget: int, item: int) -> int:
    """How many items one of the two pieces has that so many bytes hold, where the states of an item take `item`.

    Raises:
        OptionError: if that is none.
    """
    at_once = budget // (2 * item)
    if not at_once:
        raise OptionError(
            f"--memory-budget {budget:,} bytes: the layer states of one item take "
            f"{item:,} bytes, and two pieces of one item or more are held. Give more."
        )
    return at_once
