"""The topic initialpose."""

from itertools import islice

import numpy as np
import pytest
from support.images import jpeg_bytes

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from geometry_msgs.msg import PoseWithCovarianceStamped
from support.ros_peer import RELIABLE, compressed_image, transform
from tf2_msgs.msg import TFMessage

from rgsiam_ros.localization.relocalizer import Relocalizer

pytestmark = pytest.mark.ros


@pytest.fixture
def expected(monkeypatch):
    """The poses that the relocalizer was told to expect."""
    told = []
    expect = Relocalizer.expect

    def remember(self, T_map_camera):
        told.append(T_map_camera)
        return expect(self, T_map_camera)

    monkeypatch.setattr(Relocalizer, "expect", remember)
    return told


def give_hint(peer, frame_id="map", w=1.0):
    hints = peer.create_publisher(PoseWithCovarianceStamped, "initialpose", RELIABLE)
    peer.wait_for_listener(hints)
    message = PoseWithCovarianceStamped()
    message.header.frame_id = frame_id
    message.pose.pose.position.x, message.pose.pose.position.y = 10.0, 20.0
    message.pose.pose.orientation.w = w
    hints.publish(message)


def test_a_hint_reaches_the_relocalizer_as_a_pose_of_the_camera(peer, start, small_map, expected):
    mount = transform("base_link", "camera_optical", xyz=(1.0, 0.0, 1.5))
    peer.static.publish(TFMessage(transforms=[mount]))
    node = start(mount=False, bundle=small_map.bundle.path)
    give_hint(peer)
    node.wait_for_log("hint: looking near x 10.0, y 20.0 m", peer.spin)
    image = next(islice(small_map.dataset.read_images(), 20, None))
    for index in range(2):
        peer.outcome(compressed_image(jpeg_bytes(image.decode()), index))
    (T_map_camera,) = expected  # once, not for each image
    np.testing.assert_allclose(T_map_camera[:3, 3], [11.0, 20.0, 1.5], atol=1e-9)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"frame_id": "odom"}, "the hint is ignored: it is in 'odom', not in 'map'"),
        ({"w": 0.0}, "the hint is ignored: a quaternion has norm 0"),
        ({}, "the hint has no effect: only the geometric branch"),
    ],
)
def test_a_hint_that_cannot_be_used_is_named(peer, start, change, reason):
    node = start()
    give_hint(peer, **change)
    if not change:
        node.wait_for_log("hint: looking near", peer.spin)
        peer.localize(0)
    node.wait_for_log(reason, peer.spin)
