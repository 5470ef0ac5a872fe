import numpy as np
import pytest
from support.synthetic_map import K, drive, map_images, scene

from rgsiam_ros.geometry.poses import invert
from rgsiam_ros.mapping.matching import proposed_matches
from rgsiam_ros.mapping.two_view import verify


def turned(T, degrees):
    """The same pose after a turn about the camera's vertical axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    moved = T.copy()
    moved[:3, :3] = T[:3, :3] @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return moved


@pytest.fixture(scope="module")
def pair():
    """Two images, their matches, a third of which are wrong, and the true relative pose."""
    T = drive(12)[4:6]
    images, _ = map_images(T, scene(400), noise_px=0.3)
    (matches,) = proposed_matches(images, np.array([[0, 1]]))
    second = matches.second_M.copy()
    wrong = np.arange(len(second)) % 3 == 0
    second[wrong] = np.roll(second[wrong], 7)
    return images, type(matches)(matches.first_M, second, matches.similarity_M), wrong, T


def verified(pair, T_first_second):
    images, matches, _, _ = pair
    return verify(images[0], images[1], matches, T_first_second, K)


def test_right_matches_pass_and_wrong_ones_do_not(pair):
    _, _, wrong, T = pair
    found = verified(pair, turned(invert(T[0]) @ T[1], 3.0))
    assert found.inlier_M[~wrong].mean() > 0.8
    assert found.inlier_M[wrong].mean() < 0.15


def test_how_far_the_given_poses_are_from_the_matches(pair):
    T_first_second = invert(pair[3][0]) @ pair[3][1]
    right, off = verified(pair, T_first_second), verified(pair, turned(T_first_second, 3.0))
    assert right.residual_px < 1.0 < 2.0 < off.residual_px
    assert off.own_px < 1.0
    assert right.turn_rad < np.radians(1.0) < np.radians(2.0) < off.turn_rad < np.radians(4.0)
    sideways = T_first_second.copy()
    sideways[:3, 3] += [0.0, 0.2, 0.0]
    assert right.aside_m < 0.1 < verified(pair, sideways).aside_m < 0.3


def test_another_turn_than_the_given_one_is_not_believed(pair):
    T_first_second = invert(pair[3][0]) @ pair[3][1]
    assert verified(pair, turned(T_first_second, 25.0)) is None


def test_matches_without_a_common_motion_are_not_used(pair):
    images, matches, _, T = pair
    second = np.random.default_rng(0).permutation(matches.second_M)
    mixed = type(matches)(matches.first_M, second, matches.similarity_M)
    assert verify(images[0], images[1], mixed, invert(T[0]) @ T[1], K) is None


def test_the_same_matches_give_the_same_result(pair):
    T_first_second = invert(pair[3][0]) @ pair[3][1]
    a, b = verified(pair, T_first_second), verified(pair, T_first_second)
    np.testing.assert_array_equal(a.inlier_M, b.inlier_M)
    assert a.residual_px == b.residual_px
