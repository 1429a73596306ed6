"""The training loop: it learns, it repeats itself, and it resumes exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssna.stage2_adapt import AdaptOptions, Epoch, Training, TrainingData, evaluate, leave_one_out
from ssna.stage2_adapt.batches import shuffled_batches
from ssna.stage2_adapt.checkpoint import CheckpointError
from ssna.stage2_adapt.popularity import count_popularity
from ssna.stage2_adapt.sequences import cases_of
from ssna.stage2_adapt.training import History, TrainingError
from tests.stage2_adapt.strategies import pack

CPU = torch.device("cpu")
N = 8
# Every user goes round the same circle of items, so the next item follows from the last.
CIRCLE = pack([[(start + step) % N + 1 for step in range(6)] for start in range(N)] * 3)


def data(states: bool = True) -> TrainingData:
    generator = torch.Generator().manual_seed(1)
    made_up = torch.randn(2, N, 5, generator=generator) if states else None
    return TrainingData(CIRCLE, leave_one_out(CIRCLE), N, N, made_up)


def options(**changes: object) -> AdaptOptions:
    fixed = {"width": 8, "heads": 2, "blocks": 1, "length": 4, "batch_size": 8, "epochs": 4, "learning_rate": 0.01}
    return AdaptOptions(**{**fixed, **changes})  # type: ignore[arg-type]


def train(path: Path, chosen: AdaptOptions, stop_after: int | None = None) -> tuple[Training, list[Epoch]]:
    """Train, or die after some epochs, as a killed process would: after the line, before the checkpoint."""
    training = Training(data(chosen.needs_states), chosen, CPU)
    if path.exists():
        training.restore(path)
    epochs: list[Epoch] = []

    def record(epoch: Epoch) -> None:
        epochs.append(epoch)
        if epoch.epoch == stop_after:
            raise KeyboardInterrupt

    training.run(path, record, lambda done, total: None)
    return training, epochs


def outcome(epochs: list[Epoch]) -> list[tuple[int, float, dict[str, float]]]:
    return [(epoch.epoch, epoch.loss, epoch.valid) for epoch in epochs]


@pytest.mark.parametrize("chosen", [{"side": "none"}, {}, {"item_id": True}], ids=["ids", "text", "text-and-ids"])
def test_it_learns_what_follows_what(tmp_path: Path, chosen: dict[str, object]) -> None:
    training, epochs = train(tmp_path / "c", options(epochs=100, patience=100, dropout=0.0, **chosen))
    assert epochs[-1].loss < epochs[0].loss / 4
    cases = cases_of(CIRCLE, leave_one_out(CIRCLE), "test")
    assert evaluate(training.recommender(), CIRCLE, cases, CPU)["ndcg@5"] == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        outcome(train(tmp_path / name, options(item_id=True, seed=seed))[1])
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resumed_run_is_bit_for_bit_the_unbroken_one(tmp_path: Path, epoch: int) -> None:
    chosen = options(item_id=True, dropout=0.3, weight_decay=0.1)
    unbroken, lines = train(tmp_path / "unbroken", chosen)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", chosen, stop_after=epoch + 1)
    torch.manual_seed(999)  # A new process has another random state.
    resumed, rest = train(tmp_path / "killed", chosen)
    assert outcome(rest) == outcome(lines)[epoch:]
    assert resumed.history.best_epoch == unbroken.history.best_epoch
    for ours, theirs in zip(
        resumed.recommender().state_dict().values(), unbroken.recommender().state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_checkpoint_that_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    train(path, options(epochs=1))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors cannot be read"):
        train(path, options(epochs=1))


@pytest.mark.parametrize(
    ("values", "patience", "over_after", "best"),
    [([0.1, 0.2, 0.15, 0.2, 0.3], 2, 4, 2), ([0.1, 0.2, 0.3, 0.4, 0.5], 2, 5, 5), ([0.0, 0.0], 1, 2, 1)],
)
def test_training_stops_after_so_many_epochs_without_a_better_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[float], patience: int, over_after: int, best: int
) -> None:
    left = iter(values)
    monkeypatch.setattr(Training, "_validate", lambda self: {"ndcg@10": next(left)})
    training, epochs = train(tmp_path / "c", options(epochs=len(values), patience=patience))
    assert len(epochs) == over_after
    assert training.history.best_epoch == best


def test_the_best_epochs_parameters_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([0.1, 0.9, 0.2])
    monkeypatch.setattr(Training, "_validate", lambda self: {"ndcg@10": next(left)})
    long, _ = train(tmp_path / "long", options(epochs=3))
    left = iter([0.1, 0.9])
    short, _ = train(tmp_path / "short", options(epochs=2))
    assert torch.equal(long.recommender().item_embeddings, short.recommender().item_embeddings)


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c"
    train(path, options(epochs=1))
    before = path.read_bytes()
    monkeypatch.setattr(Training, "_step", lambda self, batch: (torch.tensor(float("nan")), 3))
    with pytest.raises(TrainingError, match="the loss became NaN in epoch 2"):
        train(path, options(epochs=2))
    assert path.read_bytes() == before


def test_nothing_to_train_on_is_an_error() -> None:
    sequences = pack([[1, 2, 3], [4]])
    with pytest.raises(TrainingError, match="no user has two interactions to train on"):
        Training(TrainingData(sequences, leave_one_out(sequences), N, N, None), options(side="none"), CPU)


def test_without_validation_users_the_last_epoch_is_taken(tmp_path: Path) -> None:
    sequences = pack([[1, 2], [2, 3]])
    training = Training(
        TrainingData(sequences, leave_one_out(sequences), N, 3, None), options(side="none", epochs=3, patience=1), CPU
    )
    training.run(tmp_path / "c", lambda epoch: None, lambda done, total: None)
    assert training.history.best_epoch == 3
    assert not History(best_epoch=3, epochs=[{}] * 3).is_over(options(epochs=9, patience=1))


def test_no_llm_state_is_ever_trained(tmp_path: Path) -> None:
    given_states = data()
    assert given_states.states is not None
    before = given_states.states.clone()
    training = Training(given_states, options(epochs=1), CPU)
    training.run(tmp_path / "c", lambda epoch: None, lambda done, total: None)
    assert torch.equal(given_states.states, before)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=80), st.integers(1, 5), st.integers(0, 3))
def test_every_window_is_in_one_batch(lengths: list[int], batch_size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = list(shuffled_batches(torch.tensor(lengths), batch_size, generator))
    assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    assert max(map(len, batches)) <= batch_size


def test_popularity_counts_training_interactions_only() -> None:
    sequences = pack([[1, 1, 2, 3, 3], [2, 2, 3, 3, 3]])
    model = count_popularity(sequences, leave_one_out(sequences), 4)
    assert (
        model.scores(torch.ones(2, 1, dtype=torch.long), torch.ones(2, dtype=torch.long)).tolist()
        == [[2.0, 3.0, 1.0, 0.0]] * 2
    )
