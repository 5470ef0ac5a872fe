"""Convert a training time in minutes to a number of epochs, by timing a few steps."""

from __future__ import annotations

import tempfile
import time

import lightning
import torch

from rgsiam_training.config import TrainingConfig
from rgsiam_training.fitting.train import build

WARM_UP_STEPS, MEASURED_STEPS = 3, 12


class _StepTimer(lightning.Callback):
    """Measures the seconds of each step, see `now_s`."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_train_batch_start(self, *_: object) -> None:
        self._began = now_s()

    def on_train_batch_end(self, *_: object) -> None:
        self.seconds.append(now_s() - self._began)


def now_s() -> float:
    """Time for measuring a training, seconds: CPU time over the threads, or wall-clock time with a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def epochs_within(config: TrainingConfig, minutes: float) -> int:
    """The number of epochs, at least one, whose optimisation steps take about this long, see `measured_steps`."""
    step_s, steps_per_epoch = measured_steps(config)
    return max(1, round(60.0 * minutes / (step_s * steps_per_epoch)))


def measured_steps(config: TrainingConfig) -> tuple[float, int]:
    """The seconds that an optimisation step takes on this machine, and the number of steps of an epoch.

    The time of validation and of reading the data is not included. The load of other programs hardly changes
    the result: without a GPU the CPU time of this process is measured, and the lower quartile of the steps is
    taken.
    """
    module, loader, _ = build(config)
    timer = _StepTimer()
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            max_steps=WARM_UP_STEPS + MEASURED_STEPS,
            callbacks=[timer],
            logger=False,
            precision=config.optimisation.precision,
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(module, loader)
    measured = sorted(timer.seconds[WARM_UP_STEPS:])
    step_s = measured[len(measured) // 4]
    return step_s, len(loader)
