"""Which device each process computes on, and what memory it tells of."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ssna.devices import DeviceError, peak_memory_bytes, reset_peak_memory, resolve_device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Two GPUs, as far as anybody asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return monkeypatch


def as_torchrun_starts(monkeypatch: pytest.MonkeyPatch, local_rank: int, processes: int) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_each_process_of_torchrun_takes_a_gpu_of_its_own(two_gpus: pytest.MonkeyPatch, wanted: str) -> None:
    assert resolve_device(wanted) == torch.device("cuda")
    as_torchrun_starts(two_gpus, local_rank=1, processes=2)
    assert resolve_device(wanted) == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")


def test_what_is_there_is_named_where_a_device_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for gpus, seen in ((0, "1 × cpu"), (2, "1 × cpu, 2 × cuda")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        with pytest.raises(DeviceError) as caught:
            resolve_device("cuda:7")
        pytorch = f"PyTorch {torch.__version__} sees {seen}"
        assert str(caught.value) == f"--device cuda:7 is not there: {pytorch}. Give what it sees, or auto."


def test_processes_of_torchrun_do_not_share_a_gpu(two_gpus: pytest.MonkeyPatch) -> None:
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    as_torchrun_starts(two_gpus, local_rank=0, processes=2)
    with pytest.raises(DeviceError, match="--device cuda:1 is one GPU for 2 processes. Give --device cuda"):
        resolve_device("cuda:1")
    as_torchrun_starts(two_gpus, local_rank=0, processes=3)
    with pytest.raises(DeviceError, match="started 3 processes on this machine, and PyTorch sees 2 GPUs"):
        resolve_device("auto")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let a process begin anew")
def test_the_peak_is_that_since_the_last_reset() -> None:
    cpu = torch.device("cpu")
    reset_peak_memory(cpu)
    before = peak_memory_bytes(cpu)
    taken = np.ones(2**25)
    del taken
    assert peak_memory_bytes(cpu) - before > 2**27
    reset_peak_memory(cpu)
    assert peak_memory_bytes(cpu) - before < 2**27
