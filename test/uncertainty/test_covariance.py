import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.poses import random_poses

from rgsiam_ros.uncertainty.covariance import (
    check_covariance,
    move_to_body_point,
    residual_covariance,
    rotate_axes,
)


def disturbed(T_true, errors):
    """Return `T_true` with each of the errors ``(N, 6)`` in fixed map axes: x y z rotX rotY rotZ."""
    T = np.tile(T_true, (len(errors), 1, 1))
    T[:, :3, 3] += errors[:, :3]
    T[:, :3, :3] = Rotation.from_rotvec(errors[:, 3:]).as_matrix() @ T_true[:3, :3]
    return T


def errors_of(T, T_true):
    turn = T[:, :3, :3] @ T_true[:3, :3].T
    return np.hstack([T[:, :3, 3] - T_true[:3, 3], Rotation.from_matrix(turn).as_rotvec()])


def some_covariance(random):
    A = random.normal(size=(6, 6)) * [0.3, 0.3, 0.3, 0.01, 0.01, 0.01]
    return A.T @ A + np.diag([1e-3] * 3 + [1e-5] * 3)


def test_lever_arm_agrees_with_monte_carlo():
    random = np.random.default_rng(1)
    T_map_camera, T_camera_base = random_poses(2, seed=3)
    covariance = some_covariance(random)
    errors = random.multivariate_normal(np.zeros(6), covariance, 40_000)
    T_map_base = disturbed(T_map_camera, errors) @ T_camera_base
    sampled = np.cov(errors_of(T_map_base, T_map_camera @ T_camera_base).T)
    predicted = move_to_body_point(covariance, T_map_camera, T_camera_base)
    np.testing.assert_allclose(sampled, predicted, atol=0.03 * np.abs(predicted).max())
    np.testing.assert_allclose(sampled[3:, 3:], predicted[3:, 3:], rtol=0.1, atol=1e-5)


def test_axes_rotate_with_the_frame():
    covariance = np.diag([1.0, 4.0, 9.0, 0.1, 0.2, 0.3])
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    np.testing.assert_allclose(
        np.diag(rotate_axes(covariance, quarter)), [4.0, 1.0, 9.0, 0.2, 0.1, 0.3]
    )


def test_residual_covariance_is_in_camera_axes():
    """Errors along the optical axis are found in the camera's z variance for any rotation of the camera."""
    T_true = random_poses(400, seed=5)
    random = np.random.default_rng(0)
    T_estimated = T_true.copy()
    T_estimated[:, :3, 3] += T_true[:, :3, 2] * random.normal(0.0, 2.0, (400, 1))
    covariance = check_covariance(residual_covariance(T_estimated, T_true))
    np.testing.assert_allclose(np.sqrt(np.diag(covariance))[2], 2.0, rtol=0.1)
    assert np.sqrt(np.diag(covariance))[:2].max() < 0.01


def test_a_bias_counts_as_uncertainty():
    T_true = random_poses(50)
    T_estimated = T_true.copy()
    T_estimated[:, :3, 3] += T_true[:, :3, 0] * 0.5
    assert residual_covariance(T_estimated, T_true)[0, 0] == pytest.approx(0.25, rel=0.01)


def test_too_few_frames_are_refused():
    with pytest.raises(ValueError, match="too few"):
        residual_covariance(random_poses(5), random_poses(5))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((6, 6)), "positive definite"),
        (np.eye(5), "shape"),
        (np.full((6, 6), np.nan), "non-finite"),
        (np.eye(6) + np.triu(np.ones((6, 6)), 1), "symmetric"),
    ],
)
def test_a_matrix_that_is_not_a_covariance_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        check_covariance(matrix)


def test_without_a_lever_arm_the_covariance_stays_the_same():
    covariance = some_covariance(np.random.default_rng(2))
    T = random_poses(1)[0]
    np.testing.assert_allclose(move_to_body_point(covariance, T, np.eye(4)), covariance)
