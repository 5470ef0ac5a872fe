import numpy as np
import pytest
from support.synthetic_map import K, drive, map_images, scene

from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.mapping.adjustment import Observations, Priors, adjust


@pytest.fixture(scope="module")
def seen():
    """True poses and points, and the observations of the points, one in twenty of them wrong."""
    T, truth = drive(12), scene(200)
    images, point_of = map_images(T, truth)
    pixel = np.concatenate([image.pixel_N2 for image in images]).astype(np.float64)
    image = np.repeat(np.arange(12), [len(image.pixel_N2) for image in images])
    pixel[::20] += 40.0
    used, point = np.unique(point_of, return_inverse=True)
    often = np.bincount(point)[point] >= 3
    used_often, point = np.unique(point[often], return_inverse=True)
    return T, truth[0][used[used_often]], Observations(image[often], point, pixel[often])


def shaken(T, points, seed=0):
    random = np.random.default_rng(seed)
    moved = T.copy()
    moved[:, :3, 3] += random.normal(0.0, 0.05, (len(T), 3))
    return moved, points + random.normal(0.0, 0.1, points.shape)


def test_poses_and_points_come_back_in_spite_of_wrong_observations(seen):
    T_true, points_true, observations = seen
    T_start, points_start = shaken(T_true, points_true)
    priors = Priors(T_true, 0.05, np.radians(1.0))
    T, points = adjust(T_start, points_start, observations, priors, K, 1.0, 50)
    metres, radians = pose_errors(T, T_true)
    assert metres.max() < 0.005
    assert np.degrees(radians.max()) < 0.05
    assert np.median(np.linalg.norm(points - points_true, axis=1)) < 0.02


def test_tight_priors_hold_the_poses(seen):
    T_true, points_true, observations = seen
    given, points_start = shaken(T_true, points_true)
    T, _ = adjust(given, points_start, observations, Priors(given, 1e-6, 1e-6), K, 1.0, 50)
    metres, radians = pose_errors(T, given)
    assert metres.max() < 1e-4
    assert radians.max() < 1e-4


def test_an_image_that_sees_nothing_keeps_its_given_pose(seen):
    T_true, points_true, observations = seen
    rest = observations.image_V != 5
    fewer = Observations(
        observations.image_V[rest], observations.point_V[rest], observations.pixel_V2[rest]
    )
    start = T_true.copy()
    start[5, 0, 3] += 0.3
    T, _ = adjust(start, points_true, fewer, Priors(T_true, 0.05, 0.02), K, 1.0, 50)
    np.testing.assert_allclose(T[5], T_true[5], atol=1e-6)
