from dataclasses import replace

import numpy as np
import pytest

from rgsiam_ros.features.keypoints import DESCRIPTOR_SIZE, Keypoints
from rgsiam_ros.geometry.poses import invert
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.mapping.validation import validate
from rgsiam_ros.uncertainty.covariance import pose_error_vectors, rotate_axes
from rgsiam_ros.uncertainty.geometric import GeometricUncertainty


def noise(count=500, seed=0):
    """Keypoints of an image that shows nothing of the map."""
    random = np.random.default_rng(seed)
    descriptors = random.normal(size=(count, DESCRIPTOR_SIZE)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    pixel = random.uniform([0.0, 0.0], [416.0, 224.0], (count, 2)).astype(np.float32)
    return Keypoints(pixel, descriptors, np.ones(count, np.float32))


def in_points_frame(small_map):
    return GeometricBranch(small_map.points, np.eye(4), candidates=8)


@pytest.fixture(scope="module")
def true_poses(small_map):
    """In the frame of the points: of the held-out images twice, and of two images of nothing."""
    T = np.concatenate([small_map.T_map_camera_N44] * 2 + [small_map.T_map_camera_N44[:2]])
    return invert(small_map.T_map_points) @ T


@pytest.fixture(scope="module")
def validated(small_map, true_poses):
    """The held-out images twice, so that there are enough for a fit, and two images of nothing."""
    keypoints = [*small_map.held_out, *small_map.held_out, noise(), noise(seed=1)]
    return validate(in_points_frame(small_map), keypoints, true_poses, small_map.K, 30)


def test_errors_are_those_of_the_answered_images(validated):
    assert validated.answered_N.tolist() == [True] * 12 + [False] * 2
    median_m, p95_m, median_deg, p95_deg = validated.errors()
    assert median_m == pytest.approx(np.median(validated.metres_N[:12]))
    assert p95_m == pytest.approx(np.percentile(validated.metres_N[:12], 95))
    assert median_deg == pytest.approx(np.degrees(np.median(validated.radians_N[:12])))
    assert 0.0 < median_deg <= p95_deg < 0.5
    summary = validated.summary("twice")
    assert summary["kind"] == "twice"
    assert summary["frames"] == 14
    assert summary["answered"] == pytest.approx(12 / 14)
    assert summary["median_m"] == median_m
    assert summary["p95_m"] == p95_m < 0.3
    assert validated.describe().startswith("12 of 14 held-out images localized: median ")


def test_the_covariance_is_fitted_to_the_errors(validated, true_poses):
    """Normalised squared errors of position and of rotation are 3 on average, the number of coordinates."""
    assert validated.fitted
    uncertainty = replace(validated.uncertainty, floor_m=0.0, floor_rad=0.0)
    assert 0.1 < uncertainty.pixel_sigma < 3.0
    poses = validated.poses[:12]
    covariances = np.stack(
        [
            rotate_axes(uncertainty.covariance(pose.information_66), pose.T_map_camera[:3, :3])
            for pose in poses
        ]
    )
    errors = pose_error_vectors([pose.T_map_camera for pose in poses], true_poses[:12])
    for part in (slice(0, 3), slice(3, 6)):
        inverse = np.linalg.inv(covariances[:, part, part])
        squares = np.einsum("ni,nij,nj->n", errors[:, part], inverse, errors[:, part])
        assert squares.mean() / 3.0 == pytest.approx(1.0, rel=1e-3)


def test_few_images_leave_the_covariance_as_the_matches_give_it(small_map, true_poses):
    few = validate(
        in_points_frame(small_map), small_map.held_out[:2], true_poses[:2], small_map.K, 30
    )
    assert few.answered_N.all()
    assert not few.fitted
    assert few.uncertainty == GeometricUncertainty()


def test_without_answers_there_are_no_errors(small_map):
    found = validate(in_points_frame(small_map), [noise()], np.eye(4)[None], small_map.K, 30)
    assert not found.answered_N.any()
    assert found.errors() == (0.0, 0.0, 0.0, 0.0)
    assert found.summary("none")["answered"] == 0.0
