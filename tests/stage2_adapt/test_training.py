"""The training loop: it learns, it repeats itself, and it resumes exactly."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssna.stage2_adapt import AdaptOptions, Epoch, ResidentStates, Training, TrainingData, leave_last
from ssna.stage2_adapt.batches import Batch, BatchMaker, shuffled_batches
from ssna.stage2_adapt.checkpoint import CheckpointError
from ssna.stage2_adapt.evaluation import rank_targets
from ssna.stage2_adapt.metrics import metrics_of
from ssna.stage2_adapt.optimization import TrainingError
from ssna.stage2_adapt.popularity import count_popularity
from ssna.stage2_adapt.sequences import Split, cases_of
from ssna.stage2_adapt.training import History
from tests.stage2_adapt.strategies import pack

CPU = torch.device("cpu")
N = 8
# Every user goes round the same circle of items, so the next item follows from the last.
CIRCLE = pack([[(start + step) % N + 1 for step in range(6)] for start in range(N)] * 3)


def data(states: bool = True) -> TrainingData:
    generator = torch.Generator().manual_seed(1)
    if not states:
        return TrainingData(CIRCLE, leave_last(CIRCLE), N, N)
    made_up = ResidentStates([torch.randn(2, N, 5, generator=generator)])
    return TrainingData(CIRCLE, leave_last(CIRCLE), N, N, made_up, [(2, 5)])


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


@pytest.mark.parametrize(
    "chosen",
    [
        {"side": "none"},
        {},
        {"item_id": True},
        {"item_id": True, "fusion": "gate", "side": "residual", "side_width": 12},
        {"model": "gru4rec"},
        {"model": "hstu", "side": "gate"},
        {"model": "fmlp"},
        {"side": "mean", "preparation": "none"},
        {"side": "concat", "scorer": "dot"},
        {"loss": "sampled", "negatives": 3},
        {"loss": "softmax"},
        {"loss": "in-batch", "side": "last"},
        {"loss": "gbce", "negatives": 5},
        {"precision": "bfloat16", "warmup": 5, "schedule": "cosine"},
    ],
    ids=lambda chosen: "-".join(map(str, chosen.values())) or "defaults",
)
def test_it_learns_what_follows_what(tmp_path: Path, chosen: dict[str, object]) -> None:
    training, epochs = train(tmp_path / "c", options(epochs=60, patience=60, dropout=0.0, **chosen))
    assert epochs[-1].loss < epochs[0].loss / 4
    cases = cases_of(CIRCLE, leave_last(CIRCLE), "test")
    assert metrics_of(rank_targets(training.recommender(), CIRCLE, cases, CPU))["ndcg@5"] == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        outcome(train(tmp_path / name, options(item_id=True, seed=seed))[1])
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("epoch", "changes"),
    [
        (1, {}),
        (3, {}),
        (2, {"loss": "softmax", "warmup": 5, "side_dropout": 0.2}),
        (2, {"loss": "gbce", "model": "gru4rec", "schedule": "cosine"}),
        (2, {"loss": "in-batch", "model": "hstu", "fusion": "gate", "precision": "bfloat16"}),
    ],
)
def test_a_resumed_run_is_bit_for_bit_the_unbroken_one(tmp_path: Path, epoch: int, changes: dict[str, object]) -> None:
    chosen = options(item_id=True, dropout=0.3, weight_decay=0.1, **changes)
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


@pytest.mark.parametrize("steps_a_check", [2, 64])
@pytest.mark.parametrize(
    ("lost", "norm", "message"),
    [
        (math.nan, 1.0, "loss became NaN"),
        (math.inf, 1.0, "loss became infinite"),
        (1.0, math.nan, "gradient became NaN"),
    ],
)
def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: float, norm: float, message: str, steps_a_check: int
) -> None:
    path = tmp_path / "c"
    train(path, options(epochs=1))
    before = path.read_bytes()
    steps = iter([(1.0, 1.0), (lost, norm), (1.0, 1.0)])

    def step(self: Training, batch: Batch, states: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        loss, norm = map(torch.tensor, next(steps))
        return loss, norm, torch.tensor(3)

    monkeypatch.setattr(Training, "_step", step)
    monkeypatch.setattr("ssna.stage2_adapt.training._STEPS_A_CHECK", steps_a_check)
    with pytest.raises(TrainingError, match=f"the {message} in step 2 of epoch 2"):
        train(path, options(epochs=2))
    assert path.read_bytes() == before
    assert (next(steps, None) is None) == (steps_a_check > 2), "it is found at the next look, or when the epoch ends"


def test_the_parameters_that_count_are_averages_over_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.1, 0.2])
    monkeypatch.setattr(Training, "_validate", lambda self: {"ndcg@10": next(values)})
    training = Training(data(), options(epochs=2, averaging=2.0), CPU)
    average, steps = [p.detach().clone() for p in training._modules.parameters()], []
    taken = training._optimizer.step

    def step() -> None:
        taken()
        kept = min(1 - 1 / (2 * 3), (len(steps) + 2) / (len(steps) + 11))  # Three steps an epoch
        steps.append(kept)
        for mean, parameter in zip(average, training._modules.parameters(), strict=True):
            mean.mul_(kept).add_(parameter.detach(), alpha=1 - kept)

    monkeypatch.setattr(training._optimizer, "step", step)
    training.run(tmp_path / "c", lambda epoch: None)
    assert steps == [2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16]
    for parameter, mean in zip(training._modules.parameters(), average, strict=True):
        torch.testing.assert_close(parameter, mean)


def test_averaging_changes_what_is_validated_and_not_how_it_is_trained(tmp_path: Path) -> None:
    averaged, plain = (outcome(train(tmp_path / str(e), options(averaging=e))[1]) for e in (3.0, 0.0))
    assert [loss for _, loss, _ in averaged] == [loss for _, loss, _ in plain]
    assert [valid for *_, valid in averaged] != [valid for *_, valid in plain]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles with g++, which is not here")
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler has some of its own.
@pytest.mark.parametrize("model", ["sasrec", "gru4rec", "hstu", "fmlp"])
def test_a_compiled_model_learns_the_same(model: str, tmp_path: Path) -> None:
    eager, compiled = (
        outcome(train(tmp_path / str(on), options(compile=on, model=model, dropout=0.0, epochs=2))[1])
        for on in (False, True)
    )
    assert [loss for _, loss, _ in compiled] == pytest.approx([loss for _, loss, _ in eager], rel=1e-4)


def test_a_model_that_cannot_be_compiled_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    def fail(self: Training, batch: Batch, states: object) -> None:
        raise BackendCompilerFailed(fail, RuntimeError("no C++ compiler"), None)

    monkeypatch.setattr(Training, "_step", fail)
    with pytest.raises(TrainingError, match="--compile: PyTorch could not compile the model .*Leave the option out"):
        train(tmp_path / "c", options())


@pytest.mark.parametrize("model", ["sasrec", "hstu", "fmlp"])
def test_several_threads_repeat_themselves_to_the_last_bit(model: str, tmp_path: Path) -> None:
    """With so many values that PyTorch divides their gradient among threads."""
    rng = np.random.default_rng(0)
    sequences = pack([rng.integers(1, 41, 132).tolist() for _ in range(12)])
    chosen = options(model=model, side="none", width=32, length=130, batch_size=12, epochs=2)
    before, embeddings = torch.get_num_threads(), list[torch.Tensor]()
    torch.set_num_threads(4)
    try:
        for name in "abc":
            training = Training(TrainingData(sequences, leave_last(sequences), 40, 40), chosen, CPU)
            training.run(tmp_path / name, lambda epoch: None)
            embeddings.append(torch.cat([value.flatten() for value in training._modules.parameters()]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(embeddings[0], embeddings[1])
    assert torch.equal(embeddings[0], embeddings[2])


def test_nothing_to_train_on_is_an_error() -> None:
    sequences = pack([[1, 2, 3], [4]])
    with pytest.raises(TrainingError, match="no user has two interactions to train on"):
        Training(TrainingData(sequences, leave_last(sequences), N, N), options(side="none"), CPU)


def test_without_validation_users_the_last_epoch_is_taken(tmp_path: Path) -> None:
    sequences = pack([[1, 2], [2, 3]])
    training = Training(
        TrainingData(sequences, leave_last(sequences), N, 3), options(side="none", epochs=3, patience=1), CPU
    )
    training.run(tmp_path / "c", lambda epoch: None, lambda done, total: None)
    assert training.history.best_epoch == 3
    assert not History(best_epoch=3, epochs=[{}] * 3).is_over(options(epochs=9, patience=1))


def test_no_llm_state_is_ever_trained(tmp_path: Path) -> None:
    given_states = data()
    (states,) = given_states.states.between(0, N)
    before = states.clone()
    training = Training(given_states, options(epochs=1), CPU)
    training.run(tmp_path / "c", lambda epoch: None, lambda done, total: None)
    assert torch.equal(states, before)


def test_the_learning_rate_rises_and_falls_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    real = Training._step

    def watch(self: Training, batch: Batch, states: list[torch.Tensor] | None) -> tuple[torch.Tensor, torch.Tensor]:
        rates.append(self._optimizer.param_groups[0]["lr"])
        return real(self, batch, states)

    monkeypatch.setattr(Training, "_step", watch)
    train(tmp_path / "c", options(epochs=4, warmup=4, schedule="cosine", learning_rate=0.01))
    assert len(rates) == 12, "24 windows in batches of 8, four epochs"
    assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert rates[4:] == pytest.approx([0.005 * (1 + math.cos(math.pi * i / 8)) for i in range(8)])


def test_no_epoch_begins_after_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(data(), options(epochs=9), CPU)
    monkeypatch.setattr(type(training.history), "seconds", property(lambda self: 10.0 * len(self.epochs)))
    training.run(tmp_path / "c", lambda epoch: None, lambda done, total: None, time_limit=20)
    assert len(training.history.epochs) == 2
    resumed = Training(data(), options(epochs=9), CPU)
    resumed.restore(tmp_path / "c")
    resumed.run(tmp_path / "c", lambda epoch: None, None, time_limit=20)
    assert len(resumed.history.epochs) == 2, "the seconds before it was resumed count"


def maker(**changes: object) -> BatchMaker:
    return BatchMaker(CIRCLE, leave_last(CIRCLE), N, options(**changes), CPU)


@pytest.mark.parametrize("loss", ["softmax", "sampled", "in-batch", "gbce"])
def test_a_batch_names_the_items_of_its_windows(loss: str) -> None:
    """Item i is always followed by item i + 1, whatever the candidates are."""
    for batch in maker(loss=loss, negatives=2, batch_size=3).epoch(torch.Generator().manual_seed(0)):
        items = torch.cat([torch.zeros(1, dtype=torch.long), batch.items])
        inputs, following = items[batch.inputs], items[batch.following]
        assert batch.items.tolist() == sorted(set(batch.items.tolist()))
        assert torch.equal(inputs > 0, torch.arange(inputs.shape[1]) < batch.counts[:, None])
        assert torch.equal(following[inputs > 0], inputs[inputs > 0] % N + 1)
        if loss == "gbce":
            assert batch.drawn is not None
            assert batch.drawn.sum() == 2


@pytest.mark.parametrize(("loss", "negatives"), [("in-batch", 1), ("sampled", 2)])
def test_a_sum_over_corrected_candidates_estimates_that_over_all_items(loss: str, negatives: int) -> None:
    """For a window and an item that is not in it: how often it is a candidate, over how likely that was, is one.

    Some windows are long, some items are in long ones only, and batches hold windows of about the same length.
    """
    long = [[7, 8, 7, 8, 1, 2, 3, 4, 1], [8, 6, 1, 8, 1, 8, 8, 8, 5], [3, 4, 9, 3, 4, 2, 2, 2, 6]]
    short = [[1, 2], [3, 1], [2, 4], [5, 2], [6, 6], [5, 6], [4, 5]]
    sequences = pack([*short * 20, *long * 20])
    split = Split(sequences.starts[1:], sequences.starts[1:])
    made = BatchMaker(sequences, split, 9, options(loss=loss, negatives=negatives, batch_size=8, length=8), CPU)
    weight, cases = torch.zeros(9), torch.zeros(9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        for batch in made.epoch(generator):
            assert batch.log_inclusion is not None
            items = torch.cat([torch.zeros(1, dtype=torch.long), batch.items])
            spans = torch.cat([batch.inputs[:, :1], batch.following], dim=1)
            without = torch.ones(len(spans), 10).scatter_(1, items[spans], 0)[:, 1:]
            cases += without.sum(0)
            weight[batch.items - 1] += without.sum(0)[batch.items - 1] / batch.log_inclusion.exp()
    torch.testing.assert_close(weight / cases, torch.ones(9), atol=0.08, rtol=0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=80), st.integers(1, 5), st.integers(0, 3))
def test_every_window_is_in_one_batch(lengths: list[int], batch_size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = list(shuffled_batches(torch.tensor(lengths), batch_size, generator))
    assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    assert max(map(len, batches)) <= batch_size


def test_popularity_counts_training_interactions_only() -> None:
    sequences = pack([[1, 1, 2, 3, 3], [2, 2, 3, 3, 3]])
    model = count_popularity(sequences, leave_last(sequences), 4)
    assert (
        model.scores(torch.ones(2, 1, dtype=torch.long), torch.ones(2, dtype=torch.long), model.candidates()).tolist()
        == [[2.0, 3.0, 1.0, 0.0]] * 2
    )


def test_weight_decay_leaves_norms_biases_and_the_scale_alone() -> None:
    training = Training(data(), options(weight_decay=0.1, item_id=True, side="residual"), CPU)
    names = {id(parameter): name for name, parameter in training._modules.named_parameters()}
    decayed, others = ([names[id(one)] for one in group["params"]] for group in training._optimizer.param_groups)
    assert {"encoder.sides.0.down", "encoder.id_table", "recommender.network.blocks.0.attention_out.weight"} <= set(
        decayed
    )
    assert {"encoder.sides.0.down_bias", "encoder.sides.0.norm.weight", "recommender.log_scale"} <= set(others)
    assert not [name for name in decayed if "bias" in name or "norm" in name]
