"""The node from image to pose: frames, covariance, TF, camera, mount, parameters, lifecycle."""

import itertools
import signal

import numpy as np
import pytest
from support.bundles import ABSOLUTE_BIAS, edit_manifest, int8_parts
from support.images import flat_image, jpeg_bytes
from support.machine import int8_is_fast, without_tensorrt
from support.paths import TOWN_BUNDLE

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from support.ros_peer import camera_info, compressed_image, key, raw_image, stamp, transform
from support.ros_watcher import CAMERA, COLOUR, position
from support.waiting import PATIENCE_S
from tf2_msgs.msg import TFMessage

from rgsiam_ros.bundle import write_bundle

pytestmark = pytest.mark.ros

FORWARD = (-0.5, 0.5, -0.5, 0.5)  # optical axes of a camera that looks along x


@pytest.fixture
def start(start, peer):
    return mounted(start, peer)


@pytest.fixture
def start_process(start_process, peer):
    return mounted(start_process, peer)


def mounted(start, peer):
    """A function that starts the node with a mount on /tf_static. `mount=None`: without it."""

    def starter(*, mount=(1.5, 0.0, 2.0), **parameters):
        if mount is not None:
            # two static transforms, so that the chain has a link in the middle
            rig = transform("base_link", "rig", xyz=mount)
            camera = transform("rig", "camera_optical", xyzw=FORWARD)
            peer.static.publish(TFMessage(transforms=[rig, camera]))
        return start(mount=False, **parameters)

    return starter


def localize(peer, index, **frame):
    content = jpeg_bytes(flat_image(*COLOUR))
    return peer.send_and_wait(peer.compressed, compressed_image(content, index, **frame))


def covariance_of(message):
    return np.array(message.pose.covariance).reshape(6, 6)


