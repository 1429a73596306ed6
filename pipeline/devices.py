"""Which device to compute on, and what it took."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from ssna.errors import SsnaError

_CONTROL_GROUP = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self")


class DeviceError(SsnaError):
    """A device was asked for that is not there."""


def resolve_device(wanted: str) -> torch.device:
    """The device that a name means; `auto` is the first GPU, else Apple's, else the CPU.

    Raises:
        DeviceError: if PyTorch does not see that device.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = named_device(wanted)
    found = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= found.get(device.type, 0):
        seen = ", ".join(f"{count} × {kind}" for kind, count in found.items() if count)
        raise DeviceError(
            f"--device {wanted} is not there: PyTorch {torch.__version__} sees {seen}. Give what it sees, or auto."
        )
    return _of_this_process(device) if device.type == "cuda" else device


def named_device(name: str) -> torch.device:
    """The device of a name, whether this machine has it or not.

    Raises:
        DeviceError: if PyTorch knows no such kind.
    """
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device {name} is unknown; expected auto, cpu, cuda, cuda:1 or mps.") from error


def _of_this_process(gpu: torch.device) -> torch.device:
    """Of the processes that torchrun starts on a machine, each takes a GPU of its own."""
    processes, there = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if processes == 1:
        return gpu
    if ":" in str(gpu):
        raise DeviceError(
            f"--device {gpu} is one GPU for {processes} processes. Give --device cuda: each takes one of its own."
        )
    if processes > there:
        raise DeviceError(
            f"torchrun started {processes} processes on this machine, and PyTorch sees {there} GPUs. Give "
            f"--nproc-per-node {there}, or --device cpu."
        )
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def leads() -> bool:
    """Whether this is the first of the processes that torchrun started, which prints and writes; or the only one."""
    return os.environ.get("RANK", "0") == "0"


def free_memory_bytes(device: torch.device) -> int:
    """What a process may still take on a device; of a machine's memory, its share among those of torchrun there."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    available = psutil.virtual_memory().available
    with suppress(OSError, ValueError):  # A container's limit; the file says "max" if there is none.
        limit, used = (int((_CONTROL_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        available = min(available, limit - used)
    return int(available) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def reset_peak_memory(device: torch.device) -> None:
    """Begin anew what `peak_memory_bytes` tells, where the system lets a process do so (Linux does)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory taken since the last reset: by PyTorch on a GPU, by the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError), (_PROCESS / "status").open() as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
