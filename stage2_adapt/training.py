"""The training loop: epochs over all sequences, early stopping on validation, a checkpoint after each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssna.cache import ahead
from ssna.stage2_adapt import checkpoint as ckpt
from ssna.stage2_adapt.batches import Batch, BatchMaker
from ssna.stage2_adapt.evaluation import NaNScoreError, rank_targets
from ssna.stage2_adapt.item_encoder import RECOMPUTE_FROM_ITEMS, ItemEncoder, encode
from ssna.stage2_adapt.losses import Windows, gbce_loss, gbce_power, softmax_loss
from ssna.stage2_adapt.metrics import join_ranks, metrics_of
from ssna.stage2_adapt.optimization import (
    TrainingError,
    check_finite,
    kept_of_average,
    learning_rate_at,
    make_optimizer,
)
from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.processes import Processes
from ssna.stage2_adapt.recommenders import SequenceRecommender
from ssna.stage2_adapt.sequences import Sequences, Split, cases_of, training_counts
from ssna.stage2_adapt.states import ItemStates, ResidentStates

CRITERION = "ndcg@10"
_ITEMS_AT_ONCE = 2048
_STEPS_A_CHECK = 64  # Between looks for losses that are no numbers: each look makes the device catch up.


def dtype_of_products(options: AdaptOptions, device: torch.device) -> torch.dtype:
    """What training's matrix products read and give: bfloat16 or float32; see `mixes_all_products`."""
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if options.precision == "bfloat16" or (options.precision == "auto" and fast):
        return torch.bfloat16
    return torch.float32


def mixes_all_products(device: torch.device) -> bool:
    """Whether bfloat16 is automatic mixed precision, or that of the products with the states alone.

    On a CPU no others are faster.
    """
    return device.type != "cpu"


