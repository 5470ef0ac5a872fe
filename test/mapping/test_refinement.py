import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.synthetic_map import SIZE, K, drive, map_images, scene

from rgsiam_ros.geometry.poses import invert, pose_errors
from rgsiam_ros.mapping.progress import Silent
from rgsiam_ros.mapping.refinement import refine_poses

pytestmark = pytest.mark.slow


def noisy(T, metres, degrees, seed=3):
    random = np.random.default_rng(seed)
    moved = T.copy()
    moved[:, :3, 3] += random.normal(0.0, metres, (len(T), 3))
    turn = Rotation.from_rotvec(random.normal(0.0, np.radians(degrees), (len(T), 3)))
    moved[:, :3, :3] = T[:, :3, :3] @ turn.as_matrix()
    return moved


@pytest.fixture(scope="module")
def recorded():
    T = drive(20, spacing_m=0.3)
    return T, map_images(T, scene(600), noise_px=0.3, clutter=100)[0]


def refined(recorded, given, mode="auto"):
    return refine_poses(recorded[1], given, K, SIZE, mode, Silent())


@pytest.fixture(scope="module")
def mended(recorded):
    given = noisy(recorded[0], 0.1, 1.0)
    return given, refined(recorded, given)


def test_poses_that_fit_the_images_are_kept(recorded):
    assert refined(recorded, recorded[0]) is None


def test_noisy_poses_are_kept_if_refinement_is_off(recorded):
    assert refined(recorded, noisy(recorded[0], 0.1, 1.0), "off") is None


def test_noisy_poses_come_near_the_true_ones(recorded, mended):
    """Neighbours fit each other; all together lie where the given ones lie on average."""
    T_true, (given, found) = recorded[0], mended
    T = found.T_map_camera_N44
    between = [invert(poses[:-1]) @ poses[1:] for poses in (given, T, T_true)]
    before, after = (pose_errors(poses, between[2]) for poses in between[:2])
    assert np.median(after[0]) < 0.15 * np.median(before[0])
    assert np.median(after[1]) < 0.15 * np.median(before[1])
    before_m, before_rad = pose_errors(given, T_true)
    metres, radians = pose_errors(T, T_true)
    assert np.median(metres) < 0.6 * np.median(before_m)
    assert np.median(radians) < 0.6 * np.median(before_rad)


def test_the_map_keeps_the_frame_of_the_given_poses(mended):
    given, found = mended
    shift = (found.T_map_camera_N44 - given)[:, :3, 3].mean(axis=0)
    assert np.linalg.norm(shift) < 0.05


def test_the_noise_is_estimated(mended):
    _, found = mended
    assert 0.07 < found.sigma_m < 0.14
    assert 0.7 < np.degrees(found.sigma_rad) < 1.4
    assert found.residual_px > 1.5
    assert "refined; moved by median" in found.describe()


def test_good_poses_hardly_move_if_refinement_is_on(recorded):
    T_true = recorded[0]
    metres, radians = pose_errors(refined(recorded, T_true, "on").T_map_camera_N44, T_true)
    assert np.percentile(metres, 95) < 0.02
    assert np.degrees(np.percentile(radians, 95)) < 0.2


def test_images_without_common_matches_keep_their_poses(recorded):
    T_true = recorded[0]
    alone = [map_images(T_true[i : i + 1], scene(300, seed=i))[0][0] for i in range(20)]
    assert refine_poses(alone, T_true, K, SIZE, "on", Silent()) is None


def test_the_same_images_give_the_same_poses(recorded, mended):
    given, found = mended
    again = refined(recorded, given)
    np.testing.assert_array_equal(again.T_map_camera_N44, found.T_map_camera_N44)
