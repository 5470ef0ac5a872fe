from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.poses import random_poses

from rgsiam_ros.bundle.map_features import MapFeatures
from rgsiam_ros.bundle.parts import Target
from rgsiam_ros.geometry.poses import invert, pose_errors, quaternion_wxyz
from rgsiam_ros.localization.refinement import (
    combine,
    hypotheses_together,
    look,
    make_agreement,
    position_sigma,
)

AGREEMENT = make_agreement(reach_m=8.0, metres_per_radian=4.0, absolute_m=2.0, absolute_deg=0.0)
TRUE = random_poses(1, seed=3)[0]


def around(T, count, metres, degrees, seed=0):
    """Poses with normally distributed errors."""
    random = np.random.default_rng(seed)
    found = np.tile(T, (count, 1, 1))
    turn = Rotation.from_rotvec(np.radians(degrees) * random.normal(size=(count, 3)))
    found[:, :3, :3] = turn.as_matrix() @ T[:3, :3]
    found[:, :3, 3] += metres * random.normal(size=(count, 3))
    return found


def moved(T, *metres):
    shifted = T.copy()
    shifted[:3, 3] += metres
    return shifted


def errors(T):
    metres, radians = pose_errors(T, TRUE)
    return float(metres), float(np.degrees(radians))


def test_agreeing_hypotheses_are_averaged():
    """The mean of sixteen hypotheses has about a quarter of the error of one."""
    hypotheses = around(TRUE, 16, metres=0.2, degrees=1.0)
    combined = combine(hypotheses, np.ones(16), TRUE, AGREEMENT)
    metres, degrees = errors(combined.T_map_camera)
    assert metres < 0.2
    assert degrees < 1.0
    R = combined.T_map_camera[:3, :3]
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert combined.support > 0.7


def test_a_minority_that_looks_like_another_place_is_ignored():
    wrong = around(moved(TRUE, 70.0, 0.0, 0.0), 3, 0.05, 0.5, seed=1)
    hypotheses = np.concatenate([wrong, around(TRUE, 5, 0.05, 0.5)])
    combined = combine(hypotheses, np.ones(8), moved(TRUE, 3.0, 0.0, 0.0), AGREEMENT)
    assert errors(combined.T_map_camera)[0] < 0.1
    assert combined.support == pytest.approx(5 / 8, abs=0.05)


def test_between_two_equal_places_the_absolute_branch_decides():
    elsewhere = moved(TRUE, 70.0, 0.0, 0.0)
    hypotheses = np.stack([elsewhere, elsewhere, TRUE, TRUE])
    for T_absolute in (TRUE, elsewhere):
        combined = combine(hypotheses, np.ones(4), moved(T_absolute, 1.0, 0, 0), AGREEMENT)
        metres, _ = pose_errors(combined.T_map_camera, T_absolute)
        assert metres < 0.1
    far = moved(TRUE, -500.0, 0.0, 0.0)  # an absolute pose far from all hypotheses decides nothing
    assert combine(hypotheses, np.ones(4), far, AGREEMENT).support == pytest.approx(0.5, abs=0.01)


def test_hypotheses_are_weighted_and_zero_weights_give_no_pose():
    hypotheses = np.stack([TRUE, moved(TRUE, 0.5, 0.0, 0.0)])
    heavy = combine(hypotheses, [9.0, 1.0], TRUE, AGREEMENT)
    light = combine(hypotheses, [1.0, 9.0], TRUE, AGREEMENT)
    assert errors(heavy.T_map_camera)[0] < errors(light.T_map_camera)[0]
    assert combine(hypotheses, [0.0, 0.0], TRUE, AGREEMENT) is None
    assert combine(hypotheses[:0], [], TRUE, AGREEMENT) is None


def test_position_sigma_comes_from_the_information_and_may_be_large():
    information = np.stack([np.diag([4.0, 4.0, 1.0, 9.0, 9.0, 9.0]), np.zeros((6, 6))])
    sigma = position_sigma(information)
    assert sigma[0] == pytest.approx(np.sqrt(1 / 4 + 1 / 4 + 1), rel=1e-4)
    assert sigma[1] > 1e3


class World:
    """A map on a line, a live camera, and a relative branch that gives the true relative poses."""

    target = Target(origin_m=(0.0, 0.0, 0.0), scale_m=10.0)

    def __init__(self, live_x):
        T = np.tile(np.eye(4), (40, 1, 1))
        T[:, 0, 3] = 2.0 * np.arange(40)
        feature = np.eye(40, dtype=np.float32)
        self.map = MapFeatures(feature, np.zeros((40, 1, 1, 1), np.float16), T)
        self.live = np.eye(4)
        self.live[0, 3] = live_x
        self.requested = []

    def relate(self, nearest_K):
        self.requested.append(nearest_K.tolist())
        T = invert(self.map.T_map_camera_N44[nearest_K]) @ self.live
        return {
            "translation_normalised": T[:, :3, 3] / 10.0,
            "rotation_quaternion_wxyz": quaternion_wxyz(T),
            "information": np.tile(np.eye(6), (len(T), 1, 1)),
        }

    def look(self, query, T_absolute=None, relate=None):
        T_absolute = self.live if T_absolute is None else T_absolute
        nearest_K = self.map.nearest(query, 4)
        return look(relate or self.relate, self.map, nearest_K, T_absolute, self.target, AGREEMENT)


