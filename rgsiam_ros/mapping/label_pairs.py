"""The labels of a mapping session as a track in time, and the image pairs that show whether they lag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rgsiam_ros.geometry.poses import Array, invert, rotation_angle, rotation_vector
from rgsiam_ros.recordings.base import Frame, poses_of

INTERPOLATING, SMOOTHING = 0.3, 0.7
"""Widths of the kernel that reads the labels, in label periods. The first one interpolates between two labels.
White noise of labels is then smallest half-way between two of them, and draws the offset there; the second one has
the same noise everywhere."""
NEIGHBOURS = 4
"""Number of labels on each side that the kernel reads."""
LARGEST_OFFSET_S = 0.5
PAIR_SECONDS = (0.6, 1.0, 1.6)
"""Wanted times between the two images of a pair."""
LONGEST_PAIR_S = 2.5
MOST_STRETCHES, FRAMES_A_STRETCH, PAIRS_A_STRETCH = 60, 6, 3
SHORTEST_BASELINE = 0.25
"""A pair with a smaller share of the median distance between two cameras hardly has an epipolar line."""
SMALLEST_BASELINE_M = 1e-3
SESSION_GAP_S = 1e5
"""Time between two sessions on the common time axis."""


@dataclass(frozen=True)
class Track:
    """N labels of all sessions, one session after the other."""

    seconds_N: Array
    """Increasing; sessions lie far apart."""
    T_N44: Array
    """Poses ``T_map_camera``."""
    frame_N: NDArray[np.int64]
    """Index of each label's frame."""
    period_s: float

    def poses(self, at_M: Array, bandwidth: float = SMOOTHING) -> Array:
        """Poses ``(M, 4, 4)`` at times: a local straight line with weights that fall with time.

        The kernel is even in time, so that it adds no delay.
        """
        if not len(at_M):
            return np.empty((0, 4, 4))  # an older scipy makes no rotations of an empty array
        after = np.searchsorted(self.seconds_N, at_M)
        last = len(self.seconds_N) - 1
        index = np.clip(after[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS), 0, last)
        near = np.clip(after, 0, last)
        time = (self.seconds_N[index] - at_M[:, None]) / self.period_s
        weight = np.exp(-0.5 * (time / bandwidth) ** 2)
        s0, s1, s2 = (np.sum(weight * time**power, axis=1) for power in range(3))
        weight *= (s2[:, None] - s1[:, None] * time) / (s0 * s2 - s1**2)[:, None]
        R_near = self.T_N44[near, :3, :3]
        turns = rotation_vector(np.swapaxes(R_near, 1, 2)[:, None] @ self.T_N44[index][..., :3, :3])
        steps = self.T_N44[index][..., :3, 3] - self.T_N44[near][:, None, :3, 3]
        T = self.T_N44[near].copy()
        T[:, :3, 3] += np.einsum("mk,mki->mi", weight, steps)
        turn = Rotation.from_rotvec(np.einsum("mk,mki->mi", weight, turns)).as_matrix()
        T[:, :3, :3] = R_near @ turn
        return T

    def usable(self) -> NDArray[np.bool_]:
        """Which labels have others all around them, as far as an offset may reach."""
        reach_s = LARGEST_OFFSET_S + NEIGHBOURS * self.period_s
        gaps = np.flatnonzero(np.diff(self.seconds_N) > 3.0 * self.period_s)
        starts = self.seconds_N[np.concatenate([[0], gaps + 1])]
        ends = self.seconds_N[np.concatenate([gaps, [len(self.seconds_N) - 1]])]
        part = np.searchsorted(starts, self.seconds_N, side="right") - 1
        inside = self.seconds_N - starts[part] >= reach_s
        return inside & (ends[part] - self.seconds_N >= reach_s)


@dataclass(frozen=True)
class Pairs:
    """P pairs of labels of a track."""

    first_P: NDArray[np.int64]
    second_P: NDArray[np.int64]
    stretch_P: NDArray[np.int64]
    """Number of the stretch of the drive that each pair is in."""


def track_of(frames: Sequence[Frame]) -> Track:
    """The track of the frames. Of frames with the same stamp, the first one counts."""
    seconds, rows, start = [], [], 0
    for count, (_, group) in enumerate(groupby(frames, key=lambda frame: frame.session)):
        stamps = np.array([frame.stamp_ns for frame in group], np.int64)
        known, first = np.unique(stamps, return_index=True)
        seconds.append((known - known[0]) * 1e-9 + count * SESSION_GAP_S)
        rows.append(first + start)
        start += len(stamps)
    seconds_N, frame_N = np.concatenate(seconds), np.concatenate(rows)
    steps = np.diff(seconds_N)
    period_s = float(np.median(steps[steps < SESSION_GAP_S / 2])) if len(steps) else 0.0
    return Track(seconds_N, poses_of(frames)[frame_N], frame_N, period_s)


def choose_pairs(track: Track) -> Pairs:
    """A bounded number of pairs, spread over the drive: in each stretch those that an offset changes most."""
    usable, seconds = track.usable(), track.seconds_N
    found: set[tuple[int, int]] = set()
    for wanted_s in PAIR_SECONDS:
        other = np.searchsorted(seconds, seconds + wanted_s - 0.5 * track.period_s)
        other = np.clip(np.maximum(other, np.arange(len(seconds)) + 1), 0, len(seconds) - 1)
        good = usable & usable[other] & (seconds[other] - seconds <= LONGEST_PAIR_S)
        good &= other > np.arange(len(seconds))
        found |= {(int(i), int(other[i])) for i in np.flatnonzero(good)}
    pairs = np.array(sorted(found), np.int64).reshape(-1, 2)
    i, j = pairs.T
    baseline_m = np.linalg.norm(track.T_N44[i, :3, 3] - track.T_N44[j, :3, 3], axis=1)
    moved = baseline_m > SMALLEST_BASELINE_M
    if moved.any():
        moved &= baseline_m > SHORTEST_BASELINE * np.median(baseline_m[moved])
    i, j = i[moved], j[moved]
    stretches = int(np.clip(len(seconds) // FRAMES_A_STRETCH, 1, MOST_STRETCHES))
    stretch, change = i * stretches // len(seconds), _change(track, i, j)
    order = np.lexsort((-change, stretch))
    rank = np.arange(len(order)) - np.searchsorted(stretch[order], stretch[order])
    kept = np.sort(order[rank < PAIRS_A_STRETCH])
    return Pairs(i[kept], j[kept], stretch[kept])


def _change(track: Track, i_P: NDArray[np.int64], j_P: NDArray[np.int64]) -> Array:
    """How much an offset changes the relative rotation of each pair, for small offsets."""
    before, after = (
        invert(track.poses(track.seconds_N[i_P] + s)) @ track.poses(track.seconds_N[j_P] + s)
        for s in (-0.05, 0.05)
    )
    return rotation_angle(np.swapaxes(before[:, :3, :3], 1, 2) @ after[:, :3, :3])
