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
from scipy.special import gammaincinv

from rgsiam_ros.geometry.poses import Array, invert, rotation_vector, skew
from rgsiam_ros.uncertainty.covariance import move_to_body_point, pose_error_vectors

DEGREES_OF_FREEDOM = 6
FEWEST_TO_RECOVER = 2
"""A single pose always agrees with itself."""

LARGEST_DRIFT_RAD = 0.6
"""Odometry whose heading may have drifted further, or that jumped, says less than the speed limit."""


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
    """Poses in a row that fail but agree with each other, after which they are believed; 2 or more."""
    drift_per_m: float = 0.03
    """Standard deviation of odometry, metres per metre driven."""
    drift_rad_per_m: float = 0.005
    """Standard deviation of odometry's heading, radians per metre driven."""
    drift_rad_per_rad: float = 0.03
    """Standard deviation of odometry's heading, radians per radian turned."""

    def __post_init__(self) -> None:
        """Raises ValueError where the gate would pass everything."""
        if self.recover_after < FEWEST_TO_RECOVER:
            raise ValueError(
                f"recover_after is {self.recover_after}: with fewer than {FEWEST_TO_RECOVER} every pose "
                "would pass"
            )

    @property
    def largest_square(self) -> float:
        """Largest squared Mahalanobis distance that passes."""
        return float(2.0 * gammaincinv(DEGREES_OF_FREEDOM / 2.0, self.confidence))


@dataclass(frozen=True)
class GateDecision:
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
    ) -> GateDecision:
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
        return GateDecision(False, square, "disagrees")

    def _believe(self, fix: _Fix, square: float, reason: str) -> GateDecision:
        self._believed, self._candidate, self._agreeing = fix, None, 0
        return GateDecision(True, square, reason)

    def _square(self, before: _Fix, now: _Fix) -> float:
        seconds = (now.stamp_ns - before.stamp_ns) * 1e-9
        T_step, drift = self._odometry_step(before, now)
        if T_step is not None:
            expected = before.T_map_base @ T_step
            covariance = drift + move_to_body_point(before.covariance_66, before.T_map_base, T_step)
            error = pose_error_vectors(now.T_map_base[None], expected[None])[0]
        else:
            covariance = before.covariance_66
            error = pose_error_vectors(now.T_map_base[None], before.T_map_base[None])[0]
            reach = self.limits.max_speed * seconds, self.limits.max_turn_rate * seconds
            for part, limit in zip((slice(0, 3), slice(3, 6)), reach, strict=True):
                length = float(np.linalg.norm(error[part]))
                error[part] *= max(0.0, length - limit) / length if length > 0.0 else 0.0
        return float(error @ np.linalg.solve(covariance + now.covariance_66, error))

    def _odometry_step(self, before: _Fix, now: _Fix) -> tuple[Array | None, Array]:
        """The motion by odometry and what it may err by; None where odometry does not help."""
        if before.T_odom_base is None or now.T_odom_base is None:
            return None, np.zeros((6, 6))
        T_step = invert(before.T_odom_base) @ now.T_odom_base
        drift = self._drift(before.T_map_base[:3, :3], T_step)
        return (T_step if drift[5, 5] <= LARGEST_DRIFT_RAD**2 else None), drift

    def _drift(self, R_map_before: Array, T_step: Array) -> Array:
        """What odometry may have erred by on a step, ``(6, 6)`` in fixed map axes.

        Heading that drifts all along the way moves the end sideways: by the lever to the end, a third of
        its variance and half of its correlation; and, to second order, it shortens the way. Where on the
        way the vehicle turned is not known, so that the error of turning counts for the whole lever.
        """
        limits = self.limits
        r = R_map_before @ T_step[:3, 3]
        lever, length = skew(r), float(np.linalg.norm(r))
        turned = float(np.linalg.norm(rotation_vector(T_step[:3, :3])))
        along = (limits.drift_rad_per_m * length) ** 2
        turning = (limits.drift_rad_per_rad * turned) ** 2
        drift = np.zeros((6, 6))
        drift[:3, :3] = (limits.drift_per_m * length) ** 2 * np.eye(3)
        drift[:3, :3] += (along / 3.0 + turning) * lever @ lever.T + along**2 / 2.0 * np.outer(r, r)
        drift[3:, 3:] = (along + turning) * np.eye(3)
        drift[:3, 3:] = -along / 2.0 * lever
        drift[3:, :3] = drift[:3, 3:].T
        return drift
