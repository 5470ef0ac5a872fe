"""The camera of a bag whose camera_info has a region, another frame, or is of raw images."""

import logging

import numpy as np
import pytest
from support.bags import TYPES, copy_bag, cut_bag
from support.paths import TOWN_DRIVE

from rgsiam_ros.errors import BagError
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_ros.recordings.topics import BagTopics

INFO = "/camera/camera_info"
TOPICS = {"/camera/image_raw/compressed", INFO, "/tf_static"}


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return cut_bag(TOWN_DRIVE, tmp_path_factory.mktemp("short") / "bag", 3, TOPICS)


@pytest.fixture
def bag_with(short, tmp_path):
    """A function that copies the bag, with a change of its camera_info and another name of its images."""

    def make(change=lambda info: None, images=None):
        def changed(connection, _, raw):
            if connection.topic != INFO:
                return raw
            message = TYPES.deserialize_cdr(raw, connection.msgtype)
            change(message)
            return TYPES.serialize_cdr(message, connection.msgtype)

        names = {} if images is None else {"/camera/image_raw/compressed": images}
        return copy_bag(short, tmp_path / "changed", lambda *_: True, changed, rename=names)

    return make


def set_region(x, y, width, height, scale=1):
    def change(info):
        roi = info.roi
        roi.x_offset, roi.y_offset, roi.width, roi.height = x, y, width, height
        info.width, info.height = 640, 480
        info.binning_x = info.binning_y = scale

    return change


def test_a_region_and_binning_that_fit_the_images_give_their_camera(bag_with):
    camera = read_drive(bag_with(set_region(0, 60, 640, 360, scale=2))).camera
    assert (camera.width, camera.height) == (320, 180)
    assert (camera.fx, camera.cy) == (95.0, (89.5 - 60.0) / 2)


def test_a_region_of_another_size_than_the_images_is_refused(bag_with):
    with pytest.raises(BagError, match="320x180 pixels, but camera_info says 160x90: a region"):
        read_drive(bag_with(set_region(40, 40, 160, 90)))


def test_another_frame_of_the_camera_info_is_a_warning(bag_with, caplog):
    def change(info):
        info.header.frame_id = "rear_optical"

    with caplog.at_level(logging.WARNING):
        read_drive(bag_with(change))
    assert "of the frame camera_optical_frame, the camera_info of rear_optical" in caplog.text


def test_rectified_images_of_a_bag(bag_with, caplog):
    def change(info):
        info.d = np.array([-0.3, 0.0, 0.0, 0.0, 0.0])
        info.p = info.p.copy()
        info.p[[0, 5]] = 170.0

    bag = bag_with(change, images="/camera/image_rect/compressed")
    with caplog.at_level(logging.WARNING):
        assert read_drive(bag).camera.distortion[0] == -0.3
    assert "give --rectified, so that P is used" in caplog.text
    caplog.clear()
    camera = read_drive(bag, BagTopics(rectified=True)).camera
    assert (camera.fx, camera.distortion_model) == (170.0, "none")
    assert not caplog.text
