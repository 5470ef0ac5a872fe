"""What a training shows while it runs: how far it is, how long it will take, and the errors on held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning
from rich.console import Console
from rich.progress import TaskID

from rgsiam_ros.replay.progress import SteadyProgress, progress_bar


@dataclass(frozen=True)
class HeldOutErrors:
    """Errors of the absolute branch on the held-out images, of the averaged weights that an export takes."""

    frames: int
    median_m: float
    median_deg: float
    p95_m: float

    def describe(self) -> str:
        """The errors in words."""
        return (
            f"absolute branch on {self.frames} held-out images: median {self.median_m:.3g} m and "
            f"{self.median_deg:.3g} deg, 95 % within {self.p95_m:.3g} m"
        )


class TrainingProgress(lightning.Callback):
    """Shows the progress over all steps of a training, and keeps the errors of each validation."""

    def __init__(self, frames: int, steps: int, console: Console | None) -> None:
        """frames: number of held-out images; steps: of the whole training; console: None shows nothing."""
        self._frames, self._steps, self._console = frames, steps, console
        self._bar: SteadyProgress | None = None
        self._task = TaskID(0)
        self.validations: list[HeldOutErrors] = []

    def best(self) -> HeldOutErrors | None:
        """The validation with the smallest median position error; None before the first."""
        return min(self.validations, key=lambda errors: errors.median_m, default=None)

    def on_train_start(self, trainer: lightning.Trainer, *_: object) -> None:
        """Show the progress."""
        if self._console is None or not trainer.is_global_zero:
            return
        self._bar = progress_bar(self._console)
        self._task = self._bar.add_task(
            "training",
            total=self._steps,
            completed=trainer.global_step,
            already=trainer.global_step,
        )
        self._bar.start()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Advance the progress."""
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)

    def on_validation_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Keep the errors, and show them."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        names = ("median_m", "median_deg", "p95_m")
        found = HeldOutErrors(self._frames, *(values[f"val/{name}"] for name in names))
        self.validations.append(found)
        if self._console is not None and trainer.is_global_zero:
            line = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {found.describe()}"
            self._console.print(line, soft_wrap=True, highlight=False)

    def on_train_end(self, *_: object) -> None:
        """Leave the progress as it is."""
        self._stop()

    def on_exception(self, *_: Any) -> None:
        """The same."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
