"""Lost images, the gate over time, odometry and the fix."""

import re
from copy import deepcopy

import numpy as np
import pytest
from support.images import flat_image, jpeg_bytes

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Odometry
from sensor_msgs.msg import NavSatFix
from support.calibrations import calibrated_bundle
from support.ros_peer import RELIABLE, compressed_image, key, stamp, transform
from support.ros_watcher import values
from tf2_msgs.msg import TFMessage

from rgsiam_ros.bundle import Bundle, rewrite_bundle
from rgsiam_ros.geometry.geodesy import Datum, LocalFrame
from rgsiam_ros.mapping.labels import read_labels

pytestmark = pytest.mark.ros

DATUM = {"latitude_deg": 48.0, "longitude_deg": 11.5, "ellipsoidal_height_m": 520.0}
NEAR = (153, 102, 55)  # blue, green, red: an image like one of the map
UNLIKE = (0, 255, 0)
SURE = np.log([0.05] * 3 + [0.01] * 3)
"""Logarithms of standard deviations so small that the gate notices a move of 0.8 m."""


@pytest.fixture
def peer(peer):
    peer.fixes = {}
    peer.create_subscription(
        NavSatFix, "relocalize/fix", lambda m: peer.fixes.update({key(m.header.stamp): m}), RELIABLE
    )
    peer.odometry = peer.create_publisher(Odometry, "odometry", RELIABLE)
    return peer


@pytest.fixture
def start(start):
    return lambda bundle, **parameters: start(bundle=bundle.path, **parameters)


def image(index, colour):
    return compressed_image(jpeg_bytes(flat_image(*colour), 100), index)


def status_and_pose(peer, index, colour, warm=NEAR):
    """Publish an image, and return its status and its pose or None.

    Before the first image, image 0 is sent until its pose comes. Then discovery is complete for all topics.
    """
    if not peer.warm:
        peer.send_and_wait(peer.compressed, image(0, warm))
    message = image(index, colour)
    status = peer.outcome(message)
    if status.level != DiagnosticStatus.OK:
        peer.expect_no_pose(message)
    return status, peer.poses.get(key(stamp(index)))


def test_a_lost_image_has_a_status_and_no_pose(peer, start, tmp_path):
    start(calibrated_bundle(tmp_path / "b"))
    status, pose = status_and_pose(peer, 1, NEAR)
    assert (status.level, status.message) == (DiagnosticStatus.OK, "pose published")
    assert pose is not None
    assert float(values(status)["trust"]) > 0.0
    assert status.hardware_id == "bundle small"
    status, pose = status_and_pose(peer, 2, UNLIKE)
    assert status.level == DiagnosticStatus.WARN
    assert status.message.startswith("lost: trust -")
    assert pose is None
    assert float(values(status)["feature_distance"]) > 0.5
    status, pose = status_and_pose(peer, 3, NEAR)
    assert pose is not None  # the next good image has a pose
    peer.diagnostics.clear()  # earlier ones do not count the lost image
    peer.wait_for_count("published", 2)
    assert int(peer.figures()["lost"]) >= 1
    assert int(peer.figures()["gated"]) == 0


def test_a_bundle_with_a_map_only_is_served(peer, start, small_map):
    """A held-out image gets its pose; noise gets none, and the reason."""
    start(small_map.bundle)
    held = read_labels([small_map.dataset]).held_out_N
    images = [
        image for image, out in zip(small_map.dataset.read_images(), held, strict=True) if out
    ]
    message = compressed_image(images[3].content, 1)
    pose, with_covariance = peer.send_and_wait(peer.compressed, message)
    where = pose.pose.position  # the mount has no length, so that the base is where the camera is
    error = np.array([where.x, where.y, where.z]) - small_map.T_map_camera_N44[3, :3, 3]
    assert np.linalg.norm(error) < 0.3
    assert 0.0 < np.trace(np.array(with_covariance.pose.covariance).reshape(6, 6)[:3, :3]) < 0.3**2
    status = peer.outcome(compressed_image(images[3].content, 2))
    assert int(values(status)["inliers"]) >= 30
    noise = np.random.default_rng(0).integers(0, 256, (180, 320, 3), np.uint8)
    message = compressed_image(jpeg_bytes(noise, 90), 3)
    status = peer.outcome(message)
    peer.expect_no_pose(message)
    assert status.level == DiagnosticStatus.WARN
    assert re.match(r"lost: (\d+ matches with the map agree, 30 are|no pose fits)", status.message)
    peer.send_and_wait(peer.compressed, compressed_image(images[4].content, 4))


