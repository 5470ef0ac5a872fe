"""How many epochs fit into a number of minutes."""

from __future__ import annotations

import tempfile
import time

import lightning
import torch

from rgsiam_training.config import TrainingConfig
from rgsiam_training.fitting.train import build

WARM_UP, MEASURED = 3, 12


class _StepTimer(lightning.Callback):
    """Seconds of each step: of the processor, shared by its threads, or of the clock on a GPU."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_train_batch_start(self, *_: object) -> None:
        self._began = _now()

    def on_train_batch_end(self, *_: object) -> None:
        self.seconds.append(_now() - self._began)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def epochs_within(config: TrainingConfig, minutes: float) -> int:
    """Epochs, at least one, whose optimisation steps take about this long on this machine.

    Other programs hardly count: on a CPU it is this process's own time on the processor, and of some
    steps the lower quartile. Validation and reading the data come on top.
    """
    module, loader, _ = build(config)
    timer = _StepTimer()
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            max_steps=WARM_UP + MEASURED,
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
    measured = sorted(timer.seconds[WARM_UP:])
    step_s = measured[len(measured) // 4]
    return max(1, round(60.0 * minutes / (step_s * len(loader))))
