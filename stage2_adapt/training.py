"""The training loop: epochs over all sequences, early stopping on validation, a checkpoint after each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssna.cache import SsnaError
from ssna.stage2_adapt import checkpoint as ckpt
from ssna.stage2_adapt.batches import shuffled_batches
from ssna.stage2_adapt.evaluation import evaluate
from ssna.stage2_adapt.item_encoder import ItemEncoder
from ssna.stage2_adapt.losses import full_softmax_loss
from ssna.stage2_adapt.options import AdaptOptions
from ssna.stage2_adapt.recommenders import SequenceRecommender, normalized
from ssna.stage2_adapt.sequences import Sequences, Split, cases_of, gather_spans, training_windows

CRITERION = "ndcg@10"
_LARGEST_GRADIENT_NORM = 1.0


class TrainingError(SsnaError):
    """Training cannot start or go on."""


@dataclass(frozen=True)
class TrainingData:
    """What a run trains and validates on. Of the N items, numbers 1 to T occur in training and the others do not."""

    sequences: Sequences
    split: Split
    num_items: int
    """N"""
    num_trained: int
    """T"""
    states: Tensor | None
    """Standardised layer states of items 1 to N, float32 (A, N, D), lowest layer first; None if the model reads none"""


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

    def is_over(self, options: AdaptOptions) -> bool:
        """Whether all epochs are done, or the last `patience` of them brought nothing."""
        done = len(self.epochs)
        return done >= options.epochs or done - self.best_epoch >= options.patience


class Training:
    """A run's model, optimiser and random state."""

    def __init__(self, data: TrainingData, options: AdaptOptions, device: torch.device) -> None:
        starts, ends = training_windows(data.sequences, data.split, options.length)
        if not len(starts):
            raise TrainingError(
                "no user has two interactions to train on. Expected sequences of at least two interactions besides "
                "those held out; lower --min-user and --min-item of `ssna prepare`, or use more data."
            )
        torch.manual_seed(options.seed)
        self._data, self._options, self._device = data, options, device
        states_size = None if data.states is None else (data.states.shape[0], data.states.shape[2])
        self._encoder = ItemEncoder(states_size, data.num_trained, options).to(device)
        self._recommender = SequenceRecommender(data.num_items, options).to(device)
        self._modules = nn.ModuleDict({"encoder": self._encoder, "recommender": self._recommender})
        self._optimizer = _optimizer(self._modules, options)
        self._order = torch.Generator().manual_seed(options.seed)
        self._starts, self._ends = torch.from_numpy(starts), torch.from_numpy(ends)
        self._items = torch.from_numpy(data.sequences.items).to(device)
        self._trained_states = None if data.states is None else data.states[:, : data.num_trained].to(device)
        self._valid = cases_of(data.sequences, data.split, "valid")
        self.history = History()
        self._best = self._parameters()

    @property
    def trainable_parameters(self) -> int:
        """Number of trained values."""
        return sum(parameter.numel() for parameter in self._modules.parameters())

    def run(self, path: Path, on_epoch: Callable[[Epoch], None], on_step: Callable[[int, int], None]) -> None:
        """Train to the end, with a checkpoint at `path` after each epoch; then take the best epoch's parameters.

        Args:
            path: of the checkpoint.
            on_epoch: told of each epoch, before its checkpoint is written.
            on_step: told the steps done in the epoch, and their number.

        Raises:
            TrainingError: if the loss is no longer a number; the last checkpoint stays.
        """
        while not self.history.is_over(self._options):
            started = time.perf_counter()
            loss = self._train_epoch(on_step)
            trained = time.perf_counter()
            valid = self._validate()
            validated = time.perf_counter()
            number = len(self.history.epochs) + 1
            epoch = Epoch(number, loss, valid, round(trained - started, 4), round(validated - trained, 4))
            self.history.epochs.append(vars(epoch))
            # Without anybody to validate on, the last epoch counts as the best.
            value = valid.get(CRITERION, float(number))
            if value > self.history.best_value:
                self.history.best_value, self.history.best_epoch = value, number
                self._best = self._parameters()
            on_epoch(epoch)
            self._save(path)
        self._load_parameters(self._best)
        self._refresh_item_embeddings()

    def recommender(self) -> SequenceRecommender:
        """The model with the item embeddings of its parameters, in evaluation mode."""
        return self._recommender.eval()

    def side_parameters(self) -> dict[str, Tensor]:
        """The item encoder's parameters by name: what turns new states into item embeddings."""
        return dict(self._encoder.state_dict())

    def _train_epoch(self, on_step: Callable[[int, int], None]) -> float:
        self._modules.train()
        total, positions = torch.zeros((), device=self._device), 0
        lengths = self._ends - self._starts
        batches = list(shuffled_batches(lengths, self._options.batch_size, self._order))
        for step, batch in enumerate(batches):
            loss, count = self._step(batch)
            total += loss * count
            positions += count
            on_step(step + 1, len(batches))
        mean = float(total) / positions
        if mean != mean:
            raise TrainingError(
                f"the loss became NaN in epoch {len(self.history.epochs) + 1}. The checkpoint of the epochs before, if "
                "any, is kept; train again with a lower --learning-rate (and --overwrite)."
            )
        return mean

    def _step(self, batch: Tensor) -> tuple[Tensor, int]:
        window, counts = gather_spans(self._items, self._starts[batch], self._ends[batch], self._options.length + 1)
        inputs, following = window[:, :-1], window[:, 1:]
        known = following > 0
        vectors = self._encoder(self._trained_states, 0, self._data.num_trained)  # (T, d)
        table = functional.pad(vectors, (0, 0, 1, 0))
        sequences = self._recommender.network(functional.embedding(inputs, table), counts.to(self._device) - 1)
        states = sequences[known]  # (P, d)
        loss = full_softmax_loss(
            normalized(states), normalized(vectors), following[known] - 1, self._recommender.scale()
        )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._modules.parameters(), _LARGEST_GRADIENT_NORM)
        self._optimizer.step()
        return loss.detach(), int(counts.sum()) - len(batch)

    def _validate(self) -> dict[str, float]:
        self._refresh_item_embeddings()
        return dict(evaluate(self.recommender(), self._data.sequences, self._valid, self._device))

    def _refresh_item_embeddings(self) -> None:
        self._modules.eval()
        embeddings = self._encoder.encode_all(self._data.states, self._data.num_items, self._device)
        self._recommender.item_embeddings.copy_(embeddings)

    def _parameters(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self._modules.named_parameters()}

    @torch.no_grad()
    def _load_parameters(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._modules.named_parameters():
            parameter.copy_(values[name])

    def _save(self, path: Path) -> None:
        tensors = {
            **ckpt.with_prefix("model", self._parameters()),
            **ckpt.with_prefix("best", self._best),
            **ckpt.with_prefix("optimizer", ckpt.optimizer_tensors(self._optimizer, self._modules)),
            "random.order": self._order.get_state(),
            "random.cpu": torch.get_rng_state(),
        }
        if self._device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self._device)
        ckpt.save_tensors(path, tensors, vars(self.history))

    def restore(self, path: Path) -> None:
        """Go on where the checkpoint stood.

        Raises:
            CheckpointError: if the file is damaged.
        """
        tensors, history = ckpt.load_tensors(path)
        self.history = History(**history)
        self._load_parameters(ckpt.without_prefix("model", tensors))
        self._best = {name: value.to(self._device) for name, value in ckpt.without_prefix("best", tensors).items()}
        ckpt.restore_optimizer(self._optimizer, self._modules, ckpt.without_prefix("optimizer", tensors))
        self._order.set_state(tensors["random.order"])
        torch.set_rng_state(tensors["random.cpu"])
        if self._device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self._device)


def _optimizer(modules: nn.Module, options: AdaptOptions) -> torch.optim.Optimizer:
    """AdamW that decays matrices but neither biases, norms nor the scale."""
    matrices = [parameter for parameter in modules.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in modules.parameters() if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)