def test_pose_of_the_base_in_the_map(peer, start):
    start()
    pose, with_covariance = localize(peer, 1)
    assert pose.header.frame_id == with_covariance.header.frame_id == "map"
    assert key(pose.header.stamp) == key(stamp(1))  # the image's own stamp
    # The camera stands at CAMERA with map axes; the base is 2 m "behind" in camera axes
    # (camera y down: base z -2 is camera y +2; camera z forward: base x -1.5 is camera z -1.5).
    expected = CAMERA + [0.0, 2.0, -1.5]
    np.testing.assert_allclose(position(pose), expected, atol=0.05)
    q = pose.pose.orientation
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [0.5, -0.5, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(position(with_covariance.pose), position(pose))
    covariance = covariance_of(with_covariance)
    np.testing.assert_allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0.0
    # lever arm (0, 2, -1.5): var y grows by (1.5 * 0.02)^2 about x, var z by (2 * 0.02)^2
    np.testing.assert_allclose(
        np.diag(covariance)[:3], np.array([0.01] * 3) + 0.0004 * np.array([6.25, 2.25, 4.0])
    )
    assert covariance[0, 4] == pytest.approx(-1.5 * 0.0004)


def test_stamps_move_only_if_the_parameter_says_so(peer, start, small_bundle):
    def change(manifest):
        manifest["absolute"]["time_offset_s"] = 0.075

    edit_manifest(small_bundle, change)
    node = start()
    pose, _ = localize(peer, 1)
    assert key(pose.header.stamp) == key(stamp(1))
    node.wait_for_log("its labels were moved by time_offset_s 0.075; .* time_offset, 0")


def test_the_stamp_of_a_pose_is_moved_by_the_parameter(peer, start):
    start(time_offset=0.2)
    image = compressed_image(jpeg_bytes(flat_image(*COLOUR)), 5)
    shown = key(stamp(3))  # 0.2 s before

    def arrived():
        return shown in peer.poses and shown in peer.covariances

    peer.send_until(peer.compressed, image, arrived, "a pose")
    assert key(stamp(5)) not in peer.poses


def test_planar_covariance_decouples_the_plane(peer, start):
    """The lever arm (0, 2, -1.5) couples x, y and yaw (the plane) with z, roll and pitch."""
    start(planar_covariance=True)
    _, message = localize(peer, 1)
    r = np.array([0.0, 2.0, -1.5])
    J = np.eye(6)
    J[:3, 3:] = np.cross(np.eye(3), r).T  # a small rotation d moves the base by d x r
    whole = J @ np.diag([0.01] * 3 + [0.0004] * 3) @ J.T
    plane, rest = [0, 1, 5], [2, 3, 4]
    assert np.abs(whole[np.ix_(plane, rest)]).max() > 1e-4
    expected = whole.copy()
    expected[np.ix_(plane, rest)] = expected[np.ix_(rest, plane)] = 0.0
    np.testing.assert_allclose(covariance_of(message), expected, atol=1e-9)


@pytest.mark.slow
def test_a_process_takes_raw_images_and_ends_on_both_signals(peer, start_process):
    image = flat_image(*COLOUR)
    for how in (signal.SIGINT, signal.SIGTERM):
        node = start_process(image_transport="raw")
        index = 10 + how
        pose, _ = peer.send_and_wait(peer.image, raw_image(image, index))
        np.testing.assert_allclose(position(pose)[0], CAMERA[0], atol=1e-4)
        assert node.stop(how) == 0, node.log
        assert "Traceback" not in node.log


def test_a_missing_mount_is_named_and_may_come_later(peer, start):
    node = start(mount=None)
    image = compressed_image(jpeg_bytes(flat_image(*COLOUR)), 1)
    assert "the camera's mount is unknown" in peer.refusal(image)
    node.wait_for_log(
        r"no pose .*mount is unknown .*publish base_link -> camera_optical on /tf_static, "
        r"or set mount_translation and mount_quaternion_xyzw"
    )
    late = transform("base_link", "camera_optical", xyz=(1.0, 0.0, 0.0), xyzw=FORWARD)
    peer.static.publish(TFMessage(transforms=[late]))
    localize(peer, 2)


def test_the_mount_can_be_set_by_parameters(peer, start):
    start(
        mount=None,
        mount_translation="[1.5, 0.0, 2.0]",
        mount_quaternion_xyzw="[-0.5, 0.5, -0.5, 0.5]",
    )
    pose, _ = localize(peer, 1)
    np.testing.assert_allclose(position(pose), CAMERA + [0, 2.0, -1.5], atol=0.05)


def test_the_node_continues_after_bad_images(peer, start):
    node = start()
    localize(peer, 99)
    whole = jpeg_bytes(flat_image(*COLOUR))
    for index, (content, message) in enumerate(
        [(whole[:200], "truncated"), (b"", "empty"), (b"GIF89a", "neither JPEG nor PNG")]
    ):
        assert message in peer.refusal(compressed_image(content, index))
        node.wait_for_log(f"no pose .*{message}")
        localize(peer, 100 + index)
    assert "Traceback" not in node.log


def test_the_node_continues_after_a_wrong_raw_encoding(peer, start):
    node = start(image_transport="raw")
    image = flat_image(*COLOUR)
    peer.send_and_wait(peer.image, raw_image(image, 0))
    odd = raw_image(image, 1, encoding="32FC1")
    assert "encoding '32FC1' is not supported" in peer.refusal(odd, peer.image)
    node.wait_for_log("no pose for an image on /image .*encoding '32FC1' is not supported: publish")
    peer.send_and_wait(peer.image, raw_image(image, 2))
    rgb = raw_image(np.ascontiguousarray(image[..., ::-1]), 3, encoding="rgb8")
    pose, _ = peer.send_and_wait(peer.image, rgb)
    np.testing.assert_allclose(position(pose)[0], CAMERA[0], atol=1e-4)


def test_images_of_a_wider_camera_are_cropped_with_one_warning(peer, start):
    node = start()
    content = jpeg_bytes(flat_image(*COLOUR, width=256, height=192))

    def send():  # the first camera_info may come before the node has found this publisher
        peer.info.publish(camera_info(256, 192, 150.0))  # the bundle's: 128x96, focal 100
        peer.send_and_wait(peer.compressed, compressed_image(content, 1))
        peer.poses.clear()

    node.wait_for_log(r"differs from the bundle's .*fx 150.0.*fx 100.0.*cropped to 192x144", send)
    for _ in range(5):
        send()
    assert node.log.count("differs from the bundle's") == 1


def test_a_camera_that_cannot_be_reconciled_is_an_error(peer, start):
    node = start()
    localize(peer, 1)
    stamps = itertools.count(2)

    def outcome(focal):
        peer.info.publish(camera_info(128, 96, focal))
        return peer.outcome(peer.picture(next(stamps)))

    node.wait_for_log(
        r"\[ERROR\].*cannot be reconciled.*does not contain the view", lambda: outcome(400.0)
    )
    assert "cannot be reconciled" in peer.refusal(peer.picture(next(stamps)))
    peer.wait(lambda: outcome(100.0).level == DiagnosticStatus.OK, "a pose with the right camera")


def test_the_branch_can_be_set_by_a_parameter(start, small_bundle):
    for branch, in_use in (("auto", "refined"), ("absolute", "absolute")):
        node = start(bundle=TOWN_BUNDLE, branch=branch)
        node.wait_for_log(f"{in_use} branch")
        node.stop()
    impossible = start(bundle=small_bundle, branch="refined")
    impossible.wait_for_log(r"cannot configure: .*has no geometric branch: set branch to")


@without_tensorrt
def test_a_missing_engine_falls_back_with_a_warning(peer, start, int8_bundle, tmp_path):
    int8_node = start(bundle=int8_bundle, engine="onnxruntime", precision="int8")
    localize(peer, 1)
    int8_node.wait_for_log(r"self-test passed: 10 cm and \S+ \w+ from the expected poses")
    int8_node.wait_for_log(r"engine onnxruntime \S+ int8 on cpu")
    int8_node.stop()
    settings = {"bundle": int8_bundle, "engine": "tensorrt", "engine_cache": tmp_path / "cache"}
    fallback = start(**settings)
    localize(peer, 2)
    fallback.wait_for_log(
        r"WARN.*falling back to engine \w+ \w+: tensorrt float32: TensorRT is not"
    )
    fallback.stop()
    refused = start(**settings, engine_fallback="none")
    refused.wait_for_log(
        r"cannot configure: no engine serves .*tensorrt float32: TensorRT is not in"
    )
    assert not (tmp_path / "cache").exists()  # nothing is built at start


def test_a_network_that_fails_its_self_test_is_replaced_by_the_next(peer, start, tmp_path):
    if not int8_is_fast():
        pytest.skip("`auto` does not try int8 on this CPU")
    text, contents = int8_parts(int8_bias=ABSOLUTE_BIAS + 0.05)
    bundle = write_bundle(tmp_path / "broken", text, contents).path
    node = start(bundle=bundle, engine="onnxruntime")
    localize(peer, 1)
    node.wait_for_log(
        r"WARN.*not used: onnxruntime int8: failed the self-test: position is off by 50 cm"
    )
    node.wait_for_log(r"engine onnxruntime \S+ float32 on cpu")


def test_poses_are_published_only_in_the_active_state(peer, start, small_bundle):
    node = start(autostart=False)
    assert peer.state() == "unconfigured"
    for cycle in range(3):
        assert peer.change_state(Transition.TRANSITION_CONFIGURE)
        assert peer.state() == "inactive"
        peer.send_ignored(peer.compressed, peer.picture(10 * cycle))
        assert peer.change_state(Transition.TRANSITION_ACTIVATE)
        localize(peer, 10 * cycle + 1)
        assert peer.change_state(Transition.TRANSITION_DEACTIVATE)
        assert peer.change_state(Transition.TRANSITION_CLEANUP)
        assert peer.state() == "unconfigured"
    assert "Traceback" not in node.log


def test_a_damaged_bundle_fails_to_configure_until_it_is_repaired(peer, start, small_bundle):
    content = (small_bundle / "absolute.onnx").read_bytes()
    (small_bundle / "absolute.onnx").write_bytes(content[:-1] + b"!")
    node = start()
    node.wait_for_log(r"cannot configure: .*absolute.onnx has changed: its SHA-256")
    assert peer.state() == "unconfigured"
    (small_bundle / "absolute.onnx").write_bytes(content)
    assert peer.change_state(Transition.TRANSITION_CONFIGURE)
    assert peer.change_state(Transition.TRANSITION_ACTIVATE)
    localize(peer, 1)


INVALID = (
    ("tf_mode", "sideways", "must be one of none, map_to_base, map_to_odom, not 'sideways'"),
    ("transform_tolerance", -1.0, "transform_tolerance"),
    ("mount_quaternion_xyzw", [0.0, 0.0, 0.0, 2.0], "norm 2.0000, not 1"),
    ("mount_translation", [1.0], "needs 3 numbers, not 1"),
    (
        "precision",
        "int4",
        "must be one of auto, float32, bfloat16, float16, int8, int8_symmetric",
    ),
    ("engine_fallback", "maybe", "must be one of auto, none, not 'maybe'"),
    ("gate_recover_after", 1, "gate_recover_after"),
    ("branch", "best", "must be one of auto, absolute, refined, not 'best'"),
    ("engine", 3, "expected 'Type.STRING' got 'Type.INTEGER'"),
)


def test_invalid_parameters_are_refused_with_a_reason(peer, start):
    start(autostart=False)
    for name, value, reason in INVALID:
        result = peer.set_parameter(name, value)
        assert not result.successful, name
        assert reason in result.reason


def test_only_some_parameters_can_change_in_the_active_state(peer, start):
    start()
    localize(peer, 1)
    assert peer.set_parameter("transform_tolerance", 0.5).successful
    refused = peer.set_parameter("base_frame", "chassis")
    assert not refused.successful
    assert "deactivate and clean up first" in refused.reason
    localize(peer, 2)


def test_an_invalid_parameter_at_the_start_ends_the_process(start_process):
    node = start_process(tf_mode="sideways")
    assert node.process.wait(PATIENCE_S) == 2
    assert "must be one of none, map_to_base, map_to_odom" in node.log
    assert "Traceback" not in node.log


def test_map_to_base_is_the_pose_of_the_base(peer, start):
    node = start(tf_mode="map_to_base")
    pose, _ = localize(peer, 1)
    peer.wait(lambda: peer.transforms, "a transform")
    found = peer.transforms[0]
    assert (found.header.frame_id, found.child_frame_id) == ("map", "base_link")
    assert key(found.header.stamp) == key(stamp(1))
    t = found.transform.translation
    np.testing.assert_allclose([t.x, t.y, t.z], position(pose))
    assert "another node" not in node.log


def test_map_to_odom_composed_with_odometry_is_the_pose(peer, start):
    node = start(tf_mode="map_to_odom", tf_rebroadcast_rate=50.0)

    def of_odom():
        return [t for t in peer.transforms if t.child_frame_id == "odom"]

    peer.wait(lambda: peer.count_publishers("/tf") == 2, "the node's /tf")
    localize(peer, 1)
    peer.spin(0.3)  # several times the period of the rebroadcast
    assert not of_odom()  # no odometry yet

    def moved():
        for index in (0, 2):
            odometry = transform("odom", "base_link", xyz=(7.0 + index, -3.0, 0.0), at=stamp(index))
            peer.moving.publish(TFMessage(transforms=[odometry]))
        return of_odom()

    peer.wait(moved, "map -> odom")
    p = position(peer.poses[key(stamp(1))])
    sent = of_odom()[-1]
    assert sent.header.frame_id == "map"
    # odometry at the image's stamp is half way: x = 8; map_odom = map_base * inverse(odom_base)
    q, t = sent.transform.rotation, sent.transform.translation
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [0.5, -0.5, 0.5, 0.5], atol=1e-6)
    turned = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]]) @ [8.0, -3.0, 0.0]
    np.testing.assert_allclose([t.x, t.y, t.z], p - turned, atol=1e-6)
    count = len(of_odom())
    peer.wait(lambda: len(of_odom()) > count + 10, "map -> odom again and again")
    at_s = [t.header.stamp.sec + t.header.stamp.nanosec * 1e-9 for t in of_odom()[count:]]
    assert np.diff(at_s).min() < 0.1  # the rate is 20 Hz, but a busy machine delays some
    assert "another node" not in node.log


