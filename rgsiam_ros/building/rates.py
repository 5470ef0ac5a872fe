"""What a stage takes: time, memory and disk, from the number and the size of the images.

Inspection, map and test were measured on 2 cores of an AMD EPYC on 2026-11-28: CPU time and largest memory of the
demo town (962 images for the map, 481 for the test, 320x180 pixels) and of 16 of its images. A step of the
training is that of `rgsiam train --budget` in the town. What was not measured, and is a guess: the time that larger
images take to decode, what a training reads and writes, and export and comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

from rgsiam_ros.replay.progress import duration_text

MEASURED_PIXELS = 320 * 180


@dataclass(frozen=True)
class Cost:
    """An estimate."""

    seconds: float
    memory_mb: float
    disk_mb: float

    def describe(self) -> str:
        """The estimate in words."""
        return (
            f"about {duration_text(self.seconds)} of CPU, {self.memory_mb / 1000:.1f} GB of memory, {self.disk_mb:.0f} MB of "
            "disk"
        )


@dataclass(frozen=True)
class Rate:
    """What a stage takes at the start, and for each image."""

    start_s: float
    image_s: float
    start_mb: float
    image_mb: float
    start_disk_mb: float
    image_disk_mb: float
    megapixel_s: float = 0.02
    """Seconds for each further million pixels of an image."""

    def of(self, images: int, pixels: int) -> Cost:
        """The estimate. pixels: of one image."""
        more_s = self.megapixel_s * max(0.0, (pixels - MEASURED_PIXELS) / 1e6)
        return Cost(
            self.start_s + images * (self.image_s + more_s),
            self.start_mb + images * self.image_mb,
            self.start_disk_mb + images * self.image_disk_mb,
        )


RATES = {
    "inspection": Rate(4.0, 0.011, 250.0, 0.1, 1.0, 0.0),
    "map": Rate(4.0, 0.105, 290.0, 0.95, 9.0, 0.005),
    "training": Rate(30.0, 0.02, 1500.0, 0.3, 100.0, 0.1),
    "export": Rate(60.0, 0.05, 1500.0, 0.3, 20.0, 0.005),
    "comparison": Rate(10.0, 0.01, 450.0, 0.1, 0.0, 0.0),
    "report": Rate(3.0, 0.0, 200.0, 0.0, 6.0, 0.0),
    "test": Rate(4.0, 0.02, 400.0, 0.1, 1.0, 0.001),
}
"""The disk of the map is for the bundle in the work folder and its copy at ``--out``. The training's steps come in
addition."""
STEP_S, STEPS = 0.65, 1500
"""One step of the training, 16 pairs, and the number of steps."""


def cost_of(stage: str, images: int, pixels: int) -> Cost:
    """The estimate for a stage of `RATES`. images: their number; pixels: of one of them."""
    return RATES[stage].of(images, pixels)


def training_cost(images: int, pixels: int, budget_min: float | None) -> Cost:
    """The estimate for the training. budget_min: limit for its steps."""
    rest = cost_of("training", images, pixels)
    steps_s = STEP_S * STEPS if budget_min is None else min(STEP_S * STEPS, 60.0 * budget_min)
    return Cost(rest.seconds + steps_s, rest.memory_mb, rest.disk_mb)
