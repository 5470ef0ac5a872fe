"""Does a covariance tell the truth? Normalised errors, coverage and sharpness, with intervals.

Errors are those of `rgsiam_ros.uncertainty.covariance`. The normalised estimation error squared, ``e^T C^-1 e``, is
chi-square distributed where the covariances are true, so that its mean over the degrees of freedom is
1 and an ellipsoid of p per cent holds p per cent of the errors. Frames of a drive resemble their
neighbours, so intervals come from a bootstrap of whole blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import chi2

from rgsiam_ros.geometry.poses import Array

PARTS = {"position": slice(0, 3), "rotation": slice(3, 6), "pose": slice(0, 6)}
LEVELS = (0.50, 0.68, 0.90, 0.95, 0.99)
BLOCK_FRAMES = 50
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap: an interval of 95 %."""
FEWEST_FRAMES = 10
FEWEST_BLOCKS = 5
"""Fewer say nothing about how they vary."""


def normalised_squares(error_N6: Array, covariance_N66: Array, part: str = "pose") -> Array:
    """``e^T C^-1 e`` ``(N,)`` of the position, the rotation or the whole pose."""
    chosen = PARTS[part]
    e, C = error_N6[:, chosen], covariance_N66[:, chosen, chosen]
    return np.einsum("ni,ni->n", e, np.linalg.solve(C, e[..., None])[..., 0])


def report(error_N6: Array, covariance_N66: Array, seed: int = 0) -> dict[str, Any] | None:
    """Consistency of covariances, for ``metrics.json``; None for fewer than `FEWEST_FRAMES`.

    Of position, rotation and pose: ``nees`` per degree of freedom and ``coverage`` of each level, as
    value, low and high; and, for position (metres) and rotation (degrees), ``sigma``, the root mean
    square of the predicted error, beside ``error``, that of the actual one. Blocks of `BLOCK_FRAMES`
    neighbours are drawn; frames must be in the order in which they were taken. Low and high are None
    where there are fewer than `FEWEST_BLOCKS` blocks.
    """
    count = len(error_N6)
    if count < FEWEST_FRAMES:
        return None
    resamples = _block_resamples(count, seed)
    whole: dict[str, Any] = {"frames": count, "block_frames": BLOCK_FRAMES, "seed": seed}
    for name, part in PARTS.items():
        square = normalised_squares(error_N6, covariance_N66, name)
        freedom = part.stop - part.start
        found: dict[str, Any] = {"nees": _with_interval(square / freedom, resamples)}
        found["coverage"] = {
            f"{level:.0%}": _with_interval(square <= chi2.ppf(level, freedom), resamples)
            for level in LEVELS
        }
        if name != "pose":
            unit = 1.0 if name == "position" else 180.0 / np.pi
            trace = np.einsum("nii->n", covariance_N66[:, part, part])
            found["sigma"] = float(unit * np.sqrt(trace.mean()))
            found["error"] = float(unit * np.sqrt((error_N6[:, part] ** 2).sum(axis=1).mean()))
        whole[name] = found
    return whole


def lines(whole: dict[str, Any] | None) -> list[str]:
    """The report in a few lines for the terminal."""
    if whole is None:
        return []
    said = []
    for name, unit in (("position", "m"), ("rotation", "deg")):
        part = whole[name]
        value, low, high = part["nees"]
        interval = "too few frames for an interval" if low is None else f"{low:.2f} to {high:.2f}"
        covered = ", ".join(f"{level} {v[0]:.0%}" for level, v in part["coverage"].items())
        said.append(
            f"{name} covariance: NEES per degree of freedom {value:.2f} ({interval}); "
            f"coverage of {covered}; predicted {part['sigma']:.2f} {unit}, actual "
            f"{part['error']:.2f} {unit} (RMS)"
        )
    return said


def _block_resamples(count: int, seed: int) -> list[np.ndarray]:
    """Empty where there are too few blocks."""
    blocks = np.array_split(np.arange(count), max(1, round(count / BLOCK_FRAMES)))
    if len(blocks) < FEWEST_BLOCKS:
        return []
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(blocks), (RESAMPLES, len(blocks)))
    return [np.concatenate([blocks[b] for b in draw]) for draw in draws]


def _with_interval(values_N: np.ndarray, resamples: list[np.ndarray]) -> list[float | None]:
    """Value, low and high."""
    if not resamples:
        return [float(values_N.mean()), None, None]
    means = [values_N[chosen].mean() for chosen in resamples]
    low, high = np.percentile(means, INTERVAL)
    return [float(values_N.mean()), float(low), float(high)]
