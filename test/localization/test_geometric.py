"""The geometric branch, on real held-out images of a small map."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_info, threadpool_limits

from rgsiam_ros.features.keypoints import DESCRIPTOR_SIZE, Keypoints, from_bytes
from rgsiam_ros.features.vlad import Vlad
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.localization.pnp import reprojection_residuals
from rgsiam_ros.uncertainty.covariance import check_covariance
from rgsiam_ros.uncertainty.geometric import GeometricUncertainty
from rgsiam_ros.uncertainty.geometric_trust import GeometricTrust

NO_KEYPOINTS = Keypoints(
    np.empty((0, 2), np.float32),
    np.empty((0, DESCRIPTOR_SIZE), np.float32),
    np.empty(0, np.float32),
)


@pytest.fixture(scope="module")
def branch(small_map):
    return small_map.branch()


def located(branch, small_map, index, **options):
    found = branch.localize(small_map.held_out[index], small_map.K, **options)
    metres, radians = pose_errors(found.T_map_camera, small_map.T_map_camera_N44[index])
    return found, float(metres), float(np.degrees(radians))


def far_pose(small_map):
    T = small_map.T_map_camera_N44[0].copy()
    T[:3, 3] += [40.0, -30.0, 2.0]
    T[:3, :3] = T[:3, :3] @ Rotation.from_euler("y", 120.0, degrees=True).as_matrix()
    return T


def test_held_out_images_get_the_right_pose_in_the_map_frame(branch, small_map):
    for index in range(len(small_map.held_out)):
        found, metres, degrees = located(branch, small_map, index)
        assert metres < 0.25
        assert degrees < 0.5
        assert found.quality.inliers > 60
        assert found.quality.inliers == found.inlier_M.sum()
        assert 0.1 < found.quality.residual_px < 3.0
        check_covariance(GeometricUncertainty().covariance(found.information_66, found.quality))


def test_the_matches_are_those_that_the_pose_fits(branch, small_map):
    found, _, _ = located(branch, small_map, 1)
    keypoints, points = small_map.held_out[1], small_map.points
    assert len(set(found.keypoint_M)) == len(set(found.point_M)) == len(found.inlier_M)
    T = np.linalg.inv(small_map.T_map_points) @ found.T_map_camera
    residual = reprojection_residuals(
        T, points.position_P3[found.point_M], keypoints.pixel_N2[found.keypoint_M], small_map.K
    )
    np.testing.assert_array_equal(residual <= 4.0, found.inlier_M)
    rms = np.sqrt(np.square(residual[found.inlier_M]).mean())
    assert found.quality.residual_px == pytest.approx(rms)
    seen = set(np.concatenate([points.visible[i] for i in found.candidates]))
    assert set(found.point_M) <= seen
    similarity = (
        keypoints.descriptor_ND[found.keypoint_M] * from_bytes(points.descriptor_PD[found.point_M])
    ).sum(axis=1)
    assert similarity.min() >= 0.6


def test_images_of_nothing_get_no_pose(branch, small_map):
    random = np.random.default_rng(0)
    descriptors = random.normal(size=(600, DESCRIPTOR_SIZE)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    pixel = random.uniform([0.0, 0.0], [416.0, 224.0], (600, 2)).astype(np.float32)
    noise = Keypoints(pixel, descriptors, np.ones(600, np.float32))
    assert branch.localize(noise, small_map.K) is None
    assert branch.localize(NO_KEYPOINTS, small_map.K) is None
    near = small_map.T_map_camera_N44[:1]
    assert branch.localize(NO_KEYPOINTS, small_map.K, near=near) is None


def test_real_keypoints_at_random_places_have_few_inliers(branch, small_map):
    keypoints = small_map.held_out[0]
    mixed = np.random.default_rng(0).permutation(keypoints.pixel_N2)
    scrambled = Keypoints(mixed, keypoints.descriptor_ND, keypoints.score_N)
    found = branch.localize(scrambled, small_map.K)
    assert found is None or found.quality.inliers < small_map.geometry.fewest_inliers


def test_only_allowed_map_images_are_used(branch, small_map):
    metres = np.linalg.norm(
        small_map.points.T_points_camera_N44[:, :3, 3]
        + small_map.T_map_points[:3, 3]
        - small_map.T_map_camera_N44[0, :3, 3],
        axis=1,
    )
    nearest = np.argsort(metres)[:6]
    found, error_m, _ = located(branch, small_map, 0, allowed=np.sort(nearest)[::2])
    assert set(found.candidates) == set(np.sort(nearest)[::2])
    assert error_m < 0.5
    with_guess, _, _ = located(
        branch, small_map, 0, allowed=np.sort(nearest), near=[small_map.T_map_camera_N44[3]]
    )
    assert set(with_guess.candidates) <= set(nearest)
    keypoints = small_map.held_out[0]
    assert branch.localize(keypoints, small_map.K, allowed=np.empty(0, np.int64)) is None
    far = np.argsort(metres)[-5:]
    elsewhere = branch.localize(keypoints, small_map.K, allowed=far)
    assert elsewhere is None or set(elsewhere.candidates) <= set(far)


def test_a_wrong_expected_pose_does_no_harm(branch, small_map):
    wrong = [far_pose(small_map), small_map.T_map_camera_N44[-1]]
    for near in ([wrong[0]], [wrong[1]], wrong):
        found, metres, degrees = located(branch, small_map, 0, near=near)
        assert metres < 0.25
        assert degrees < 0.5
        assert found.quality.inliers > 60


def test_map_images_near_the_expected_pose_are_candidates(small_map):
    """All images look alike, so that the first two are tried, which are far behind."""
    blind = replace(
        small_map.points, global_feature_NG=np.zeros_like(small_map.points.global_feature_NG)
    )
    branch = GeometricBranch(blind, small_map.T_map_points, 2)
    T = small_map.T_map_camera_N44[-1]
    position = blind.T_points_camera_N44[:, :3, 3] + small_map.T_map_points[:3, 3]
    metres = np.linalg.norm(position - T[:3, 3], axis=1)
    without = branch.localize(small_map.held_out[-1], small_map.K)
    assert without is None or set(without.candidates) == {0, 1}
    near = T.copy()
    near[:3, 3] += [0.5, -0.7, 0.1]
    found, error_m, degrees = located(branch, small_map, -1, near=[near])
    assert error_m < 0.25
    assert degrees < 0.5
    assert metres.argmin() in found.candidates
    assert metres[found.candidates[found.candidates > 1]].max() < 6.0


def test_a_weak_pose_near_the_expected_one_beats_a_weaker_look_alike(small_map):
    """The image has few keypoints, and the images that look alike are far from it. They are a rival."""
    blind = replace(
        small_map.points, global_feature_NG=np.zeros_like(small_map.points.global_feature_NG)
    )
    branch = GeometricBranch(blind, small_map.T_map_points, 10)
    keypoints, T = small_map.held_out[-1], small_map.T_map_camera_N44[-1]
    few = Keypoints(*(part[:100] for part in vars(keypoints).values()))
    found = branch.localize(few, small_map.K, near=[T])
    metres, _ = pose_errors(found.T_map_camera, T)
    assert metres < 0.3
    assert 30 <= found.quality.inliers < 90
    assert found.quality.rival_inliers < found.quality.inliers


def twice(points, shift_m, noise=0.0, copy_noise=0.0):
    """A map with a second copy of everything in another place.

    noise: of descriptors, in the steps that they are stored in; copy_noise: more of it, of the copy's alone.
    """
    random = np.random.default_rng(0)
    count = len(points.position_P3)
    T = points.T_points_camera_N44.copy()
    T[:, 0, 3] += shift_m
    both = np.concatenate([points.descriptor_PD] * 2)
    level_PD = np.repeat([[noise], [noise + copy_noise]], count, axis=0)
    return replace(
        points,
        position_P3=np.concatenate([points.position_P3, points.position_P3 + [shift_m, 0.0, 0.0]]),
        descriptor_PD=np.rint(both + level_PD * random.normal(size=both.shape))
        .clip(-127, 127)
        .astype(np.int8),
        T_points_camera_N44=np.concatenate([points.T_points_camera_N44, T]),
        global_feature_NG=np.concatenate([points.global_feature_NG] * 2),
        visible=(*points.visible, *(seen + count for seen in points.visible)),
    )


def in_copies(small_map, noise):
    """The pose with which an image is expected in each of the two places, and the branch."""
    branch = GeometricBranch(twice(small_map.points, 300.0, noise), small_map.T_map_points, 8)
    T = np.stack([small_map.T_map_camera_N44[2]] * 2)
    T[1, 0, 3] += 300.0
    return branch, T


def test_two_places_that_look_alike_are_rivals(small_map):
    """Which of them it is only an expected pose can tell."""
    branch, T_expected = in_copies(small_map, noise=0.4)
    keypoints, fewest = small_map.held_out[2], small_map.geometry.fewest_inliers
    found = branch.localize(keypoints, small_map.K)
    assert found.quality.rival_inliers > 0.55 * found.quality.inliers
    places = [found.T_map_camera[0, 3], found.T_map_rival[0, 3]]
    np.testing.assert_allclose(sorted(places), T_expected[:, 0, 3], atol=0.25)
    assert "two places look alike" in GeometricTrust(fewest).why_not(found.quality)
    for T in T_expected:
        known = branch.localize(keypoints, small_map.K, near=[T])
        assert pose_errors(known.T_map_camera, T)[0] < 0.25
        assert GeometricTrust(fewest).why_not(known.quality) == ""
    single, _, _ = located(small_map.branch(), small_map, 2)
    assert GeometricTrust(fewest).why_not(single.quality) == ""


def test_a_rival_with_less_similar_matches_is_no_look_alike(small_map):
    points = twice(small_map.points, 300.0, copy_noise=1.1)
    branch = GeometricBranch(points, small_map.T_map_points, 20)
    found = branch.localize(small_map.held_out[2], small_map.K)
    assert pose_errors(found.T_map_camera, small_map.T_map_camera_N44[2])[0] < 0.25
    assert found.quality.rival_inliers > 0.55 * found.quality.inliers
    assert found.quality.rival_similarity < found.quality.similarity - 0.05
    assert GeometricTrust(small_map.geometry.fewest_inliers).why_not(found.quality) == ""


def test_more_expected_poses_are_asked_for_only_if_needed(small_map):
    """In a street that repeats itself, a second source of expected poses tells the places apart."""
    repeated, T_expected = in_copies(small_map, noise=0.4)
    keypoints = small_map.held_out[2]
    asked = []

    def then_near():
        asked.append(True)
        return [T_expected[1]]

    known = repeated.localize(keypoints, small_map.K, near=[T_expected[0]], then_near=then_near)
    assert not asked
    assert pose_errors(known.T_map_camera, T_expected[0])[0] < 0.25
    helped = repeated.localize(keypoints, small_map.K, then_near=then_near)
    assert asked == [True]
    assert pose_errors(helped.T_map_camera, T_expected[1])[0] < 0.25
    assert helped.quality.rival_inliers == 0


def test_a_pose_in_another_place_than_expected_must_beat_its_rival(small_map):
    """The two places are exactly alike, so that all matches are with points of the first one."""
    branch, T_expected = in_copies(small_map, noise=0.0)
    found = branch.localize(small_map.held_out[2], small_map.K, near=[T_expected[1]])
    right = pose_errors(found.T_map_camera, T_expected[1])[0] < 0.25
    assert right or GeometricTrust(small_map.geometry.fewest_inliers).why_not(found.quality)


def test_matrix_products_use_one_thread(small_map):
    """Idle threads of BLAS would busy-wait on the cores of the engine. Other code keeps its threads."""
    used = []

    def blas_threads():
        return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]

    class Watched(Vlad):
        def feature(self, descriptor_MD):
            used.extend(blas_threads())
            return super().feature(descriptor_MD)

    vlad = small_map.points.vlad
    watched = Watched(vlad.word_WD, vlad.mean_E, vlad.basis_EG)
    branch = GeometricBranch(replace(small_map.points, vlad=watched), np.eye(4), 10)
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        branch.localize(small_map.held_out[0], small_map.K)
        assert blas_threads() == before
    assert set(used) == {1}


def test_equal_images_give_equal_poses(branch, small_map):
    again = small_map.branch()
    for index in (0, 3):
        one, other = located(branch, small_map, index)[0], located(again, small_map, index)[0]
        np.testing.assert_array_equal(one.T_map_camera, other.T_map_camera)
        np.testing.assert_array_equal(one.information_66, other.information_66)


def test_the_turned_frame_of_the_points_turns_the_poses(branch, small_map):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("zyx", [0.7, 0.02, -0.01]).as_matrix()
    turned = GeometricBranch(small_map.points, turn @ small_map.T_map_points, 8)
    T_true = turn @ small_map.T_map_camera_N44[2]
    for near in ([], [T_true]):
        found = turned.localize(small_map.held_out[2], small_map.K, near=near)
        metres, radians = pose_errors(found.T_map_camera, T_true)
        assert metres < 0.25
        assert np.degrees(radians) < 0.5


def test_without_a_pose_the_most_similar_map_image_is_known(branch, small_map):
    T = small_map.T_map_points @ branch.most_similar(small_map.held_out[4].descriptor_ND)
    metres, radians = pose_errors(T, small_map.T_map_camera_N44[4])
    assert metres < 8.0
    assert np.degrees(radians) < 30.0
