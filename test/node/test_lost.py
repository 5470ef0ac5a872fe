"""Silence when lost, the gate over time, the fix, and what the node says of itself."""

import itertools

import numpy as np
import pytest
from support.images import flat_image, jpeg_bytes

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import Odometry
from sensor_msgs.msg import NavSatFix
from support.calibrations import calibrated_bundle
from support.ros_peer import (
    RELIABLE,
    NodeProcess,
    compressed_image,
    in_domain,
    key,
    stamp,
    transform,
)
from tf2_msgs.msg import TFMessage

from rgsiam_ros.bundle import Bundle, rewrite_bundle
from rgsiam_ros.geometry.geodesy import Datum, LocalFrame

DOMAINS = itertools.cycle(range(102, 130))
DATUM = {"latitude_deg": 48.0, "longitude_deg": 11.5, "ellipsoidal_height_m": 520.0}
NEAR = (153, 102, 55)  # blue, green, red: an image like one of the map
UNLIKE = (0, 255, 0)


@pytest.fixture
def peer(monkeypatch):
    with in_domain(next(DOMAINS), monkeypatch) as node:
        node.warm = False
        node.statuses, node.diagnostics, node.fixes = {}, [], {}
        node.create_subscription(
            DiagnosticStatus, "relocalize/status", lambda m: take(node, m), RELIABLE
        )
        node.create_subscription(DiagnosticArray, "/diagnostics", node.diagnostics.append, RELIABLE)
        node.create_subscription(
            NavSatFix,
            "relocalize/fix",
            lambda m: node.fixes.update({key(m.header.stamp): m}),
            RELIABLE,
        )
        node.odometry = node.create_publisher(Odometry, "odometry", RELIABLE)
        yield node


@pytest.fixture
def start(peer, tmp_path):
    running = []
    peer.static.publish(TFMessage(transforms=[transform("base_link", "camera_optical")]))

    def starter(bundle, **parameters):
        given = {"bundle": bundle.path, "autostart": True, "image_transport": "compressed"}
        given["frozen_images"] = 0
        node = NodeProcess(tmp_path / f"node{len(running)}.log", **{**given, **parameters})
        running.append(node)
        return node

    yield starter
    for node in running:
        node.stop()


def values(status):
    return {item.key: item.value for item in status.values}


def take(node, status):
    if "stamp" not in values(status):
        return  # of the node's state, not of an image
    seconds, nanoseconds = values(status)["stamp"].split(".")
    node.statuses[int(seconds), int(nanoseconds)] = status


def ask(peer, index, colour, warm=NEAR):
    """The status and pose of an image, sent until it is there.

    Before the first one, image 0 is sent until its pose comes: then every topic has found its reader.
    """
    if not peer.warm:
        peer.warm = True
        peer.send_and_wait(peer.compressed, compressed_image(jpeg_bytes(flat_image(*warm), 100), 0))
    message = compressed_image(jpeg_bytes(flat_image(*colour), 100), index)
    wanted = key(stamp(index))
    peer.wait_for_listener(peer.compressed)

    def there():
        if wanted not in peer.statuses:
            peer.compressed.publish(message)
            peer.spin(0.3)
        return wanted in peer.statuses

    peer.wait(there, "a status")
    if peer.statuses[wanted].level == DiagnosticStatus.OK:
        peer.wait(lambda: wanted in peer.poses and wanted in peer.covariances, "the pose")
    else:
        peer.spin(0.3)  # a pose, if there were one, would have come with it
    return peer.statuses[wanted], peer.poses.get(wanted)


def test_silence_when_lost_and_a_status_for_each_image(peer, start, tmp_path):
    start(calibrated_bundle(tmp_path / "b"))
    status, pose = ask(peer, 1, NEAR)
    assert (status.level, status.message) == (DiagnosticStatus.OK, "pose published")
    assert pose is not None
    assert float(values(status)["trust"]) > 0.0
    assert status.hardware_id == "bundle small"
    status, pose = ask(peer, 2, UNLIKE)
    assert status.level == DiagnosticStatus.WARN
    assert status.message.startswith("lost: trust -")
    assert pose is None
    assert key(stamp(2)) not in peer.covariances
    assert float(values(status)["feature_distance"]) > 0.5
    status, pose = ask(peer, 3, NEAR)
    assert pose is not None  # it comes back by itself
    peer.diagnostics.clear()  # those of before know nothing of the lost one
    peer.wait(
        lambda: any(int(values(a.status[0]).get("published", 0)) >= 2 for a in peer.diagnostics),
        "diagnostics",
    )
    last = values(peer.diagnostics[-1].status[0])
    assert int(last["lost"]) >= 1
    assert int(last["gated"]) == 0


