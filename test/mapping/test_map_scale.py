"""The scale of a map, and which errors are right and wrong by it."""

import numpy as np
import pytest
from support.bags import cut_bag
from support.dataset_files import views, write_csv
from support.paths import TOWN_BUNDLE, TOWN_MAP

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.mapping.map_scale import extent_of, scale_of_images, scale_of_points
from rgsiam_ros.mapping.points import PointCloud
from rgsiam_ros.recordings.formats import open_dataset

WIDTH, HEIGHT, FOCAL = 400, 300, 250.0
K = np.array([[FOCAL, 0.0, WIDTH / 2], [0.0, FOCAL, HEIGHT / 2], [0.0, 0.0, 1.0]])


def wall(depth_m, images=3, points=2000):
    """A cloud of points on a wall in front of cameras that look at it from places side by side."""
    random = np.random.default_rng(0)
    T_N44 = np.tile(np.eye(4), (images, 1, 1))
    T_N44[:, 0, 3] = 100.0 + 0.01 * np.arange(images)
    pixel = random.uniform((0.0, 0.0), (WIDTH, HEIGHT), (points, 2))
    ray = np.column_stack([(pixel - K[:2, 2]) / FOCAL, np.ones(points)])
    image_V, point_V = np.arange(points) * images // points, np.arange(points)
    position = T_N44[image_V, :3, 3] + depth_m * ray
    none = np.empty((points, 0))
    return PointCloud(
        position, none, image_V, point_V, point_V, pixel, np.zeros(points), 0, 0
    ), T_N44


@pytest.mark.parametrize("depth_m", [2.0, 30.0])
def test_a_wall_is_half_seen_after_half_the_width_of_the_view(depth_m):
    cloud, T_N44 = wall(depth_m)
    expected = depth_m * WIDTH / 2 / FOCAL
    assert scale_of_points(cloud, T_N44, K, WIDTH) == pytest.approx(expected, rel=0.05)


def test_the_scale_does_not_depend_on_how_many_images_there_are():
    few, many = (scale_of_points(*wall(5.0, images), K, WIDTH) for images in (2, 50))
    assert few == pytest.approx(many, rel=0.05)


def test_images_without_points_leave_the_scale_unknown(tmp_path):
    dataset = open_dataset(write_csv(tmp_path / "few", views(count=4)))
    assert scale_of_images([dataset]) is None
    extent = extent_of([dataset])
    assert extent.map_scale_m is None
    assert (extent.right_m, extent.wrong_m) == (1.0, 5.0)
    assert "map scale unknown" in extent.describe()


@pytest.mark.slow
def test_a_few_places_show_the_scale_of_the_whole_map(tmp_path):
    part = open_dataset(cut_bag(TOWN_MAP, tmp_path / "map", images=200))
    whole = Bundle.load(TOWN_BUNDLE).manifest.geometric_part.map_scale_m
    assert scale_of_images([part]) == pytest.approx(whole, rel=0.5)


@pytest.mark.slow
def test_a_kitchen_is_a_room(shared_data):
    extent = extent_of([open_dataset(shared_data / "redkitchen")])
    assert 0.5 < extent.map_scale_m < 1.5
    assert (extent.right_m, extent.wrong_m) == (0.25, 0.5)
