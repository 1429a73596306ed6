"""Training curves as events that TensorBoard shows."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ssna.errors import RunError
from ssna.stage2_adapt import Epoch


def require_tensorboard() -> None:
    """Return if TensorBoard's writer is there.

    Raises:
        RunError: if it is not.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise RunError(
            "--tensorboard needs the package tensorboard, which is not installed. Run `pip install tensorboard`, or "
            "leave the option out: metrics.jsonl has the same figures."
        )


@contextmanager
def event_writer(folder: Path, next_epoch: int) -> Iterator[Callable[[Epoch], None]]:
    """A callback that writes an epoch's loss, validation metrics and seconds; each epoch is on the disk at once.

    Args:
        folder: of the event files; those of an earlier part of the run stay.
        next_epoch: the first to be written. What an earlier part wrote of it and later ones is not shown.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=next_epoch) as writer:

        def write(epoch: Epoch) -> None:
            values = {
                "loss": epoch.loss,
                **{f"valid/{name}": value for name, value in epoch.valid.items()},
                "seconds/training": epoch.seconds,
                "seconds/validation": epoch.valid_seconds,
            }
            for name, value in values.items():
                writer.add_scalar(name, value, epoch.epoch)
            writer.flush()

        yield write
