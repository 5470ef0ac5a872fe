"""The picture of a map, where something is missing or unusual."""

from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest

from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.mapping.picture import LocalizedFrame, draw_map, widest_axes

BLUE = (180, 119, 31)
"""The colour of the estimated pose, BGR."""


@pytest.fixture(scope="module")
def points(small_map):
    return small_map.bundle.points_in_map()


@pytest.fixture(scope="module")
def localized(small_map):
    """Localizes an image, and gives it the true pose of the frame 20."""
    relocalizer = Relocalizer.from_bundle(small_map.bundle.path)

    def localize(image):
        relocalizer.forget()
        estimate, fitted = relocalizer.estimate(image), relocalizer.fit(image)
        return LocalizedFrame("x", fitted, estimate, small_map.dataset.frames[20].T_map_camera)

    yield localize
    relocalizer.close()


def blue_pixels(picture):
    image = cv2.imread(str(picture)).astype(int)
    return (np.abs(image - BLUE).max(axis=2) < 10).sum()


def test_the_view_is_along_the_narrowest_axis(points):
    assert widest_axes(points) == (0, 1)
    for order, expected in (([0, 2, 1], (0, 2)), ([2, 0, 1], (1, 2))):
        turned = replace(
            points,
            position_P3=points.position_P3[:, order],
            T_points_camera_N44=points.T_points_camera_N44[:, [*order, 3]],
        )
        assert widest_axes(turned) == expected


def test_frames_with_and_without_a_pose_are_drawn(points, localized, small_map, tmp_path):
    photo = next(islice(small_map.dataset.read_images(), 20, None)).decode()
    noise = np.random.default_rng(0).integers(0, 256, photo.shape).astype(np.uint8)
    manifest = small_map.bundle.manifest
    draw_map(points, manifest, tmp_path / "none.png", 900, None)
    for name, image in (("photo", photo), ("noise", noise), ("black", np.zeros_like(photo))):
        frame = localized(image)
        assert frame.estimate.lost == (name != "photo")
        assert (len(frame.candidates) == 0) == (name != "photo")
        picture = tmp_path / f"{name}.png"
        draw_map(points, manifest, picture, 900, frame)
        assert cv2.imread(str(picture)).shape == (675, 900, 3)
        assert blue_pixels(picture) > 20 > blue_pixels(tmp_path / "none.png")


def test_a_map_with_a_single_image_is_drawn(points, small_map, tmp_path):
    single = replace(
        points, T_points_camera_N44=points.T_points_camera_N44[:1], visible=points.visible[:1]
    )
    draw_map(single, small_map.bundle.manifest, tmp_path / "single.png", 400, None)
    assert cv2.imread(str(tmp_path / "single.png")).shape[1] == 400