def test_map_to_odom_does_not_change_while_lost(peer, start, tmp_path):
    """The pose then follows odometry. Only the status reports that the image is lost."""
    start(calibrated_bundle(tmp_path / "b"), tf_mode="map_to_odom")

    def sent():
        return [t for t in peer.transforms if t.child_frame_id == "odom"]

    status_and_pose(peer, 1, NEAR)

    def moved():
        for index in (0, 5):
            odometry = transform("odom", "base_link", xyz=(7.0, -3.0, 0.0), at=stamp(index))
            peer.moving.publish(TFMessage(transforms=[odometry]))
        return sent()

    peer.wait(moved, "map -> odom")
    held = sent()[-1].transform
    status, pose = status_and_pose(peer, 2, UNLIKE)
    assert pose is None
    assert status.message.startswith("lost")
    peer.transforms.clear()
    peer.wait(lambda: len(sent()) > 3, "map -> odom again and again")
    assert all(t.transform == held for t in sent())


def test_diagnostics_report_that_no_image_arrives(peer, start, tmp_path):
    start(calibrated_bundle(tmp_path / "b"), diagnostics_max_age=1.0)
    status_and_pose(peer, 1, NEAR)
    silent = peer.wait_for_diagnosis("no image on /image/compressed for")
    assert silent.level == DiagnosticStatus.ERROR


def test_a_frozen_camera_is_lost(peer, start, tmp_path):
    start(calibrated_bundle(tmp_path / "b"), frozen_images=3)
    for index in (1, 2):
        assert status_and_pose(peer, index, NEAR, warm=(150, 100, 60))[1] is not None
    for index in (3, 4):
        status, pose = status_and_pose(peer, index, NEAR)
        assert pose is None
        assert "repeats the same image" in status.message
    assert status_and_pose(peer, 5, (150, 100, 60))[1] is not None


def test_the_gate_by_speed_rejects_a_jump_and_recovers(peer, start, tmp_path):
    """Red moves the camera 10 m per unit: from 55 to 75 is 0.8 m in 0.1 s, not for a slow vehicle."""
    bundle = calibrated_bundle(tmp_path / "b", sigma_offset_6=SURE)
    start(bundle, gate="speed", gate_max_speed=0.5, gate_recover_after=3)
    assert status_and_pose(peer, 1, NEAR)[1] is not None
    for index in (2, 3):
        status, pose = status_and_pose(peer, index, (153, 102, 75))
        assert pose is None
        assert status.message.startswith("gated: squared Mahalanobis distance")
        assert values(status)["gate"] == "disagrees"
    status, pose = status_and_pose(peer, 4, (153, 102, 75))
    assert pose is not None
    assert values(status)["gate"] == "recovered"


def test_the_gate_by_odometry_accepts_a_jump_that_odometry_has(peer, start, tmp_path):
    bundle = calibrated_bundle(tmp_path / "b", sigma_offset_6=SURE)
    node = start(bundle, gate="odometry", gate_max_speed=0.5)
    along_x = enumerate((0.0, 0.0, 10.0 * 20 / 255, 10.0 * 20 / 255))
    publish_odometry(peer, node, [odometry_message(index, x) for index, x in along_x], "wheel")
    assert status_and_pose(peer, 1, NEAR)[1] is not None
    status, pose = status_and_pose(peer, 2, (153, 102, 75))
    assert pose is not None
    assert values(status)["gate"] == "agrees"


def publish_odometry(peer, node, messages, other):
    """Publish odometry, and then odometry of another frame. The warning about it shows that all was read."""
    warning = f"it is of {other}, not of"
    peer.wait_for_listener(peer.odometry)

    def publish():
        for message in (*messages, odometry_message(child=other)):
            peer.odometry.publish(message)
        peer.comes(lambda: warning in node.log, 1.0)

    node.wait_for_log(warning, publish)


def odometry_message(index=0, x=0.0, child="base_link", frame="odom"):
    message = Odometry(child_frame_id=child)
    message.header.stamp = stamp(index)
    message.header.frame_id = frame
    message.pose.pose.position.x = x
    message.pose.pose.orientation.w = 1.0
    return message


