"""A gate over time: may the vehicle be there, given where it was believed to be before?

A new pose is held against the last one that passed, moved on by odometry or, without it, against all
that the vehicle can have reached since. What is left of the difference is weighed by both covariances
(squared Mahalanobis distance) and compared with a quantile of the chi-square distribution with six
degrees of freedom. Poses that fail but agree among themselves take over after a while: the vehicle was
carried elsewhere, or the gate had believed a wrong pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from rgsiam_ros.covariance import move_to_body_point, pose_error_vectors
from rgsiam_ros.geometry import Array, invert

DEGREES_OF_FREEDOM = 6


@dataclass(frozen=True)
class GateLimits:
    """What a vehicle can do, and how sure the gate wants to be."""

    max_speed: float = 20.0
    """m/s."""
    max_turn_rate: float = 1.0
    """rad/s."""
    confidence: float = 0.999
    """Share of true poses that pass."""
    recover_after: int = 5
    """Poses in a row that fail but agree with each other, after which they are believed."""
    drift_per_m: float = 0.03
    """Standard deviation of odometry, metres per metre driven."""
    drift_rad_per_m: float = 0.005
    """Standard deviation of odometry's heading, radians per metre driven."""

    @property
    def largest_square(self) -> float:
        """Largest squared Mahalanobis distance that passes."""
        return float(chi2.ppf(self.confidence, DEGREES_OF_FREEDOM))


@dataclass(frozen=True)
class GateAnswer:
    """What the gate says of one pose."""

    passed: bool
    square: float
    """Squared Mahalanobis distance to what was expected; 0 where nothing was."""
    reason: str
    """``first``, ``agrees``, ``disagrees``, ``clock jumped`` or ``recovered``."""


@dataclass(frozen=True)
class _Fix:
    stamp_ns: int
    T_map_base: Array
    covariance_66: Array
    T_odom_base: Array | None


class TemporalGate:
    """Remembers the last pose that passed. Not thread-safe."""

    def __init__(self, limits: GateLimits | None = None) -> None:
        self.limits = limits or GateLimits()
        self._believed: _Fix | None = None
        self._candidate: _Fix | None = None
        self._agreeing = 0

    def reset(self) -> None:
        """Forget everything: the next pose passes."""
        self._believed = self._candidate = None
        self._agreeing = 0

    def check(
        self,
        stamp_ns: int,
        T_map_base: Array,
        covariance_66: Array,
        T_odom_base: Array | None = None,
    ) -> GateAnswer:
        """Judge the next pose.

        covariance_66: fixed map axes, metres and radians; T_odom_base: the odometry's pose at the same
        stamp, where it is known. A stamp that goes backwards starts anew: a looped bag, or a simulation
        that was reset.
        """
        fix = _Fix(stamp_ns, T_map_base, covariance_66, T_odom_base)
        believed = self._believed
        if believed is None:
            return self._believe(fix, 0.0, "first")
        if stamp_ns < believed.stamp_ns:
            self.reset()
            return self._believe(fix, 0.0, "clock jumped")
        square = self._square(believed, fix)
        if square <= self.limits.largest_square:
            return self._believe(fix, square, "agrees")
        candidate = self._candidate
        repeated = (
            candidate is not None
            and stamp_ns >= candidate.stamp_ns
            and self._square(candidate, fix) <= self.limits.largest_square
        )
        self._agreeing = self._agreeing + 1 if repeated else 1
        self._candidate = fix
        if self._agreeing >= self.limits.recover_after:
            return self._believe(fix, square, "recovered")
        return GateAnswer(False, square, "disagrees")

    def _believe(self, fix: _Fix, square: float, reason: str) -> GateAnswer:
        self._believed, self._candidate, self._agreeing = fix, None, 0
        return GateAnswer(True, square, reason)

    def _square(self, before: _Fix, now: _Fix) -> float:
        seconds = (now.stamp_ns - before.stamp_ns) * 1e-9
        if before.T_odom_base is not None and now.T_odom_base is not None:
            T_step = invert(before.T_odom_base) @ now.T_odom_base
            expected = before.T_map_base @ T_step
            step_m = float(np.linalg.norm(T_step[:3, 3]))
            drift = np.repeat([self.limits.drift_per_m, self.limits.drift_rad_per_m], 3) * step_m
            covariance = move_to_body_point(before.covariance_66, before.T_map_base, T_step)
            covariance = covariance + np.diag(drift**2)
            error = pose_error_vectors(now.T_map_base[None], expected[None])[0]
        else:
            covariance = before.covariance_66
            error = pose_error_vectors(now.T_map_base[None], before.T_map_base[None])[0]
            reach = self.limits.max_speed * seconds, self.limits.max_turn_rate * seconds
            for part, limit in zip((slice(0, 3), slice(3, 6)), reach, strict=True):
                length = float(np.linalg.norm(error[part]))
                error[part] *= max(0.0, length - limit) / length if length > 0.0 else 0.0
        return float(error @ np.linalg.solve(covariance + now.covariance_66, error))