@dataclass(frozen=True)
class TrainingData:
    """What a run trains and validates on. Of the N items, numbers 1 to T occur in training and the others do not."""

    sequences: Sequences
    split: Split
    num_items: int
    """N"""
    num_trained: int
    """T"""
    states: ItemStates = field(default_factory=ResidentStates)
    """Of items 1 to N"""
    state_sizes: Sequence[tuple[int, int]] = ()
    """Of each LLM, its layers A and the width K of a prepared state"""


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.jsonl."""

    epoch: int
    """From 1"""
    loss: float
    """Mean training loss in nats a position"""
    valid: dict[str, float]
    seconds: float
    """Of the pass over the training sequences"""
    valid_seconds: float
    """Of the validation"""


@dataclass
class History:
    """What training has reached."""

    best_epoch: int = 0
    best_value: float = -1.0
    epochs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """That the epochs took."""
        return float(sum(epoch["seconds"] + epoch["valid_seconds"] for epoch in self.epochs))

    def is_over(self, options: AdaptOptions) -> bool:
        """Whether all epochs are done, or the last `patience` of them brought nothing."""
        done = len(self.epochs)
        return done >= options.epochs or done - self.best_epoch >= options.patience


@dataclass(frozen=True)
class _BatchStates:
    """The states of one process's share of a batch's items."""

    between: Callable[[int, int], Sequence[Tensor]]
    """Of each LLM, those of the items from one place of the share to another: ``(A, last - first, K)``"""
    read_anew: bool
    """Whether they are read each time, so that the backward pass shall ask again instead of keeping them"""


class Training:
    """A run's model, optimiser and random state, in this process and, if there are several, in all of them alike."""

    def __init__(
        self, data: TrainingData, options: AdaptOptions, device: torch.device, processes: Processes | None = None
    ) -> None:
        torch.manual_seed(options.seed)
        self._data, self._options, self._device = data, options, device
        self._processes = processes or Processes()
        self._batches = BatchMaker(data.sequences, data.split, data.num_trained, options, device)
        if not len(self._batches):
            raise TrainingError(
                "no user has two interactions to train on. Expected sequences of at least two interactions besides "
                "those held out; lower --min-user and --min-item of `ssna prepare`, or use more data."
            )
        self._encoder = ItemEncoder(data.state_sizes, data.num_trained, options).to(device)
        self._recommender = SequenceRecommender(data.num_items, options).to(device)
        counts = torch.from_numpy(training_counts(data.sequences, data.split, data.num_items)[1:])
        self._recommender.log_counts.copy_(counts.clamp_min(1).log())
        if options.compile:
            self._encoder.compile(dynamic=True)
            self._recommender.network.compile(dynamic=True)
        self._modules = nn.ModuleDict({"encoder": self._encoder, "recommender": self._recommender})
        self._optimizer = make_optimizer(self._modules, options)
        self._precision = dtype_of_products(options, device)
        self._valid = cases_of(data.sequences, data.split, "valid")
        self.history = History()
        self._average = self._parameters() if options.averaging else None
        self._best = self._parameters()

    @property
    def trainable_parameters(self) -> int:
        """Number of trained values."""
        return sum(parameter.numel() for parameter in self._modules.parameters())

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self._batches.steps

    def run(
        self,
        path: Path,
        on_epoch: Callable[[Epoch], None],
        on_step: Callable[[int, int], None] | None = None,
        time_limit: float | None = None,
        made_from: Mapping[str, Any] | None = None,
    ) -> None:
        """Train to the end, with a checkpoint at `path` after each epoch; then take the best epoch's parameters.

        Args:
            path: of the checkpoint.
            on_epoch: told of each epoch, before its checkpoint is written.
            on_step: told the steps done in the epoch, and their number.
            time_limit: seconds after which no further epoch begins, those of the run before it was resumed included.
            made_from: what tells this run from others, kept in the checkpoint (JSON).

        Raises:
            TrainingError: if the loss is no longer a number; the last checkpoint stays.
        """
        while not self.history.is_over(self._options) and not self._is_late(time_limit):
            started = time.perf_counter()
            loss = self._train_epoch_or_explain(on_step)
            trained = time.perf_counter()
            with self._averaged():
                valid = self._validate()
            validated = time.perf_counter()
            number = len(self.history.epochs) + 1
            epoch = Epoch(number, loss, valid, round(trained - started, 4), round(validated - trained, 4))
            self.history.epochs.append(vars(epoch))
            # Without anybody to validate on, the last epoch counts as the best.
            value = valid.get(CRITERION, float(number))
            if value > self.history.best_value:
                self.history.best_value, self.history.best_epoch = value, number
                self._best = self._parameters(self._average)
            on_epoch(epoch)
            if self._processes.leads:
                self._save(path, made_from or {})
        self._load_parameters(self._best)
        self._refresh_item_embeddings()

    def recommender(self) -> SequenceRecommender:
        """The model with the item embeddings of its parameters, in evaluation mode."""
        return self._recommender.eval()

    def side_parameters(self) -> dict[str, Tensor]:
        """The item encoder's parameters by name: what turns new states into item embeddings."""
        return dict(self._encoder.state_dict())

    def _is_late(self, time_limit: float | None) -> bool:
        late = time_limit is not None and bool(self.history.epochs) and self.history.seconds >= time_limit
        return self._processes.first(late)

    def _train_epoch_or_explain(self, on_step: Callable[[int, int], None] | None) -> float:
        """See `_train_epoch`; a missing compiler, or code that it cannot compile, shows in the first step."""
        try:
            return self._train_epoch(on_step)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise TrainingError(
                f"--compile: PyTorch could not compile the model ({reason}). Leave the option out, or install what it "
                "asks for."
            ) from error

    def _train_epoch(self, on_step: Callable[[int, int], None] | None) -> float:
        self._modules.train()
        number = len(self.history.epochs)
        # Every epoch has random states of its own, so that nothing but its number is needed to repeat it.
        purpose = f"dropout{self._processes.rank or ''}"
        torch.manual_seed(_seed_of(self._options.seed, number, purpose))
        order = torch.Generator().manual_seed(_seed_of(self._options.seed, number, "order"))
        losses, norms, positions = list[Tensor](), list[Tensor](), list[Tensor]()
        steps, checked = self._batches.steps, 0
        for step, (batch, states) in enumerate(self._batches_with_states(order)):
            self._set_learning_rate(learning_rate_at(number * steps + step, steps, self._options))
            loss, norm, count = self._step(batch, states)
            self._average_in(number * steps + step, steps)
            losses.append(loss)
            norms.append(norm)
            positions.append(count)
            if len(losses) - checked == _STEPS_A_CHECK:
                check_finite(losses, norms, checked, number + 1)
                checked = len(losses)
            if on_step is not None:
                on_step(step + 1, steps)
        if checked < len(losses):
            check_finite(losses, norms, checked, number + 1)
        each, weights = self._processes.total(torch.stack(losses)), torch.stack(positions)
        return float((each * weights).sum() / weights.sum())

    @torch.no_grad()
    def _average_in(self, step: int, steps: int) -> None:
        """Let the parameters after a step into their average."""
        if self._average is not None:
            kept = kept_of_average(step, steps, self._options.averaging)
            torch._foreach_lerp_(list(self._average.values()), list(self._modules.parameters()), 1 - kept)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """With the averaged parameters in place of those that are trained on."""
        if self._average is None:
            yield
            return
        trained = self._parameters()
        self._load_parameters(self._average)
        yield
        self._load_parameters(trained)

    def _set_learning_rate(self, rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _batches_with_states(self, order: torch.Generator) -> Iterator[tuple[Batch, _BatchStates]]:
        """An epoch's batches, each with a way to the states of this process's share of its items.

        What is streamed is read while the step before it is computed, unless it is more than may be held at once.
        """
        pairs = ((batch, self._states_of(batch)) for batch in self._batches.epoch(order))
        return pairs if self._data.states.items_at_once is None else ahead(pairs)

    def _states_of(self, batch: Batch) -> _BatchStates:
        source = self._data.states
        first, last = self._processes.span(len(batch.items))
        mine, streamed = batch.items[first:last], source.items_at_once is not None
        if self._options.loss == "softmax":  # All training items: a part of them needs no copy.
            return _BatchStates(lambda start, stop: source.between(first + start, first + stop), streamed)
        if source.items_at_once is not None and len(mine) > source.items_at_once:
            return _BatchStates(lambda start, stop: source.of(mine[start:stop]), streamed)
        held = source.of(mine)
        return _BatchStates(lambda start, stop: [each[:, start:stop] for each in held], False)

    def _step(self, batch: Batch, states: _BatchStates) -> tuple[Tensor, Tensor, Tensor]:
        """Of a batch, this process's part of its mean loss, the gradient's norm, and the number of its positions."""
        self._optimizer.zero_grad(set_to_none=True)  # Before anything is computed that needs their memory.
        positions = (batch.following > 0).sum()
        mine = batch.share(self._processes.rank, self._processes.size)
        known = mine.following > 0
        # Without its cache of rounded weights: the gradients of all blocks of items would be summed in bfloat16, and
        # otherwise than where blocks are computed again.
        mixed = self._precision != torch.float32 and mixes_all_products(self._device)
        with torch.autocast(self._device.type, self._precision, enabled=mixed, cache_enabled=False):
            vectors = self._vectors(batch.items, states)  # (C, d)
            if len(mine.inputs):
                # Padding, 0, gets a zero vector; a table with a row for it would be a copy of all candidates.
                read = functional.embedding((mine.inputs - 1).clamp_min(0), vectors) * (mine.inputs > 0)[..., None]
                hidden = self._recommender.network(read, mine.counts)
                loss = self._loss(mine, known, hidden[known], vectors)
                if self._processes.size > 1:
                    loss = loss * (known.sum() / positions)
            else:  # The last batch may have fewer sequences than there are processes.
                loss = vectors.sum() * 0
        loss.backward()  # type: ignore[no-untyped-call]
        self._processes.sum_gradients(self._modules.parameters())
        norm = nn.utils.clip_grad_norm_(self._modules.parameters(), self._options.clip)
        self._optimizer.step()
        return loss.detach(), norm, positions

    def _vectors(self, items: Tensor, states: _BatchStates) -> Tensor:
        """Vectors ``(C, d)`` of a batch's items ``(C,)``, of which this process makes its share."""
        first, last = self._processes.span(len(items))
        recompute = last - first > RECOMPUTE_FROM_ITEMS or states.read_anew
        vectors = encode(self._encoder, states.between, items[first:last], recompute, self._data.states.items_at_once)
        return self._processes.gathered(vectors, len(items))

    def _loss(self, batch: Batch, known: Tensor, states: Tensor, vectors: Tensor) -> Tensor:
        """The mean loss of a batch's P `known` positions, of states ``(P, d)``, over candidates ``(C, d)``."""
        options, recommender = self._options, self._recommender
        targets = batch.following[known] - 1
        states, vectors = recommender.factors_of_states(states), recommender.factors(vectors)
        columns = torch.cat([batch.inputs[:, :1], batch.following], dim=1) - 1
        shared: dict[str, Any] = {
            "biases": recommender.biases(batch.items - 1),
            "windows": Windows(columns, *known.nonzero(as_tuple=True)),
            "by_age": recommender.repeat_biases(),
        }
        if options.loss == "gbce":
            assert batch.drawn is not None
            power = gbce_power(options.negatives, self._data.num_trained, options.calibration)
            return gbce_loss(states, vectors, targets, batch.drawn, options.negatives, power, **shared)
        return softmax_loss(states, vectors, targets, log_inclusion=batch.log_inclusion, **shared)

    def _validate(self) -> dict[str, float]:
        self._refresh_item_embeddings()
        mine = self._valid.between(*self._processes.span(len(self._valid)))
        try:
            ranks = rank_targets(self.recommender(), self._data.sequences, mine, self._device)
        except NaNScoreError as error:
            raise TrainingError(f"epoch {len(self.history.epochs) + 1}: {error}") from error
        return metrics_of(join_ranks(self._processes.every(ranks)))

    @torch.no_grad()
    def _refresh_item_embeddings(self) -> None:
        self._modules.eval()
        embeddings = self._recommender.item_embeddings[1:]
        first, last = self._processes.span(len(embeddings))
        source = self._data.states
        at_once = min(_ITEMS_AT_ONCE, source.items_at_once or _ITEMS_AT_ONCE)
        blocks = ((start, source.between(start, min(start + at_once, last))) for start in range(first, last, at_once))
        for start, states in blocks if source.items_at_once is None else ahead(blocks):
            stop = min(start + at_once, last)
            items = torch.arange(start + 1, stop + 1, device=self._device)
            embeddings[start:stop] = self._encoder(states, items)
        self._processes.exchange(embeddings)

    def _parameters(self, values: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """A copy of the parameters as they are, or of other values of them."""
        values = dict(self._modules.named_parameters()) if values is None else values
        return {name: value.detach().clone() for name, value in values.items()}

    @torch.no_grad()
    def _load_parameters(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._modules.named_parameters():
            parameter.copy_(values[name])

    def _save(self, path: Path, made_from: Mapping[str, Any]) -> None:
        tensors = {
            **ckpt.with_prefix("model", dict(self._modules.named_parameters())),
            **ckpt.with_prefix("average", self._average or {}),
            **ckpt.with_prefix("best", self._best),
            **ckpt.with_prefix("optimizer", ckpt.optimizer_tensors(self._optimizer, self._modules)),
        }
        ckpt.save_tensors(path, tensors, {"history": vars(self.history), "made_from": made_from})

    def restore(self, path: Path) -> None:
        """Go on where the checkpoint stood.

        Raises:
            CheckpointError: if the file is damaged.
        """
        tensors, about = ckpt.load_tensors(path)
        self.history = History(**about["history"])
        self._load_parameters(ckpt.without_prefix("model", tensors))
        self._best = self._restored("best", tensors)
        if self._average is not None:
            self._average = self._restored("average", tensors)
        ckpt.restore_optimizer(self._optimizer, self._modules, ckpt.without_prefix("optimizer", tensors))

    def _restored(self, prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """In the order of the parameters."""
        values = ckpt.without_prefix(prefix, tensors)
        return {name: values[name].to(self._device) for name, _ in self._modules.named_parameters()}


def _seed_of(seed: int, epoch: int, purpose: str) -> int:
    """An independent seed for each epoch and purpose."""
    words = np.random.SeedSequence([seed, epoch, *purpose.encode()]).generate_state(2, np.uint32)
    return int(words[0]) << 31 ^ int(words[1])
