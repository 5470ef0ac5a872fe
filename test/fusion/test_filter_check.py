"""The distance by which robot_localization rejects a pose."""

import numpy as np
import pytest

from rgsiam_ros.fusion.filter_check import PLANE, SPACE, MapPose, rejection_distance, worst_part
from rgsiam_ros.geometry.poses import pose_matrix


def at(x, y=0.0, yaw=0.0, sigma=0.2, yaw_sigma=0.02):
    T = pose_matrix([x, y, 0.0], [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
    return MapPose(0, T, np.diag([sigma**2] * 3 + [yaw_sigma**2] * 3))


def test_the_distance_is_over_all_axes_together_and_wraps_angles():
    """Rejected in the heading alone: x and y are 0.7 sigmas away, all three together 5."""
    wrong = at(0.0, yaw=-1.5, sigma=195.0, yaw_sigma=0.5)
    pose = at(150.0, 120.0, yaw=1.0)
    assert rejection_distance(pose, wrong, (0, 1)) == pytest.approx(0.985, abs=0.01)
    assert rejection_distance(pose, wrong, (5,)) == pytest.approx(2.5 / 0.5, abs=0.01)
    assert rejection_distance(pose, wrong, PLANE) == pytest.approx(
        np.hypot(0.985, 2.5 / 0.5), abs=0.02
    )
    nearly_half_turns = at(0.0, yaw=3.1), at(0.0, yaw=-3.1)
    assert rejection_distance(*nearly_half_turns, PLANE) == pytest.approx(
        (2 * np.pi - 6.2) / np.hypot(0.02, 0.02), rel=1e-6
    )
    high = at(0.0)
    high.T_map_base[2, 3] = 10.0
    assert rejection_distance(high, at(0.0), PLANE) == 0.0
    assert rejection_distance(high, at(0.0), SPACE) == pytest.approx(10.0 / np.hypot(0.2, 0.2))


def test_a_filter_that_drives_the_wrong_way_excludes_the_true_place():
    """An EKF that begins with an unknown heading, and takes it for east. The vehicle drives west.

    Its position becomes uncertain to the sides of its way, where the vehicle is not, and stays certain along
    it. So a true pose is rejected for its position, with a sigma of 190 m, and with a heading that may be any.
    """
    state, P = np.zeros(3), np.diag([0.4**2, 0.4**2, 10.0])  # x, y, yaw, after the first fix
    for _ in range(60):
        F = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])  # a step of 1 m
        state, P = state + [1.0, 0.0, 0.0], F @ P @ F.T + np.diag([0.005, 0.005, 2e-4])
    filtered = at(state[0])
    filtered.covariance_66[np.ix_(PLANE, PLANE)] = P
    true = at(-state[0], yaw=np.pi)
    assert filtered.horizontal_sigma_m == pytest.approx(190.0, abs=1.0)
    assert rejection_distance(true, filtered, (5,)) < 1.0
    assert rejection_distance(true, filtered, (0,)) > 100.0
    assert rejection_distance(true, filtered, PLANE) > 100.0
    assert worst_part(true, filtered, PLANE) == "position"
