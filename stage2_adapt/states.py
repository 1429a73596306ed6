"""The layer states of a run's items: prepared once, and then on the device or streamed from the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssna.cache import Selection
from ssna.stage2_adapt.options import OptionError, PreparationName

# Dimensions that vary less than this share of the mean deviation of their layer vary by rounding only.
_SMALLEST_DEVIATION = 1e-4
# Directions in which standardised training states vary less than this share of the mean variance are dropped when
# they are whitened: what is in them is rounding, and there are some whenever there are fewer items than dimensions.
_SMALLEST_VARIANCE = 1e-4
_BYTES_AT_ONCE = 2**25  # Of the states that are looked at to fit the preparation, or prepared.


@dataclass(frozen=True)
class Preparation:
    """What is done to the states ``(A, n, D)`` before the side network reads them; the constants belong to the run.

    A map is not applied to the states but multiplied into the weights that read them (`SideNetwork.forward`).
    """

    mean: Tensor
    """``(A, D)``"""
    deviation: Tensor
    """``(A, D)``"""
    whitening: Tensor | None = None
    """``(A, D, D)``, a map of standardised states that gives them the identity as covariance"""

    def apply(self, states: Tensor) -> Tensor:
        """The states ``(A, n, D)`` centred and scaled, in their own memory."""
        return states.sub_(self.mean[:, None]).div_(self.deviation[:, None])


def read_lowest_first(rows: Selection, places: slice | npt.NDArray[np.int64]) -> Tensor:
    """The states at these places, lowest layer first ``(A, n, D)``; the cache has them top layer first ``(n, A, D)``.

    This is the one place where the order is turned. Each layer of the result is contiguous.
    """
    states = np.empty((len(rows.layers), len(rows.row[places]), rows.width), np.float32)
    rows.read(places, into=states[::-1].swapaxes(0, 1))
    return torch.from_numpy(states)


def fit_preparation(blocks: Iterable[Tensor], name: PreparationName) -> Preparation:
    """The constants for these states, blocks ``(A, n, D)`` of the distinct ones of the training items.

    `standardize` gives every dimension of every layer mean 0 and deviation 1: raw LLM states are anisotropic, so that
    without it texts differ by a few per cent of a vector that all share. A dimension that is the same for all of these
    is scaled as its layer is on average: other items may differ in it. `whiten` also removes the correlations between
    dimensions by PCA. `none` changes nothing.
    """
    count, near, total, products = 0, torch.zeros(0), torch.zeros(0), torch.zeros(0)
    for block in blocks:
        if name == "none":
            layers, _, width = block.shape
            return Preparation(torch.zeros(layers, width), torch.ones(layers, width))
        states = block.double()
        if not count:  # Sums of differences from a vector near the mean lose nothing to rounding.
            near = states.mean(dim=1, keepdim=True)
        states -= near
        squared = states.transpose(1, 2) @ states if name == "whiten" else (states * states).sum(dim=1)
        total = states.sum(dim=1) + (total if count else 0)
        products = squared + (products if count else 0)
        count += block.shape[1]
    shift = total / count  # (A, D)
    mean = (near[:, 0] + shift).float()
    if name == "standardize":
        variance = products / count - shift * shift
        return Preparation(mean, _deviations(variance))
    covariance = products / count - shift[:, :, None] * shift[:, None]  # (A, D, D)
    deviation = _deviations(covariance.diagonal(dim1=1, dim2=2))
    maps = [
        _whitening(layer / (scale[:, None] * scale))
        for layer, scale in zip(covariance, deviation.double(), strict=True)
    ]
    return Preparation(mean, deviation, torch.stack(maps))


def _deviations(variance: Tensor) -> Tensor:
    """What the dimensions ``(A, D)`` of these variances are divided by."""
    deviation = variance.clamp_min(0).sqrt()
    of_layer = deviation.mean(dim=1, keepdim=True)
    usual = torch.where(of_layer > 0, of_layer, 1.0).expand_as(deviation)
    return torch.where(deviation > _SMALLEST_DEVIATION * of_layer, deviation, usual).float()


def _whitening(covariance: Tensor) -> Tensor:
    """The map ``(D, D)`` from standardised states of this covariance to their principal components at variance 1."""
    variances, directions = torch.linalg.eigh(covariance)
    kept = variances > _SMALLEST_VARIANCE * variances.mean()
    scales = torch.where(kept, variances.clamp_min(1e-30).rsqrt(), 0)
    whitening: Tensor = (directions * scales).float()
    return whitening


def blocks_of(rows: Selection, places: npt.NDArray[np.int64] | None = None) -> Iterator[Tensor]:
    """The states at these places of a selection, or all, lowest layer first, in blocks ``(A, n, D)``."""
    at_once = max(1, _BYTES_AT_ONCE // _bytes_of_item([rows]))
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
        """Of each LLM, those of items `first` + 1 to `last`: ``(A, last - first, D)``."""
        ...

    def of(self, items: Tensor) -> list[Tensor]:
        """Of each LLM, those of these items ``(n,)``, numbers from 1: ``(A, n, D)``."""
        ...


@dataclass(frozen=True)
class ResidentStates:
    """All states on the device."""

    parts: Sequence[Tensor] = ()
    """Of each LLM ``(A, N, D)``; none for a model without a side network"""
    items_at_once: None = None

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
            states = torch.empty(len(rows.layers), len(rows), rows.width, dtype=dtype, device=device)
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
        """See `ItemStates`."""
        return [states.index_select(1, items - 1) for states in self.parts]


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
        item = _bytes_of_item(selections)
        at_once = budget // (2 * item)
        if not at_once:
            raise OptionError(
                f"--memory-budget {budget:,} bytes: the layer states of one item take "
                f"{item:,} bytes, and two pieces of one item or more are held. Give more."
            )
        return cls(selections, preparations, device, at_once, dtype)

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


def bytes_of_states(selections: Sequence[Selection], dtype: torch.dtype = torch.float32) -> int:
    """What `ResidentStates` of these take."""
    return len(selections[0]) * _bytes_of_item(selections, dtype) if selections else 0


def _bytes_of_item(selections: Sequence[Selection], dtype: torch.dtype = torch.float32) -> int:
    return sum(dtype.itemsize * len(rows.layers) * rows.width for rows in selections)
