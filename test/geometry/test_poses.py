import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.poses import random_poses

from rgsiam_ros.geometry.poses import (
    check_pose,
    interpolate_poses,
    invert,
    pose_errors,
    pose_matrix,
    quaternion_wxyz,
    quaternion_wxyz_from_xyzw,
    quaternion_xyzw_from_wxyz,
    rotation_angle,
    rotation_vector,
    skew,
)


def test_quaternion_orders():
    assert quaternion_xyzw_from_wxyz([1.0, 2.0, 3.0, 4.0]).tolist() == [2.0, 3.0, 4.0, 1.0]
    assert quaternion_wxyz_from_xyzw([2.0, 3.0, 4.0, 1.0]).tolist() == [1.0, 2.0, 3.0, 4.0]


def test_pose_from_a_known_quaternion():
    half = np.sqrt(0.5)
    T = pose_matrix([1.0, 2.0, 3.0], [half, 0.0, 0.0, half])  # a quarter turn about z
    np.testing.assert_allclose(T @ [1.0, 0.0, 0.0, 1.0], [1.0, 3.0, 3.0, 1.0], atol=1e-12)


def test_poses_survive_the_round_trip():
    T = random_poses(50)
    again = pose_matrix(T[:, :3, 3], quaternion_wxyz(T))
    np.testing.assert_allclose(again, T, atol=1e-12)
    assert (quaternion_wxyz(T)[:, 0] >= 0.0).all()


@pytest.mark.parametrize("radians", [0.0, 1e-12, 1e-7, 1e-3, 1.5, 2.999, 3.001, np.pi - 1e-9])
def test_rotation_vectors_of_tiny_turns_and_of_half_turns(radians):
    axis = np.random.default_rng(0).standard_normal((2, 30, 3))
    vector = radians * axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    R = Rotation.from_rotvec(vector.reshape(-1, 3)).as_matrix().reshape(2, 30, 3, 3)
    np.testing.assert_allclose(rotation_vector(R), vector, rtol=1e-8, atol=1e-15)
    np.testing.assert_allclose(rotation_vector(R[1, 3]), vector[1, 3], rtol=1e-8, atol=1e-15)


def test_inverse():
    T = random_poses(20)
    np.testing.assert_allclose(T @ invert(T), np.tile(np.eye(4), (20, 1, 1)), atol=1e-12)


def test_pose_errors_are_a_distance_and_an_angle():
    T_true = random_poses(30)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0.0, 0.3, 0.0]).as_matrix()
    turn[:3, 3] = [3.0, 0.0, 4.0]
    metres, radians = pose_errors(T_true @ turn, T_true)
    np.testing.assert_allclose(metres, 5.0)
    np.testing.assert_allclose(radians, 0.3)


def test_interpolation_is_exact_half_way():
    T = np.stack([np.eye(4), np.eye(4)])
    T[1, :3, :3] = Rotation.from_rotvec([0.0, 0.0, 0.4]).as_matrix()
    T[1, :3, 3] = [2.0, 0.0, 0.0]
    stamps = np.array([1_600_000_000_000_000_000, 1_600_000_000_500_000_000])
    half = interpolate_poses(stamps, T, [stamps[0] + 250_000_000])[0]
    np.testing.assert_allclose(half[:3, 3], [1.0, 0.0, 0.0])
    np.testing.assert_allclose(Rotation.from_matrix(half[:3, :3]).as_rotvec(), [0.0, 0.0, 0.2])
    with pytest.raises(ValueError, match="outside"):
        interpolate_poses(stamps, T, [stamps[1] + 1])


@pytest.mark.parametrize(
    ("quaternion", "message"),
    [([2.0, 0.0, 0.0, 0.0], "norm 2.0000"), ([np.nan, 0.0, 0.0, 0.0], "non-finite")],
)
def test_bad_quaternions_are_refused(quaternion, message):
    with pytest.raises(ValueError, match=message):
        pose_matrix([0.0, 0.0, 0.0], quaternion)


@pytest.mark.parametrize("break_it", ["mirror", "scale", "nan", "last row", "shape"])
def test_a_matrix_that_is_not_a_pose_is_refused(break_it):
    T = np.eye(4)
    if break_it == "mirror":
        T[0, 0] = -1.0
    elif break_it == "scale":
        T[:3, :3] *= 1.1
    elif break_it == "nan":
        T[0, 3] = np.nan
    elif break_it == "last row":
        T[3, 0] = 1.0
    else:
        T = np.eye(3)
    with pytest.raises(ValueError, match="pose"):
        check_pose(T)


def test_skew_is_the_cross_product():
    a, b = np.array([1.0, 2.0, 3.0]), np.array([-4.0, 5.0, 0.5])
    np.testing.assert_allclose(skew(a) @ b, np.cross(a, b))


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-6, 0.3, 3.0, np.pi - 1e-9, np.pi])
def test_angles_near_zero_and_near_half_a_turn_are_exact(angle):
    axes = np.random.default_rng(0).normal(size=(20, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    R = Rotation.from_rotvec(angle * axes).as_matrix()
    np.testing.assert_allclose(rotation_angle(R), angle, atol=1e-14, rtol=1e-9)
    T = np.tile(np.eye(4), (20, 1, 1))
    T[:, :3, :3] = R
    np.testing.assert_allclose(pose_errors(T, np.eye(4))[1], angle, atol=1e-14, rtol=1e-9)
