"""The vehicle's route through the town."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from rgsiam_ros.geometry.poses import Array
from rgsiam_training.town.layout import LOOP_EAST, LOOP_NORTH, ROAD_HALF_WIDTH

LANE_OFFSET = ROAD_HALF_WIDTH / 2
"""Distance of the lane's middle from the middle of the street, metres."""
CORNER_RADIUS = 9.0
CRUISE_SPEED, CORNER_SPEED = 9.0, 5.0
"""Metres per second."""


@dataclass(frozen=True)
class Ride:
    """How one lap is driven."""

    lateral_offset_m: float
    """Distance from the middle of the lane, positive to the left."""
    wander_m: float
    """Amplitude of a slow lateral oscillation about that offset."""
    seed: int
    """Seed of the phases of the oscillation, the roll and the pitch."""


def lap_length() -> float:
    """Return the length of the lane's middle line over one lap, metres."""
    return float(_middle_line()[1][-1])


def drive_lap(ride: Ride, rate_hz: float) -> Array:
    """Return the poses ``T_map_base`` ``(N, 4, 4)`` at `rate_hz` along one counter-clockwise lap.

    The vehicle drives on the right. base_link is on the ground, x forward, z up. It rolls and pitches by a
    few tenths of a degree.
    """
    random = np.random.default_rng(ride.seed)
    line, along, heading, turning = _middle_line()
    speed = np.where(turning, CORNER_SPEED, CRUISE_SPEED)
    kernel = np.ones(81) / 81.0
    speed = np.convolve(np.concatenate([speed[-40:], speed, speed[:40]]), kernel, "valid")
    elapsed = np.concatenate([[0.0], np.cumsum(np.diff(along) / speed[1:])])
    times = np.arange(0.0, elapsed[-1], 1.0 / rate_hz)
    s = np.interp(times, elapsed, along)
    phase = random.uniform(0.0, 2.0 * np.pi, size=4)
    weave = np.sin(s / 23.0 + phase[0]) + 0.5 * np.sin(s / 9.0 + phase[1])
    left = ride.lateral_offset_m + ride.wander_m * weave
    yaw = np.interp(s, along, heading)
    x = np.interp(s, along, line[:, 0]) - np.sin(yaw) * left
    y = np.interp(s, along, line[:, 1]) + np.cos(yaw) * left
    yaw += np.gradient(left) / np.gradient(s)  # the oscillation changes the heading slightly
    roll = np.radians(0.3) * np.sin(times * 5.0 + phase[2])
    pitch = np.radians(0.3) * np.sin(times * 4.0 + phase[3])
    T = np.tile(np.eye(4), (len(times), 1, 1))
    T[:, :3, :3] = Rotation.from_euler("ZYX", np.stack([yaw, pitch, roll], axis=1)).as_matrix()
    T[:, 0, 3], T[:, 1, 3] = x, y
    return T


def _middle_line() -> tuple[Array, Array, Array, np.ndarray]:
    """Return the lane's middle line, sampled every 0.1 m.

    Returns points ``(N, 2)``, arc lengths ``(N,)``, headings without jumps ``(N,)`` in radians, and which
    points are in a corner ``(N,)``.
    """
    west, east = -LOOP_EAST - LANE_OFFSET, LOOP_EAST + LANE_OFFSET
    south, north = -LANE_OFFSET, LOOP_NORTH + LANE_OFFSET
    r, step = CORNER_RADIUS, 0.1
    legs = [
        ((west + r, south), (east - r, south)),
        ((east, south + r), (east, north - r)),
        ((east - r, north), (west + r, north)),
        ((west, north - r), (west, south + r)),
    ]
    centres = [(east - r, south + r), (east - r, north - r), (west + r, north - r)]
    centres.append((west + r, south + r))
    points, headings, corners = [], [], []
    for i, ((start, end), centre) in enumerate(zip(legs, centres, strict=True)):
        heading = i * np.pi / 2.0
        n = round(np.hypot(end[0] - start[0], end[1] - start[1]) / step)
        share = np.arange(n)[:, None] / n
        points.append(np.array(start) + share * (np.array(end) - np.array(start)))
        headings.append(np.full(n, heading))
        corners.append(np.zeros(n, bool))
        m = round(r * np.pi / 2.0 / step)
        angle = heading + np.arange(m) / m * np.pi / 2.0
        arc = np.stack([np.sin(angle), -np.cos(angle)], axis=1)
        points.append(np.array(centre) + r * arc)
        headings.append(angle)
        corners.append(np.ones(m, bool))
    line = np.concatenate(points)
    lengths = np.hypot(*np.diff(line, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    return line, along, np.concatenate(headings), np.concatenate(corners)
