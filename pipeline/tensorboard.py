"""Training curves as events that TensorBoard shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ssna.stage2_adapt import Epoch


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
