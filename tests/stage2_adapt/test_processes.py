"""Several processes: together they do what one does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from ssna.stage2_adapt import Processes

WORK = textwrap.dedent("""
    import sys, torch
    from pathlib import Path
    from ssna.stage2_adapt import AdaptOptions, ResidentStates, Training, TrainingData, leave_last
    from ssna.stage2_adapt.processes import processes_of_torchrun
    from tests.stage2_adapt.strategies import pack

    folder, several_changes = Path(sys.argv[1]), eval(sys.argv[2])
    torch.set_num_threads(1)
    N, device = 9, torch.device("cpu")
    # The last batch has one sequence, so that with two processes one has nothing to do.
    sequences = pack([[(start * step) % N + 1 for step in range(1, 5 + start % 3)] for start in range(1, 18)])
    states = ResidentStates([torch.randn(2, N, 5, generator=torch.Generator().manual_seed(1))])
    fixed = dict(width=8, heads=2, blocks=1, length=4, batch_size=8, epochs=2, dropout=0.0, id_dropout=0.0, clip=1e9)
    def train(changes, processes, place):
        options = AdaptOptions(**{**fixed, **changes})
        data = TrainingData(sequences, leave_last(sequences), N, N, states, [(2, 5)])
        training, gradients, epochs = Training(data, options, device, processes), [], []
        step = training._optimizer.step
        def record():
            gradients.append([parameter.grad.clone() for parameter in training._modules.parameters()])
            step()
        training._optimizer.step = record
        training.run(place / f"checkpoint-{processes.rank}", epochs.append)
        if processes.rank == processes.size - 1:
            lines = [(epoch.loss, epoch.valid) for epoch in epochs]
            torch.save((gradients, lines, training.recommender().item_embeddings), place / "outcome")

    with processes_of_torchrun(device) as processes:
        for number, changes in enumerate(several_changes):
            place = folder / f"{processes.size}-{number}"
            place.mkdir(exist_ok=True)
            train(changes, processes, place)
""")


def together(size: int, work: str, *arguments: str | Path) -> list[subprocess.Popen[str]]:
    """Processes as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(size):
        environment = {
            **os.environ,
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        }
        command = [sys.executable, "-c", work, *map(str, arguments)]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    return started


CHANGES = [
    {"item_id": True, "loss": "softmax"},
    {"loss": "sampled", "negatives": 3},
    {"loss": "gbce", "negatives": 3, "model": "gru4rec"},
    {"loss": "in-batch", "clip": 0.05},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `SIZE-NUMBER`: how many processes trained, and with which of the changes."""
    folder = tmp_path_factory.mktemp("trained")
    for size in (1, 2):
        for process in together(size, WORK, folder, repr(CHANGES)):
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    return folder


@pytest.mark.parametrize("number", range(len(CHANGES)), ids=lambda number: "-".join(map(str, CHANGES[number].values())))
def test_two_processes_give_the_gradients_and_metrics_of_one(trained: Path, number: int) -> None:
    (gradients, lines, embeddings), (joint_gradients, joint_lines, joint_embeddings) = (
        torch.load(trained / f"{size}-{number}" / "outcome") for size in (1, 2)
    )
    assert len(gradients) == len(joint_gradients) == 2 * 3
    for step, (one, other) in enumerate(zip(gradients, joint_gradients, strict=True)):
        for mine, theirs in zip(one, other, strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-3, atol=1e-5, msg=lambda text: f"step {step}: {text}")  # noqa: B023
    for (loss, valid), (joint_loss, joint_valid) in zip(lines, joint_lines, strict=True):
        assert joint_loss == pytest.approx(loss, rel=1e-4)
        assert joint_valid == valid
    torch.testing.assert_close(joint_embeddings, embeddings, rtol=1e-2, atol=1e-4)
    assert (trained / f"2-{number}" / "checkpoint-0").exists()
    assert not (trained / f"2-{number}" / "checkpoint-1").exists(), "one process writes"


def test_a_process_that_dies_ends_the_others_with_an_error(tmp_path: Path) -> None:
    dies = WORK.replace(
        "step()", "len(gradients) == 3 and processes.rank == 1 and os.kill(os.getpid(), 9)\n        step()"
    )
    first, second = together(2, "import os" + dies, tmp_path, "[{'epochs': 1000, 'patience': 1000}]")
    _, errors = first.communicate(timeout=120)
    second.communicate(timeout=120)
    assert second.returncode == -signal.SIGKILL
    assert first.returncode not in (0, None), errors


@pytest.mark.parametrize(("size", "count"), [(1, 5), (2, 5), (3, 2), (4, 8), (2, 0)])
def test_every_thing_is_in_exactly_one_share(size: int, count: int) -> None:
    spans = [Processes(rank, size).span(count) for rank in range(size)]
    assert [i for first, last in spans for i in range(first, last)] == list(range(count))
