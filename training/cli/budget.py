"""`rgsiam train --budget`: as many steps as fit into a time."""

from __future__ import annotations

import typer

from rgsiam_ros.building.plan import NOTHING_TRAINED
from rgsiam_ros.cli.console import console
from rgsiam_training.config import TrainingConfig

FEWEST_STEPS = 300
"""A network that was trained with fewer steps is of no use."""


def within_budget(settings: TrainingConfig, minutes: float) -> TrainingConfig:
    """The settings with no more epochs than fit into this time. Exits if too few steps do."""
    from rgsiam_training.evaluation.compare.budget import measured_steps

    step_s, steps = measured_steps(settings)
    epochs = int(60.0 * minutes / (step_s * steps))
    if epochs * steps < FEWEST_STEPS:
        console.print(
            f"not trained: {minutes:g} minutes are {60.0 * minutes / step_s:.0f} steps of {step_s:.2f} s here, and "
            f"fewer than {FEWEST_STEPS} are of no use: {FEWEST_STEPS * step_s / 60.0:.1f} minutes at least",
            soft_wrap=True,
            highlight=False,
        )
        raise typer.Exit(NOTHING_TRAINED)
    planned = settings.optimisation.epochs or -(-settings.optimisation.steps // steps)
    return settings.with_settings({"optimisation.epochs": min(planned, epochs)})
