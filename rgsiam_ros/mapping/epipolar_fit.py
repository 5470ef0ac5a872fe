"""The time offset and the focal scale that make matches lie on their epipolar lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from rgsiam_ros.geometry.poses import Array, invert
from rgsiam_ros.mapping.label_pairs import (
    INTERPOLATING,
    LARGEST_OFFSET_S,
    SMOOTHING,
    Pairs,
    Track,
)

FIRST_SCALE_PX, SCALE_PX, SCALE_STEP = 8.0, 1.0, 0.7
"""The scale of the robust cost begins wide, and ends at the second value, pixels of the local features' image."""
COARSE_OFFSETS_S = np.linspace(-LARGEST_OFFSET_S, LARGEST_OFFSET_S, 11)
STEPS = np.array([0.005, 0.002])
"""Steps of the numerical derivatives: seconds, and parts of the focal length."""
SMALLEST_SIGMA = np.array([0.002, 0.004])
"""What the model leaves out (smoothing, wandering labels, the place of the lens) is worth at least this:
seconds, and parts of the focal length."""
MOST_ITERATIONS = 40
CONFIDENCE = 0.95


@dataclass(frozen=True)
class EpipolarFit:
    """Offset and focal scale with half the widths of their 95 % intervals."""

    value_2: Array
    """Offset, seconds, and focal scale."""
    half_width_2: Array
    """Infinite where the motion does not show the value."""


class Matched:
    """The matches of all pairs, and how far they are from the epipolar lines."""

    def __init__(
        self,
        track: Track,
        pairs: Pairs,
        K: Array,
        first_M2: Array,
        second_M2: Array,
        pair_M: NDArray[np.int64],
    ) -> None:
        """K: intrinsic matrix of the image of the pixels; pair_M: pair of each match."""
        self._track, self._pairs, self._K = track, pairs, K
        ones = np.ones((len(first_M2), 1))
        self._a, self._b = np.hstack([first_M2, ones]), np.hstack([second_M2, ones])
        self._pair_M, self._bandwidth = pair_M, SMOOTHING
        _, self._stretch_M = np.unique(pairs.stretch_P[pair_M], return_inverse=True)

    def fit(self) -> EpipolarFit:
        """The smallest robust cost, with intervals from how the stretches of the drive disagree.

        Labels are read as they are, or smoothed if the matches then fit better: if they are noisy.
        """
        fits = []
        for self._bandwidth in (INTERPOLATING, SMOOTHING):
            value = self._minimise()
            fits.append((self._cost(value, SCALE_PX), EpipolarFit(value, self._half_widths(value))))
        return min(fits, key=lambda item: item[0])[1]

    def _minimise(self) -> Array:
        costs = [self._cost(np.array([offset, 1.0]), FIRST_SCALE_PX) for offset in COARSE_OFFSETS_S]
        value = np.array([COARSE_OFFSETS_S[int(np.argmin(costs))], 1.0])
        scale = FIRST_SCALE_PX
        for _ in range(MOST_ITERATIONS):
            scale = max(SCALE_PX, SCALE_STEP * scale)
            residual, J = self._residuals(value), self._derivatives(value)
            weight = (1.0 + (residual / scale) ** 2) ** -2
            H = (J * weight[:, None]).T @ J
            step = -np.linalg.lstsq(H, J.T @ (weight * residual), rcond=1e-9)[0]
            value += np.clip(1.3 * step, -10.0 * STEPS, 10.0 * STEPS)
            value = np.clip(value, [-1.2 * LARGEST_OFFSET_S, 0.5], [1.2 * LARGEST_OFFSET_S, 2.0])
            if scale == SCALE_PX and np.all(np.abs(step) < 0.01 * STEPS):
                break
        return value

    def _half_widths(self, value: Array) -> Array:
        """Half the width of each interval: the sandwich estimate over stretches, and Student's factor."""
        residual, J = self._residuals(value), self._derivatives(value)
        square = (residual / SCALE_PX) ** 2
        curvature = (1.0 - 3.0 * square) / (1.0 + square) ** 3
        A = (J * curvature[:, None]).T @ J
        count = int(self._stretch_M.max()) + 1
        if count < 2 or np.linalg.eigvalsh(A)[0] <= 0.0:
            return np.full(2, np.inf)
        score = np.zeros((count, 2))
        np.add.at(score, self._stretch_M, J * (residual / (1.0 + square) ** 2)[:, None])
        A_inverse = np.linalg.inv(A)
        variance = np.diag(A_inverse @ (score.T @ score) @ A_inverse) * count / (count - 1)
        factor = student.ppf(0.5 + 0.5 * CONFIDENCE, count - 1)
        return factor * np.sqrt(variance + SMALLEST_SIGMA**2)

    def _cost(self, value: Array, scale_px: float) -> float:
        square = (self._residuals(value) / scale_px) ** 2
        return float(np.sum(square / (1.0 + square)))

    def _derivatives(self, value: Array) -> Array:
        columns = [
            (self._residuals(value + step) - self._residuals(value - step)) / (2.0 * step.sum())
            for step in np.diag(STEPS)
        ]
        return np.stack(columns, axis=1)

    def _residuals(self, value: Array) -> Array:
        """Signed distance of each match from its epipolar lines (Sampson's), pixels, ``(M,)``."""
        offset_s, focal_scale = value
        K = self._K.copy()
        K[0, 0], K[1, 1] = focal_scale * K[0, 0], focal_scale * K[1, 1]
        K_inverse = np.linalg.inv(K)
        T_a, T_b = (
            self._track.poses(self._track.seconds_N[index] - offset_s, self._bandwidth)
            for index in (self._pairs.first_P, self._pairs.second_P)
        )
        T = invert(T_a) @ T_b
        direction = T[:, :3, 3] / np.maximum(
            np.linalg.norm(T[:, :3, 3], axis=1, keepdims=True), 1e-12
        )
        columns = np.swapaxes(T[:, :3, :3], 1, 2)
        E = np.swapaxes(np.cross(direction[:, None], columns), 1, 2)
        F = (K_inverse.T @ E @ K_inverse)[self._pair_M]
        line_a = np.einsum("mij,mj->mi", F, self._b)
        line_b = np.einsum("mji,mj->mi", F, self._a)
        length = np.sqrt((line_a[:, :2] ** 2).sum(axis=1) + (line_b[:, :2] ** 2).sum(axis=1))
        return (self._a * line_a).sum(axis=1) / np.maximum(length, 1e-12)