def test_unusable_odometry_is_named_and_ignored(peer, start, tmp_path):
    """If the node used it, the vehicle would stand still, and the gate would reject the move of 0.8 m."""
    bundle = calibrated_bundle(tmp_path / "b", sigma_offset_6=SURE)
    node = start(bundle, gate="odometry")
    speeds_only = odometry_message()
    for place in (0, 7, 35):
        speeds_only.pose.covariance[place] = 1e6
    unknown = odometry_message()
    unknown.pose.covariance[7] = float("nan")
    turned = odometry_message()
    turned.pose.pose.orientation.w = 0.5
    for message, warning in (
        (odometry_message(child="wheel"), "it is of wheel, not of base_link: remap odometry"),
        (
            speeds_only,
            r"its variances in x and y are 1e\+06 and 1e\+06 m.*has no pose: remap odometry",
        ),
        (unknown, "its variances in x and y are 0 and nan"),
        (turned, "a quaternion has norm 0.5.*correct what is published there"),
    ):
        node.wait_for_log(
            f"odometry ignored: /odometry: {warning}",
            lambda message=message: (peer.odometry.publish(message), peer.spin()),
        )
    speeds = [deepcopy(speeds_only) for _ in range(4)]
    for index, message in enumerate(speeds):
        message.header.stamp = stamp(index)
    publish_odometry(peer, node, speeds, "caster")
    assert status_and_pose(peer, 1, NEAR)[1] is not None
    assert status_and_pose(peer, 2, (153, 102, 75))[1] is not None
    peer.odometry.publish(odometry_message(4))
    node.wait_for_log(
        "odometry ignored: /odometry: it is in 'other', and was in 'odom': let one node publish",
        lambda: (peer.odometry.publish(odometry_message(5, frame="other")), peer.spin()),
    )


def test_the_fix_is_the_pose_in_geodetic_coordinates(peer, start, tmp_path):
    """The fix, converted to the local frame of the datum, is the position of the pose."""
    plain = calibrated_bundle(tmp_path / "plain")
    bundle = rewrite_bundle(plain, tmp_path / "with", {"datum": DATUM}, {})
    start(bundle, publish_fix=True)
    _, pose = status_and_pose(peer, 1, NEAR)
    peer.wait(lambda: key(stamp(1)) in peer.fixes, "the fix")
    fix = peer.fixes[key(stamp(1))]
    assert fix.header.frame_id == "base_link"
    place = LocalFrame(Datum(**DATUM)).from_geodetic([fix.latitude, fix.longitude, fix.altitude])
    p = pose.pose.position
    np.testing.assert_allclose(place, [p.x, p.y, p.z], atol=1e-4)
    covariance = np.array(peer.covariances[key(stamp(1))].pose.covariance).reshape(6, 6)
    np.testing.assert_array_equal(fix.position_covariance.reshape(3, 3), covariance[:3, :3])
    assert fix.position_covariance_type == NavSatFix.COVARIANCE_TYPE_KNOWN
    assert fix.status.status == 0


def test_no_fix_is_published_by_default(peer, start, tmp_path):
    plain = calibrated_bundle(tmp_path / "plain")
    start(rewrite_bundle(plain, tmp_path / "with", {"datum": DATUM}, {}))
    for index in range(1, 6):
        status_and_pose(peer, index, NEAR)
    assert peer.count_publishers("/relocalize/fix") == 0
    assert peer.fixes == {}


def test_a_fix_without_a_datum_and_equal_frames_are_refused(peer, start, tmp_path):
    bundle = calibrated_bundle(tmp_path / "b")
    node = start(bundle, publish_fix=True)
    node.wait_for_log("has no datum, so no fix can be published.*rgsiam georeference")
    node.stop()
    node = start(bundle, map_frame="base_link")
    node.wait_for_log("map_frame and base_frame are both base_link: name two frames")
    node.stop()
    node = start(bundle, tf_mode="map_to_odom", odom_frame="map")
    node.wait_for_log("odom_frame is map, which is also the map or the base")
    assert Bundle.load(bundle.path).manifest.datum is None


def test_a_pose_without_a_definite_covariance_is_not_published(peer, start, colour_bundle):
    """A lever arm of 10,000 km makes the covariance singular: rotation alone determines position."""
    identity = "[0.0, 0.0, 0.0, 1.0]"
    mount = {"mount_translation": "[1.0e10, 0.0, 0.0]", "mount_quaternion_xyzw": identity}
    start(Bundle.load(colour_bundle), camera_frame="elsewhere", **mount)
    message = peer.refusal(image(1, NEAR))
    assert message == "lost: at base_link, a pose covariance is not positive definite"
    assert peer.outcomes[key(stamp(1))].level == DiagnosticStatus.WARN


def test_an_uncalibrated_bundle_gives_a_warning(peer, start, colour_bundle):
    node = start(Bundle.load(colour_bundle))
    node.wait_for_log("not calibrated: its covariance is constant.*rgsiam calibrate")
    status, pose = status_and_pose(peer, 1, UNLIKE)
    assert pose is not None
    assert values(status)["trust"] == "not calibrated"
    found = peer.wait_for_diagnosis("not calibrated: its covariance is constant.*rgsiam calibrate")
    assert found.level == DiagnosticStatus.WARN
    assert node.log.count("is not calibrated") == 1
