"""Where the images of a new drive lie, by its labels and by the map."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.mapping.drive_poses import drive_poses
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS

COUNT, REACH_M = 60, 16.0
SESSION = np.zeros(COUNT, np.int64)
ALL = np.ones(COUNT, bool)


def along_a_curve():
    """A pose a metre, on a curve."""
    T_N44 = np.tile(np.eye(4), (COUNT, 1, 1))
    angle = 0.02 * np.arange(COUNT)
    T_N44[:, :3, :3] = Rotation.from_euler("z", angle[:, None]).as_matrix()
    T_N44[:, 0, 3], T_N44[:, 1, 3] = 50.0 * np.sin(angle), 50.0 - 50.0 * np.cos(angle)
    return T_N44


def moved(T_N44, shift_m, turn_deg=0.0):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", turn_deg, degrees=True).as_matrix()
    T[:3, 3] = shift_m
    return T @ T_N44


@pytest.fixture
def true():
    return along_a_curve()


@pytest.fixture
def found(true):
    """The map's poses, 10 cm off."""
    noisy = true.copy()
    noisy[:, :3, 3] += np.random.default_rng(0).normal(0.0, 0.06, (COUNT, 3))
    return noisy


def errors(poses, true):
    known = poses.known_N
    return pose_errors(poses.T_points_camera_N44[known], true[known])[0]


def test_labels_in_the_frame_of_the_map_are_used_as_they_are(true, found):
    trusted = np.arange(COUNT) % 3 == 0
    poses = drive_poses(true, found, trusted, SESSION, OUTDOORS, REACH_M)
    assert poses.source == "labels"
    assert poses.known_N.all()
    np.testing.assert_array_equal(poses.T_points_camera_N44, true)
    assert 0.05 < poses.median_m < 0.2


def test_a_pose_that_its_label_contradicts_is_not_found(true, found):
    found[7, 0, 3] += 70.0
    poses = drive_poses(true, found, ALL, SESSION, OUTDOORS, REACH_M)
    assert np.flatnonzero(~poses.found_N).tolist() == [7]
    assert poses.known_N.all()


def test_labels_of_another_frame_are_aligned_and_smoothed(true, found):
    poses = drive_poses(moved(true, [400, -90, 3], 130.0), found, ALL, SESSION, OUTDOORS, REACH_M)
    assert poses.source == "aligned"
    assert poses.found_N.all()
    own = pose_errors(found, true)[0]
    assert np.median(errors(poses, true)) < 0.6 * np.median(own)


def test_labels_carry_poses_over_images_that_the_map_did_not_find(true, found):
    trusted = ALL.copy()
    trusted[20:28] = trusted[40:] = False
    poses = drive_poses(moved(true, [9, 9, 9], 20.0), found, trusted, SESSION, OUTDOORS, REACH_M)
    assert poses.known_N[20:28].all()
    assert np.flatnonzero(~poses.known_N).tolist() == [56, 57, 58, 59]
    assert errors(poses, true).max() < 0.3
    np.testing.assert_array_equal(poses.found_N, trusted)


def test_a_place_that_looks_alike_is_told_by_the_odometry(true, found):
    found[30:42, 0, 3] += 70.0
    poses = drive_poses(moved(true, [9, 9, 9], 20.0), found, ALL, SESSION, OUTDOORS, REACH_M)
    assert np.flatnonzero(~poses.found_N).tolist() == list(range(30, 42))
    assert poses.known_N.all()
    assert errors(poses, true).max() < 0.3


def test_without_labels_a_jump_is_left_out(found):
    far = found.copy()
    far[30:33, 0, 3] += 70.0
    trusted = ALL.copy()
    trusted[5] = False
    poses = drive_poses(None, far, trusted, SESSION, OUTDOORS, REACH_M)
    assert poses.source == "localized"
    assert np.flatnonzero(~poses.known_N).tolist() == [5, 30, 31, 32]
    np.testing.assert_array_equal(poses.T_points_camera_N44[:5], far[:5])


def test_sessions_of_one_recording_may_lie_apart(found):
    far = found.copy()
    far[30:, 0, 3] += 500.0
    session = np.repeat([0, 1], 30)
    assert drive_poses(None, far, ALL, session, OUTDOORS, REACH_M).known_N.all()
