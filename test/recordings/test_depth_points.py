"""Scene points from depth images."""

import numpy as np
import pytest
from support.bags import cut_bag
from support.paths import TOWN_MAP
from support.poses import random_poses

pytest.importorskip("torch", reason="the training extra is not installed here")

from support.bags import with_depth

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import BagError, DatasetError
from rgsiam_ros.geometry.poses import invert
from rgsiam_ros.recordings.depth_points import points_of_depth
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.topics import BagTopics

CAMERA = Camera(width=320, height=180, fx=190.0, fy=200.0, cx=150.0, cy=95.0)


@pytest.mark.parametrize("shrink", [1, 5])
def test_a_pixel_with_depth_becomes_the_right_point(shrink):
    """A depth image of the full size, and one of a fifth of it whose pixels are the centres of 5x5 blocks."""
    (T,) = random_poses(1)
    depth = np.zeros((180 // shrink, 320 // shrink))
    row, column = (2 * (180 // shrink) // 3, 320 // shrink // 4)
    depth[row - 6 : row + 7, column - 6 : column + 7] = 7.0
    points = points_of_depth(depth, CAMERA, T)
    in_camera = (points - T[:3, 3]) @ T[:3, :3]
    np.testing.assert_allclose(in_camera[:, 2], 7.0)
    u, v = in_camera[:, 0] / 7.0 * 190.0 + 150.0, in_camera[:, 1] / 7.0 * 200.0 + 95.0
    middle = shrink * (np.array([column, row]) + 0.5) - 0.5
    np.testing.assert_allclose([u.mean(), v.mean()], middle, atol=4.0)
    assert np.ptp(u) <= 12.0 * shrink + 1e-6


def test_lens_distortion_is_removed():
    import cv2

    distortion = (-0.2, 0.05, 0.001, 0.0, 0.0)
    camera = CAMERA.model_copy(update={"distortion_model": "plumb_bob", "distortion": distortion})
    depth = np.full((36, 64), 5.0)
    points = points_of_depth(depth, camera, np.eye(4))
    pixels = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.K, np.array(distortion))[0]
    columns, rows = np.meshgrid(5.0 * np.arange(64) + 2.0, 5.0 * np.arange(36) + 2.0)
    np.testing.assert_allclose(pixels[:, 0], np.stack([columns.ravel(), rows.ravel()], 1), atol=0.2)


def test_invalid_depth_gives_no_point():
    depth = np.array([[np.nan, np.inf, 0.0], [-1.0, 500.0, 3.0]])
    assert len(points_of_depth(depth, CAMERA, np.eye(4))) == 1


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_depth_images_of_a_bag_become_points(tmp_path, encoding):
    dataset = open_dataset(with_depth(tmp_path / "bag", encoding, 9.0))
    points = list(dataset.read_points())
    assert [len(p) for p in points[:3]] == [0, 24, 0]
    in_camera = points[1] @ invert(dataset.frames[1].T_map_camera)[:3, :3].T
    in_camera += invert(dataset.frames[1].T_map_camera)[:3, 3]
    np.testing.assert_allclose(in_camera[:, 2], 9.0, atol=1e-6)


def test_a_bag_without_usable_depth_is_an_error(tmp_path):
    plain = open_dataset(cut_bag(TOWN_MAP, tmp_path / "plain", images=60))
    with pytest.raises(BagError, match="cannot tell which topic is the depth"):
        next(plain.read_points())
    colour = open_dataset(with_depth(tmp_path / "colour", "rgb8", 9.0))
    with pytest.raises(
        DatasetError, match=r"depth/image_raw has encoding rgb8, not 32FC1 or 16UC1"
    ):
        list(colour.read_points())
    named = open_dataset(colour.path, topics=BagTopics(depth="/nowhere"))
    with pytest.raises(BagError, match="no topic /nowhere"):
        next(named.read_points())
