"""The frames of a record as arrays: when and where they are, their errors, standard deviations and trust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.report.records import FrameRecord, ReplayRecord

SHORTEST_PAUSE_NS = 2_000_000_000
PAUSE_STEPS = 10.0
"""A step in time of more than this, and of more than so many median steps, is a pause. Time and distance leave it out.
So is a step backwards, to another session."""


@dataclass(frozen=True)
class Series:
    """N frames in recorded order. What is unknown is NaN."""

    stamp_ns_N: NDArray[np.int64]
    seconds_N: Array
    """Time since the first frame, without pauses."""
    metres_N: Array
    """Distance travelled since the first frame, without pauses."""
    after_pause_N: NDArray[np.bool_]
    answered_N: NDArray[np.bool_]
    true_N3: Array
    """True positions, metres."""
    estimated_N3: Array
    """Published positions, metres."""
    error_m_N: Array
    """Position errors of published poses."""
    error_deg_N: Array
    sigma_m_N: Array
    """Standard deviation of a published position: the square root of the trace of its covariance."""
    sigma_deg_N: Array
    trust_N: Array

    @property
    def with_truth(self) -> bool:
        """Whether any frame has a true pose."""
        return bool(np.isfinite(self.true_N3).any())

    @property
    def place_N3(self) -> Array:
        """Where the frames are: the true positions if any is known, else the published ones."""
        return self.true_N3 if self.with_truth else self.estimated_N3


def series_of(record: ReplayRecord) -> Series:
    """The frames of a record as arrays."""
    frames = record.frames
    stamp_ns_N = np.array([frame.stamp_ns for frame in frames], np.int64)
    step_ns_N = np.diff(stamp_ns_N, prepend=stamp_ns_N[:1])
    forward = step_ns_N[step_ns_N > 0]
    longest = max(SHORTEST_PAUSE_NS, PAUSE_STEPS * float(np.median(forward)) if len(forward) else 0)
    after_pause_N = (step_ns_N > longest) | (step_ns_N < 0)
    true_N3, estimated_N3 = (
        _positions([getattr(frame, name) for frame in frames]) for name in ("T_true", "T_map_frame")
    )
    error_N2 = np.array([_errors(frame) for frame in frames]).reshape(-1, 2)
    sigma_N2 = np.array([_sigmas(frame) for frame in frames]).reshape(-1, 2)
    place_N3 = true_N3 if np.isfinite(true_N3).any() else estimated_N3
    return Series(
        stamp_ns_N,
        np.cumsum(np.where(after_pause_N, 0, step_ns_N)) * 1e-9,
        _travelled(place_N3, after_pause_N),
        after_pause_N,
        np.array([frame.T_map_frame is not None for frame in frames], bool),
        true_N3,
        estimated_N3,
        error_N2[:, 0],
        np.degrees(error_N2[:, 1]),
        sigma_N2[:, 0],
        np.degrees(sigma_N2[:, 1]),
        np.array([np.nan if f.trust is None else f.trust for f in frames], np.float64),
    )


def _positions(poses: Sequence[Array | None]) -> Array:
    unknown = np.full(3, np.nan)
    return np.array([unknown if T is None else T[:3, 3] for T in poses]).reshape(-1, 3)


def _errors(frame: FrameRecord) -> tuple[float, float]:
    if frame.T_map_frame is None or frame.T_true is None:
        return np.nan, np.nan
    metres, radians = pose_errors(frame.T_map_frame, frame.T_true)
    return float(metres), float(radians)


def _sigmas(frame: FrameRecord) -> tuple[float, float]:
    if frame.T_map_frame is None or frame.covariance_66 is None:
        return np.nan, np.nan
    variance_6 = np.maximum(np.diag(frame.covariance_66), 0.0)
    return float(np.sqrt(variance_6[:3].sum())), float(np.sqrt(variance_6[3:].sum()))


def _travelled(place_N3: Array, after_pause_N: NDArray[np.bool_]) -> Array:
    """Metres to each frame. Between known places it grows evenly."""
    known = np.flatnonzero(np.isfinite(place_N3).all(axis=1))
    if len(known) < 2:
        return np.zeros(len(place_N3))
    pauses = np.cumsum(after_pause_N)[known]
    step = np.linalg.norm(np.diff(place_N3[known], axis=0), axis=1)
    step[np.diff(pauses) > 0] = 0.0
    return np.interp(np.arange(len(place_N3)), known, np.concatenate([[0.0], np.cumsum(step)]))