def test_a_second_broadcaster_of_the_frame_is_an_error(peer, start):
    node = start(tf_mode="map_to_base")
    localize(peer, 1)
    other = TFMessage(transforms=[transform("odom", "base_link", at=stamp(3))])
    node.wait_for_log(
        r"\[ERROR\].*another node broadcasts odom -> base_link",
        lambda: (peer.moving.publish(other), peer.spin()),
    )


def test_qos_overrides_are_allowed(peer, start):
    name = "qos_overrides./relocalize/pose.publisher.reliability"
    start(**{name: "best_effort"})

    def reliability(topic):
        infos = peer.get_publishers_info_by_topic(f"/relocalize/{topic}")
        return [info.qos_profile.reliability.name for info in infos]

    for topic, expected in (("pose", "BEST_EFFORT"), ("pose_with_covariance", "RELIABLE")):
        peer.wait(lambda topic=topic: reliability(topic), f"the publisher of {topic}")
        assert reliability(topic) == [expected]


def test_lost_images_are_noticed_by_their_stamps(peer, start):
    node = start()
    localize(peer, 0)
    random = np.random.default_rng(0)
    stamps = iter(np.flatnonzero(random.random(4000) < 0.3)[1:])

    def send():
        peer.outcome(peer.picture(int(next(stamps))))

    node.wait_for_log(r"only about \d+% of the images arrive.*fastdds_large_images.xml", send)