def test_map_to_odom_is_held_while_lost(peer, start, tmp_path):
    """The vehicle goes on by odometry; only the status tells."""
    start(calibrated_bundle(tmp_path / "b"), tf_mode="map_to_odom")

    def sent():
        return [t for t in peer.transforms if t.child_frame_id == "odom"]

    ask(peer, 1, NEAR)
    for index in (0, 5):
        odometry = transform("odom", "base_link", xyz=(7.0, -3.0, 0.0), at=stamp(index))
        peer.moving.publish(TFMessage(transforms=[odometry]))
    peer.wait(sent, "map -> odom")
    held = sent()[-1].transform
    status, pose = ask(peer, 2, UNLIKE)
    assert pose is None
    assert status.message.startswith("lost")
    peer.transforms.clear()
    peer.wait(lambda: len(sent()) > 3, "map -> odom again and again")
    assert all(t.transform == held for t in sent())


def test_diagnostics_say_when_no_image_comes(peer, start, tmp_path):
    start(calibrated_bundle(tmp_path / "b"))
    ask(peer, 1, NEAR)
    peer.diagnostics.clear()
    peer.wait(
        lambda: any(
            "no image on /image/compressed for" in a.status[0].message for a in peer.diagnostics
        ),
        "a complaint",
    )
    assert peer.diagnostics[-1].status[0].level == DiagnosticStatus.ERROR


def test_a_frozen_camera_is_lost(peer, start, tmp_path):
    start(calibrated_bundle(tmp_path / "b"), frozen_images=3)
    for index in (1, 2, 3):
        ask(peer, index, NEAR, warm=(150, 100, 60))
    status, pose = ask(peer, 4, NEAR)
    assert pose is None
    assert "repeats the same image" in status.message
    assert ask(peer, 5, (150, 100, 60))[1] is not None


def test_the_gate_by_speed_holds_back_a_jump_and_recovers(peer, start, tmp_path):
    """Red moves the camera 10 m per unit: from 55 to 75 is 0.8 m in 0.1 s, not for a slow vehicle."""
    bundle = calibrated_bundle(
        tmp_path / "b", refined_sigma_offset_6=np.log([0.05] * 3 + [0.01] * 3)
    )
    start(bundle, gate="speed", gate_max_speed=0.5, gate_recover_after=3)
    assert ask(peer, 1, NEAR)[1] is not None
    for index in (2, 3):
        status, pose = ask(peer, index, (153, 102, 75))
        assert pose is None
        assert status.message.startswith("gated: squared Mahalanobis distance")
        assert values(status)["gate"] == "disagrees"
    status, pose = ask(peer, 4, (153, 102, 75))
    assert pose is not None
    assert values(status)["gate"] == "recovered"


def test_the_gate_by_odometry_lets_the_same_jump_pass(peer, start, tmp_path):
    bundle = calibrated_bundle(
        tmp_path / "b", refined_sigma_offset_6=np.log([0.05] * 3 + [0.01] * 3)
    )
    node = start(bundle, gate="odometry", gate_max_speed=0.5)
    broken = Odometry()  # no rotation at all: the node's complaint tells that it listens
    broken.header.stamp = stamp(4)
    broken.pose.pose.orientation.w = 0.0

    def complain():
        peer.odometry.publish(broken)
        peer.spin(0.3)

    node.wait_for_log("odometry ignored", complain)
    for index, x in ((0, 0.0), (1, 0.0), (2, 10.0 * 20 / 255), (3, 10.0 * 20 / 255)):
        peer.odometry.publish(odometry_message(index, x))
    peer.spin(0.5)
    assert ask(peer, 1, NEAR)[1] is not None
    status, pose = ask(peer, 2, (153, 102, 75))
    assert pose is not None
    assert values(status)["gate"] == "agrees"


def odometry_message(index=0, x=0.0, child="base_link", frame="odom"):
    message = Odometry(child_frame_id=child)
    message.header.stamp = stamp(index)
    message.header.frame_id = frame
    message.pose.pose.position.x = x
    message.pose.pose.orientation.w = 1.0
    return message