def test_a_second_look_uses_the_nearest_map_images():
    world = World(live_x=21.0)
    query = np.zeros(40)
    query[[8, 13]] = 1.0, 0.9  # 5 m off on both sides
    found = world.look(query)
    np.testing.assert_allclose(found.combined.T_map_camera, world.live, atol=1e-9)
    assert found.nearest_m == pytest.approx(1.0)
    assert found.change_m == pytest.approx(0.0, abs=1e-6)
    assert world.requested[0][:2] == [8, 13]
    assert sorted(world.requested[1]) == [9, 10, 11, 12]


def test_neighbours_beyond_the_reach_give_no_pose():
    world = World(live_x=60.0)
    query = np.zeros(40)
    query[:4] = 1.0  # 54 m and more away
    assert world.look(query) is None


def test_map_images_that_are_not_allowed_are_never_used():
    world = World(live_x=21.0)
    query = np.zeros(40)
    query[[8, 13]] = 1.0, 0.9
    allowed = np.array([5, 8, 12, 14, 30])
    nearest_K = world.map.nearest(query, 4, allowed)
    found = look(world.relate, world.map, nearest_K, world.live, world.target, AGREEMENT, allowed)
    np.testing.assert_allclose(found.combined.T_map_camera, world.live, atol=1e-9)
    assert all(set(indices) <= set(allowed) for indices in world.requested)
    assert found.nearest_m == pytest.approx(3.0)


def test_spread_and_sigma_follow_the_hypotheses():
    tight, wide = (
        combine(around(TRUE, 16, metres, 0.0), np.ones(16), TRUE, AGREEMENT).spread_m
        for metres in (0.02, 0.2)
    )
    assert tight == pytest.approx(0.02 * np.sqrt(3), rel=0.3)
    assert wide > 5.0 * tight
    world = World(live_x=21.0)
    nearest = np.array([9, 10, 11, 12])
    outputs, poses = world.relate(nearest), world.map.T_map_camera_N44[nearest]
    found = hypotheses_together(outputs, poses, world.live, world.target, AGREEMENT)
    # four informations of one each, in units of ten metres
    assert found.sigma_m == pytest.approx(10.0 * np.sqrt(3.0 / 4.0), rel=1e-3)


def test_hypotheses_of_long_steps_weigh_less():
    """One map image 0.5 m behind and one 7 m ahead, each step 10 % too short: 0.05 against 0.7 m."""
    world = World(live_x=21.0)
    nearest = np.array([10, 14])
    world.map.T_map_camera_N44[10, 0, 3] = 20.5
    outputs = world.relate(nearest)
    outputs["translation_normalised"] = 0.9 * outputs["translation_normalised"]

    def error(agreement):
        poses = world.map.T_map_camera_N44[nearest]
        found = hypotheses_together(outputs, poses, world.live, world.target, agreement)
        return abs(found.T_map_camera[0, 3] - 21.0)

    indifferent = replace(AGREEMENT, long_step_m=1e9)
    assert error(AGREEMENT) < 0.5 * error(indifferent)


@pytest.mark.parametrize(
    "name", ["translation_normalised", "rotation_quaternion_wxyz", "information"]
)
def test_hypotheses_that_are_not_poses_are_ignored(name):
    world = World(live_x=21.0)
    nearest = np.array([9, 10, 11])

    def combine_with_nan(which):
        outputs = world.relate(nearest)
        outputs[name] = outputs[name].copy()
        outputs[name][which] = np.nan
        poses = world.map.T_map_camera_N44[nearest]
        return hypotheses_together(outputs, poses, world.live, world.target, AGREEMENT)

    np.testing.assert_allclose(combine_with_nan([0]).T_map_camera, world.live, atol=1e-9)
    assert combine_with_nan([0, 1, 2]) is None


def test_the_agreement_distance_includes_the_rotation_error():
    """Indoors, the absolute branch errs by 0.26 m and 13.8 degrees. Such a pose still votes."""
    agreement = make_agreement(1.0, 4.0, 0.26, 13.8)
    assert agreement.absolute_m == pytest.approx(2.0 * (0.26 + 4.0 * np.radians(13.8)) + 0.1)
