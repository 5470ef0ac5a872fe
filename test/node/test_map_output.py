"""~/map_points, and ~/matches for those who subscribe."""

import threading
from itertools import count, islice

import numpy as np
import pytest
from support.images import jpeg_bytes

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image, PointCloud2
from support.ros_peer import RELIABLE, compressed_image, key
from support.ros_watcher import LATCHED_ONE

from rgsiam_ros.localization.match_drawing import INLIER, draw_estimate
from rgsiam_ros.node import map_output

pytestmark = pytest.mark.ros

MATCHES, POINTS = "relocalize/matches", "relocalize/map_points"


@pytest.fixture(scope="module")
def photo(small_map):
    image = next(islice(small_map.dataset.read_images(), 20, None))
    return jpeg_bytes(image.decode())


@pytest.fixture
def drawn(monkeypatch):
    """The names of the threads that have drawn an image."""
    names = []

    def draw(*arguments):
        names.append(threading.current_thread().name)
        return draw_estimate(*arguments)

    monkeypatch.setattr(map_output, "draw_estimate", draw)
    return names


def clouds_of(peer):
    clouds = []
    peer.create_subscription(PointCloud2, POINTS, clouds.append, LATCHED_ONE)
    return clouds


def fields(cloud):
    """The points of a cloud as a table, read as its fields say."""
    formats = {7: "<f4", 6: "<u4"}
    kind = np.dtype(
        {
            "names": [field.name for field in cloud.fields],
            "formats": [formats[field.datatype] for field in cloud.fields],
            "offsets": [field.offset for field in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    assert cloud.row_step == cloud.width * cloud.point_step == len(cloud.data)
    assert not cloud.is_bigendian
    return np.frombuffer(bytes(cloud.data), kind)


def test_a_late_subscriber_gets_the_maps_points(peer, start, small_map):
    start(bundle=small_map.bundle.path)
    peer.wait_for_status("no image yet")
    clouds = clouds_of(peer)
    peer.wait(lambda: clouds, "the latched points")
    assert clouds[0].header.frame_id == "map"
    assert clouds[0].header.stamp.sec > 0
    table = fields(clouds[0])
    T = small_map.T_map_points
    expected = small_map.points.position_P3 @ T[:3, :3].T + T[:3, 3]
    xyz = np.stack([table[name] for name in "xyz"], axis=1)
    np.testing.assert_allclose(xyz, expected, atol=1e-4)
    seen = [small_map.points.visible[i] for i in range(len(small_map.points.visible))]
    for point in (0, len(expected) // 2):
        assert table["observations"][point] == sum(point in points for points in seen)


def test_points_come_with_activation_and_with_another_bundle(peer, start, small_map, small_bundle):
    start(bundle=small_map.bundle.path, autostart=False)
    clouds = clouds_of(peer)
    assert peer.change_state(Transition.TRANSITION_CONFIGURE)
    assert peer.state() == "inactive"
    assert not clouds
    assert peer.change_state(Transition.TRANSITION_ACTIVATE)
    peer.wait(lambda: clouds, "the points")
    count_of_points = small_map.geometry.points
    assert clouds[-1].width == count_of_points
    for bundle, width in ((small_bundle, 0), (small_map.bundle.path, count_of_points)):
        clouds.clear()
        assert peer.set_parameter("bundle", str(bundle)).successful
        peer.wait(lambda: clouds, "the points of the other bundle")
        assert clouds[-1].width == width


def test_matches_are_drawn_only_while_somebody_subscribes(peer, start, small_map, photo, drawn):
    start(bundle=small_map.bundle.path)
    stamps, images = count(1), []

    def localize():
        peer.send_and_wait(peer.compressed, compressed_image(photo, next(stamps)))

    def has_an_image():
        localize()
        return images

    def draws_nothing():
        before = len(drawn)
        for _ in range(3):
            localize()
        return len(drawn) == before

    assert draws_nothing()
    subscription = peer.create_subscription(Image, MATCHES, images.append, RELIABLE)
    peer.wait(has_an_image, "an image with its matches")
    message = images[0]
    assert key(message.header.stamp) in peer.poses
    assert message.header.frame_id == "camera_optical"
    width, height = 416, small_map.geometry.preprocessing.input_height
    assert (message.encoding, message.width, message.step) == ("bgr8", width, 3 * width)
    assert message.height > height
    picture = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, width, 3)
    near = np.abs(picture[-height:].astype(int) - INLIER).max(axis=2) < 40
    assert near.sum() > 300
    assert set(drawn) == {"relocalizer"}  # the worker's thread
    peer.destroy_subscription(subscription)
    peer.wait(draws_nothing, "the end of the drawing")


def test_an_error_in_drawing_stops_no_pose(peer, start, small_map, photo, monkeypatch):
    def fail(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr(map_output, "draw_estimate", fail)
    node = start(bundle=small_map.bundle.path)
    peer.create_subscription(Image, MATCHES, lambda _: None, RELIABLE)
    stamps = count(1)

    def localize():
        status = peer.outcome(compressed_image(photo, next(stamps)))
        assert status.message == "pose published"

    node.wait_for_log(r"nothing on ~/matches:\n(?s:.*)RuntimeError: no ink", spin=localize)
    for _ in range(3):
        localize()


def test_the_absolute_branch_has_no_matches(peer, start, drawn):
    node = start()
    images = []
    peer.create_subscription(Image, MATCHES, images.append, RELIABLE)
    peer.localize(1)
    peer.wait(lambda: peer.count_publishers(MATCHES) == 1, "the topic")
    for index in range(2, 5):
        peer.localize(index)
    assert not images
    assert not drawn
    assert "nothing on" not in node.log
