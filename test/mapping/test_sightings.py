"""Points that a new drive sees again, and those that are gone, and how a map takes a session in and gives it back."""

from dataclasses import replace

import numpy as np
import pytest

from rgsiam_ros.bundle.map_points import MapPoints, global_bytes
from rgsiam_ros.features.keypoints import DESCRIPTOR_SIZE, Keypoints, to_bytes
from rgsiam_ros.features.vlad import Vlad
from rgsiam_ros.mapping.joining import joined, new_points, without_session
from rgsiam_ros.mapping.matching import MapImage
from rgsiam_ros.mapping.points import PointCloud
from rgsiam_ros.mapping.progress import Silent
from rgsiam_ros.mapping.sightings import WITNESSES, look_for_points

POINTS, IMAGES = 60, 12
SIZE_WH = 400, 200
K = np.array([[200.0, 0.0, 199.5], [0.0, 200.0, 99.5], [0.0, 0.0, 1.0]])
GONE = [3, 17]


def unit(random, count):
    values = random.normal(size=(count, DESCRIPTOR_SIZE)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def cameras():
    """Cameras that move 2 cm a step, 10 metres before the points."""
    T_N44 = np.tile(np.eye(4), (IMAGES, 1, 1))
    T_N44[:, 0, 3] = 0.02 * np.arange(IMAGES)
    return T_N44


@pytest.fixture(scope="module")
def points():
    random = np.random.default_rng(0)
    position = np.stack(
        [random.uniform(-8, 8, POINTS), random.uniform(-4, 4, POINTS), np.full(POINTS, 10.0)],
        axis=1,
    )
    descriptor = unit(random, POINTS)
    vlad, feature_NG = Vlad.fit([descriptor[i::IMAGES] for i in range(IMAGES)], 0)
    everything = tuple(np.arange(POINTS) for _ in range(IMAGES))
    descriptor_PD = to_bytes(descriptor)
    return MapPoints(position, descriptor_PD, cameras(), global_bytes(feature_NG), everything, vlad)


def seen_from(points, T, shown, look=None):
    """The keypoints of a camera that sees some points. look: descriptors of all points, None for their own."""
    inside = points.position_P3[shown] - T[:3, 3]
    pixel = (inside @ K.T)[:, :2] / inside[:, 2:]
    descriptor = (points.unit_descriptor_PD if look is None else look)[shown]
    return Keypoints(pixel.astype(np.float32), descriptor, np.ones(len(shown), np.float32))


def look(points, keypoints, trusted=None):
    trusted = np.ones(len(keypoints), bool) if trusted is None else trusted
    poses = cameras()[: len(keypoints)]
    return look_for_points(points, poses, keypoints, trusted, K, SIZE_WH, 10.0, Silent())


def drive(points, shown, count=IMAGES, **options):
    return [seen_from(points, T, shown, **options) for T in cameras()[:count]]


@pytest.fixture(scope="module")
def left():
    return np.setdiff1d(np.arange(POINTS), GONE)


def test_points_that_no_witness_sees_are_gone(points, left):
    found = look(points, drive(points, left))
    assert np.flatnonzero(found.gone_P).tolist() == GONE
    assert np.flatnonzero(~found.seen_P).tolist() == GONE
    assert (found.gone_N == len(GONE)).all()
    np.testing.assert_array_equal(found.point_V, left[found.keypoint_V])
    np.testing.assert_array_equal(np.bincount(found.image_V), np.full(IMAGES, len(left)))


def test_a_point_that_one_image_sees_stays(points, left):
    keypoints = drive(points, left)
    keypoints[4] = seen_from(points, cameras()[4], np.arange(POINTS))
    assert not look(points, keypoints).gone_P.any()


def test_few_witnesses_are_not_enough(points, left):
    assert look(points, drive(points, left, WITNESSES)).gone_P.any()
    assert not look(points, drive(points, left, WITNESSES - 1)).gone_P.any()


def test_images_that_the_map_did_not_find_are_no_witnesses(points, left):
    found = look(points, drive(points, left), np.zeros(IMAGES, bool))
    assert not found.gone_P.any()
    assert found.seen_P.sum() == POINTS - len(GONE)


def test_images_in_other_light_are_no_witnesses(points):
    """They see less than half of the points that they should see: what they miss may well be there."""
    other = unit(np.random.default_rng(1), POINTS)
    other[:20] = points.unit_descriptor_PD[:20]
    found = look(points, drive(points, np.arange(POINTS), look=other))
    assert not found.gone_P.any()
    np.testing.assert_allclose(found.share_N, 20 / POINTS)


def test_points_outside_the_image_are_not_missed(points, left):
    outside = points.position_P3.copy()
    outside[GONE] = [30.0, 0.0, 10.0]
    assert not look(replace(points, position_P3=outside), drive(points, left)).gone_P.any()


@pytest.fixture(scope="module")
def taken(points, left):
    """A map of two sessions, and the sightings: the second drive sees the points but two, and three new ones."""
    keypoints = drive(points, left)
    extra = unit(np.random.default_rng(2), 3)
    images = [
        MapImage(
            np.concatenate([k.pixel_N2, np.float32([[5, 5], [50, 9], [390, 190]])]),
            to_bytes(np.concatenate([k.descriptor_ND, extra])),
        )
        for k in keypoints
    ]
    sightings = look(points, keypoints)
    count = len(left) + 3
    cloud = PointCloud(
        np.concatenate([points.position_P3[left], [[0, 0, 9], [1, 0, 9], [2, 0, 9.0]]]),
        to_bytes(np.concatenate([points.unit_descriptor_PD[left], extra]), 18.0),
        np.repeat(np.arange(IMAGES), count),
        np.tile(np.arange(count), IMAGES),
        np.arange(IMAGES * count),
        np.zeros((IMAGES * count, 2)),
        np.zeros(IMAGES * count),
        count,
        1,
    )
    new_P = new_points(cloud, images, sightings)
    stored = joined(points, cloud, new_P, images, cameras(), sightings, 1)
    return stored, new_P


def test_only_what_the_map_does_not_have_is_added(taken, points, left):
    stored, new_P = taken
    assert np.flatnonzero(new_P).tolist() == [len(left), len(left) + 1, len(left) + 2]
    assert len(stored.position_P3) == POINTS + 3
    assert np.flatnonzero(stored.removed_by_P).tolist() == GONE
    used = stored.in_use()
    assert len(used.position_P3) == POINTS + 3 - len(GONE)
    assert used.removed_by_P is None
    assert [len(seen) for seen in used.visible] == [58] * IMAGES + [61] * IMAGES
    np.testing.assert_array_equal(used.descriptor_PD[:58], points.descriptor_PD[left])


def test_removed_points_are_stored_and_read_back(taken):
    stored, _ = taken
    back = MapPoints.from_arrays(stored.to_arrays())
    np.testing.assert_array_equal(back.removed_by_P, stored.removed_by_P)
    arrays = stored.to_arrays() | {"removed_by_P": np.zeros(POINTS, np.uint8)}
    with pytest.raises(ValueError, match="'removed_by_P' has shape"):
        MapPoints.from_arrays(arrays)


def test_removed_points_come_back_with_their_session_gone(taken, points):
    back = without_session(taken[0], [IMAGES, IMAGES], 1)
    assert back.removed_by_P is None
    np.testing.assert_array_equal(back.descriptor_PD, points.descriptor_PD)
    assert all(len(seen) == POINTS for seen in back.visible)


def test_a_later_session_keeps_what_it_removed(taken):
    stored = replace(taken[0], removed_by_P=np.uint8(2) * (taken[0].removed_by_P > 0))
    back = without_session(stored, [IMAGES, IMAGES // 2, IMAGES // 2], 1)
    assert np.flatnonzero(back.removed_by_P == 1).tolist() == GONE
    assert len(back.visible) == IMAGES + IMAGES // 2


def test_without_the_first_session_only_its_own_points_go(taken):
    back = without_session(taken[0], [IMAGES, IMAGES], 0)
    assert len(back.position_P3) == POINTS + 3 - len(GONE)
    assert back.removed_by_P is None
