"""Compare covariances with the actual errors: normalised errors, coverage and sharpness, with intervals.

Error vectors are those of `rgsiam_ros.uncertainty.covariance`. If the covariances are right, the normalised
estimation error squared (NEES) ``e^T C^-1 e`` is chi-square distributed: its mean divided by the degrees of
freedom is 1, and the ellipsoid of p per cent holds p per cent of the errors (Bar-Shalom, Li and Kirubarajan,
"Estimation with Applications to Tracking and Navigation", 2001). Consecutive frames of a drive have similar
errors, so the intervals come from a bootstrap of whole blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import chi2

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.geometry.units import angle_text, length_text

PARTS = {"position": slice(0, 3), "rotation": slice(3, 6), "pose": slice(0, 6)}
LEVELS = (0.50, 0.68, 0.90, 0.95, 0.99)
BLOCK_FRAMES = 50
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap that bound an interval of 95 %."""
FEWEST_FRAMES = 10
FEWEST_BLOCKS = 5
"""With fewer blocks there is no interval, because they do not show how blocks vary."""


def normalised_squares(error_N6: Array, covariance_N66: Array, part: str = "pose") -> Array:
    """``e^T C^-1 e`` ``(N,)`` for each of N frames.

    part: ``position``, ``rotation`` or ``pose``. Axes, metres and radians of error and covariance must match.
    """
    chosen = PARTS[part]
    e, C = error_N6[:, chosen], covariance_N66[:, chosen, chosen]
    return np.einsum("ni,ni->n", e, np.linalg.solve(C, e[..., None])[..., 0])


def consistency_report(
    error_N6: Array, covariance_N66: Array, seed: int = 0
) -> dict[str, Any] | None:
    """Consistency of covariances, for ``metrics.json``; None for fewer than `FEWEST_FRAMES` frames.

    The report has ``nees`` per degree of freedom and the ``coverage`` of each level, for position, rotation
    and pose. Each is a list of value, low and high; low and high are None for fewer than `FEWEST_BLOCKS`
    blocks. For position (metres) and rotation (degrees) it also has ``sigma``, the root mean square of the
    predicted error, and ``error``, that of the actual error.

    error_N6, covariance_N66: in the order in which the frames were recorded, because the bootstrap draws
    blocks of `BLOCK_FRAMES` consecutive frames.
    """
    count = len(error_N6)
    if count < FEWEST_FRAMES:
        return None
    resamples = _block_resamples(count, seed)
    report: dict[str, Any] = {"frames": count, "block_frames": BLOCK_FRAMES, "seed": seed}
    for name, part in PARTS.items():
        square = normalised_squares(error_N6, covariance_N66, name)
        freedom = part.stop - part.start
        figures: dict[str, Any] = {"nees": _with_interval(square / freedom, resamples)}
        figures["coverage"] = {
            f"{level:.0%}": _with_interval(square <= chi2.ppf(level, freedom), resamples)
            for level in LEVELS
        }
        if name != "pose":
            unit = 1.0 if name == "position" else 180.0 / np.pi
            trace = np.einsum("nii->n", covariance_N66[:, part, part])
            figures["sigma"] = float(unit * np.sqrt(trace.mean()))
            figures["error"] = float(unit * np.sqrt((error_N6[:, part] ** 2).sum(axis=1).mean()))
        report[name] = figures
    return report


def report_lines(report: dict[str, Any] | None) -> list[str]:
    """A report of `consistency_report` as text, one line for each of position and rotation."""
    if report is None:
        return []
    lines = []
    for name, text in (("position", length_text), ("rotation", angle_text)):
        figures = report[name]
        value, low, high = figures["nees"]
        interval = "too few frames for an interval" if low is None else f"{low:.2f} to {high:.2f}"
        covered = ", ".join(f"{level} {v[0]:.0%}" for level, v in figures["coverage"].items())
        lines.append(
            f"{name} covariance: NEES per degree of freedom {value:.2f} ({interval}); "
            f"coverage of {covered}; predicted {text(figures['sigma'])}, actual {text(figures['error'])} (RMS)"
        )
    return lines


def _block_resamples(count: int, seed: int) -> list[np.ndarray]:
    """Frame indices of each bootstrap sample; empty if there are too few blocks."""
    blocks = np.array_split(np.arange(count), max(1, round(count / BLOCK_FRAMES)))
    if len(blocks) < FEWEST_BLOCKS:
        return []
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(blocks), (RESAMPLES, len(blocks)))
    return [np.concatenate([blocks[b] for b in draw]) for draw in draws]


def _with_interval(values_N: np.ndarray, resamples: list[np.ndarray]) -> list[float | None]:
    """Mean of the values, and the low and high bound of its interval."""
    if not resamples:
        return [float(values_N.mean()), None, None]
    means = [values_N[chosen].mean() for chosen in resamples]
    low, high = np.percentile(means, INTERVAL)
    return [float(values_N.mean()), float(low), float(high)]
