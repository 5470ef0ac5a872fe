"""A temporal gate: reject a pose that the vehicle cannot have reached since the last accepted pose.

The last accepted pose is moved on by odometry. Without odometry, the part of the difference that the
vehicle can have travelled at its speed limits is subtracted. The squared Mahalanobis distance of the
remaining difference under both covariances is compared with a quantile of the chi-square distribution with
six degrees of freedom.

Rejected poses that agree with each other are accepted after a number of them: the vehicle was carried
elsewhere, or the last accepted pose was wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv

from rgsiam_ros.geometry.poses import Array, invert, rotation_vector, skew
from rgsiam_ros.uncertainty.covariance import move_to_body_point, pose_error_vectors

DEGREES_OF_FREEDOM = 6
FEWEST_TO_RECOVER = 2
"""Smallest allowed value of `GateLimits.recover_after`; with 1, every pose would pass."""

LARGEST_DRIFT_RAD = 0.6
"""Largest standard deviation of the heading drift, radians. Odometry that has drifted more is not used.

The speed limits then predict better. The same holds after a jump of the odometry.
"""


@dataclass(frozen=True)
class GateLimits:
    """The limits of the vehicle's motion, the drift of its odometry, and the confidence of the gate."""

    max_speed: float = 20.0
    """Largest speed, m/s."""
    max_turn_rate: float = 1.0
    """Largest turn rate, rad/s."""
    confidence: float = 0.999
    """Fraction of correct poses that pass."""
    recover_after: int = 5
    """After this number of rejected poses in a row that agree with each other, the pose passes; at least 2."""
    drift_per_m: float = 0.03
    """Standard deviation of odometry's position, metres per metre driven."""
    drift_rad_per_m: float = 0.005
    """Standard deviation of odometry's heading, radians per metre driven."""
    drift_rad_per_rad: float = 0.03
    """Standard deviation of odometry's heading, radians per radian turned."""

    def __post_init__(self) -> None:
        """Raises ValueError when recover_after is so small that every pose would pass."""
        if self.recover_after < FEWEST_TO_RECOVER:
            raise ValueError(
                f"recover_after is {self.recover_after}: with fewer than {FEWEST_TO_RECOVER} every pose "
                f"would pass. Set it to {FEWEST_TO_RECOVER} or more"
            )

    @property
    def largest_square(self) -> float:
        """Largest squared Mahalanobis distance that passes: the chi-square quantile at `confidence`."""
        return float(2.0 * gammaincinv(DEGREES_OF_FREEDOM / 2.0, self.confidence))


@dataclass(frozen=True)
class GateDecision:
    """The gate's decision on one pose."""

    passed: bool
    square: float
    """Squared Mahalanobis distance to the expected pose; 0 when no pose was expected."""
    reason: str
    """``first``, ``agrees``, ``disagrees``, ``clock jumped`` or ``recovered``."""


@dataclass(frozen=True)
class _StampedPose:
    stamp_ns: int
    T_map_base: Array
    covariance_66: Array
    T_odom_base: Array | None


class TemporalGate:
    """Checks each pose against the last accepted one. Not thread-safe."""

    def __init__(self, limits: GateLimits | None = None) -> None:
        self.limits = limits or GateLimits()
        self._accepted: _StampedPose | None = None
        self._candidate: _StampedPose | None = None
        self._agreeing = 0

    def reset(self) -> None:
        """Discard all poses so far, so that the next pose passes."""
        self._accepted = self._candidate = None
        self._agreeing = 0

    def check(
        self,
        stamp_ns: int,
        T_map_base: Array,
        covariance_66: Array,
        T_odom_base: Array | None = None,
    ) -> GateDecision:
        """Decide whether the next pose passes.

        T_map_base: ``(4, 4)``; covariance_66: in fixed map axes, metres and radians; T_odom_base: the pose
        by odometry at the same stamp, or None. A stamp that goes backwards resets the gate: a bag was
        looped, or a simulation was reset.
        """
        pose = _StampedPose(stamp_ns, T_map_base, covariance_66, T_odom_base)
        accepted = self._accepted
        if accepted is None:
            return self._accept(pose, 0.0, "first")
        if stamp_ns < accepted.stamp_ns:
            self.reset()
            return self._accept(pose, 0.0, "clock jumped")
        square = self._squared_distance(accepted, pose)
        if square <= self.limits.largest_square:
            return self._accept(pose, square, "agrees")
        candidate = self._candidate
        agrees_with_candidate = (
            candidate is not None
            and stamp_ns >= candidate.stamp_ns
            and self._squared_distance(candidate, pose) <= self.limits.largest_square
        )
        self._agreeing = self._agreeing + 1 if agrees_with_candidate else 1
        self._candidate = pose
        if self._agreeing >= self.limits.recover_after:
            return self._accept(pose, square, "recovered")
        return GateDecision(False, square, "disagrees")

    def _accept(self, pose: _StampedPose, square: float, reason: str) -> GateDecision:
        self._accepted, self._candidate, self._agreeing = pose, None, 0
        return GateDecision(True, square, reason)

    def _squared_distance(self, before: _StampedPose, now: _StampedPose) -> float:
        """Squared Mahalanobis distance between `now` and the pose that `before` predicts."""
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
            for axes, limit in zip((slice(0, 3), slice(3, 6)), reach, strict=True):
                length = float(np.linalg.norm(error[axes]))
                error[axes] *= max(0.0, length - limit) / length if length > 0.0 else 0.0
        return float(error @ np.linalg.solve(covariance + now.covariance_66, error))

    def _odometry_step(self, before: _StampedPose, now: _StampedPose) -> tuple[Array | None, Array]:
        """Return the motion by odometry and its covariance `_drift`.

        The motion is None without odometry, and when its drift exceeds `LARGEST_DRIFT_RAD`.
        """
        if before.T_odom_base is None or now.T_odom_base is None:
            return None, np.zeros((6, 6))
        T_step = invert(before.T_odom_base) @ now.T_odom_base
        drift = self._drift(before.T_map_base[:3, :3], T_step)
        return (T_step if drift[5, 5] <= LARGEST_DRIFT_RAD**2 else None), drift

    def _drift(self, R_map_before: Array, T_step: Array) -> Array:
        """Return the covariance ``(6, 6)`` of a step by odometry, in fixed map axes.

        The heading drifts over the whole step. With the lever arm from the start to the end of the step,
        the position at the end gets a third of the variance that a heading error at the start would
        cause, and half of its correlation with the heading. To second order, the drift also shortens the
        step. The place where the vehicle turned is unknown. The heading error from turning is therefore
        taken to act over the whole lever arm.
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