def test_odometry_that_is_none_is_named_and_not_used(peer, start, tmp_path):
    """Had it been used, the vehicle would stand still by it and the move of 0.8 m be gated."""
    bundle = calibrated_bundle(
        tmp_path / "b", refined_sigma_offset_6=np.log([0.05] * 3 + [0.01] * 3)
    )
    node = start(bundle, gate="odometry")
    speeds_only = odometry_message()
    for place in (0, 7, 35):
        speeds_only.pose.covariance[place] = 1e6
    unknown = odometry_message()
    unknown.pose.covariance[7] = float("nan")
    turned = odometry_message()
    turned.pose.pose.orientation.w = 0.5
    for message, complaint in (
        (odometry_message(child="wheel"), "it is of wheel, not of base_link: remap odometry"),
        (
            speeds_only,
            r"its variances in x and y are 1e\+06 and 1e\+06 m.*has no pose: remap odometry",
        ),
        (unknown, "its variances in x and y are 0 and nan"),
        (turned, "a quaternion has norm 0.5.*correct what is published there"),
    ):
        node.wait_for_log(
            f"odometry ignored: /odometry: {complaint}",
            lambda message=message: (peer.odometry.publish(message), peer.spin(0.3)),
        )
    for index in range(4):
        speeds_only.header.stamp = stamp(index)
        peer.odometry.publish(speeds_only)
    peer.spin(0.5)
    assert ask(peer, 1, NEAR)[1] is not None
    assert ask(peer, 2, (153, 102, 75))[1] is not None
    peer.odometry.publish(odometry_message(4))
    node.wait_for_log(
        "odometry ignored: /odometry: it is in 'other', and was in 'odom': let one node publish",
        lambda: (peer.odometry.publish(odometry_message(5, frame="other")), peer.spin(0.3)),
    )


def test_the_fix_is_where_the_pose_is(peer, start, tmp_path):
    """A known offset from the datum, by our own road to the ellipsoid and back."""
    plain = calibrated_bundle(tmp_path / "plain")
    bundle = rewrite_bundle(plain, tmp_path / "with", {"datum": DATUM}, {})
    start(bundle, publish_fix=True)
    _, pose = ask(peer, 1, NEAR)
    fix = peer.fixes[key(stamp(1))]
    assert fix.header.frame_id == "base_link"
    place = LocalFrame(Datum(**DATUM)).from_geodetic([fix.latitude, fix.longitude, fix.altitude])
    p = pose.pose.position
    np.testing.assert_allclose(place, [p.x, p.y, p.z], atol=1e-4)
    covariance = np.array(peer.covariances[key(stamp(1))].pose.covariance).reshape(6, 6)
    np.testing.assert_array_equal(fix.position_covariance.reshape(3, 3), covariance[:3, :3])
    assert fix.position_covariance_type == NavSatFix.COVARIANCE_TYPE_KNOWN
    assert fix.status.status == 0


def test_without_being_asked_there_is_no_fix(peer, start, tmp_path):
    plain = calibrated_bundle(tmp_path / "plain")
    start(rewrite_bundle(plain, tmp_path / "with", {"datum": DATUM}, {}))
    ask(peer, 1, NEAR)
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


def test_a_covariance_that_is_not_positive_definite_is_not_published(peer, start, refinable_bundle):
    """A lever arm of 10,000 km makes position and rotation one and the same."""
    identity = "[0.0, 0.0, 0.0, 1.0]"
    mount = {"mount_translation": "[1.0e10, 0.0, 0.0]", "mount_quaternion_xyzw": identity}
    start(Bundle.load(refinable_bundle), camera_frame="elsewhere", **mount)
    peer.warm = True
    status, pose = ask(peer, 1, NEAR)
    assert pose is None
    assert key(stamp(1)) not in peer.covariances
    assert status.level == DiagnosticStatus.WARN
    assert status.message == "lost: at base_link, a pose covariance is not positive definite"


def test_an_uncalibrated_bundle_is_warned_of(peer, start, refinable_bundle):
    node = start(Bundle.load(refinable_bundle))
    node.wait_for_log("not calibrated: its covariance is constant.*rgsiam calibrate")
    status, pose = ask(peer, 1, UNLIKE)
    assert pose is not None
    assert values(status)["trust"] == "not calibrated"
