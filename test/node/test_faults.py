"""Faults of a vehicle. The node names and counts the cause of each, and recovers from it."""

import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from support.bundles import edit_manifest
from support.images import flat_image
from support.paths import TOWN_BUNDLE

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from support.ros_peer import RELIABLE, camera_info, raw_image, transform
from support.ros_watcher import CAMERA, COLOUR
from tf2_msgs.msg import TFMessage

pytestmark = pytest.mark.ros

CYCLES = int(os.environ.get("RGSIAM_LIFECYCLE_CYCLES", "40"))
WARM_CYCLES = 10
LARGEST_GROWTH_KIB = 8 * 1024


def test_8k_images_give_poses_and_larger_ones_are_refused(peer, start):
    node = start()
    peer.localize(1)
    np.testing.assert_allclose(peer.localize(2, width=7680, height=4320), CAMERA, atol=0.1)
    bomb = peer.picture(3)
    frame = bytes(bomb.data).find(b"\xff\xc0")
    bomb.data[frame + 5 : frame + 9] = type(bomb.data)("B", (60_000).to_bytes(2, "big") * 2)
    assert "60000x60000 pixels is larger than" in peer.refusal(bomb)
    node.wait_for_log("no pose .*60000x60000 pixels is larger than", peer.spin)
    peer.wait_for_count("rejected_image_too_large")
    np.testing.assert_allclose(peer.localize(4), CAMERA, atol=0.1)


def test_encodings_and_sizes_may_change_in_the_stream(peer, start):
    node = start(image_transport="raw")
    tile = np.array([[COLOUR[2], COLOUR[1]], [COLOUR[1], COLOUR[0]]], np.uint8)  # rggb
    for index, (width, height) in enumerate([(128, 96), (640, 480), (64, 48), (128, 96)]):
        pose, _ = peer.send_and_wait(
            peer.image, raw_image(flat_image(*COLOUR, width=width, height=height), 10 + index)
        )
        mosaic = raw_image(np.tile(tile, (height // 2, width // 2)), 20 + index, "bayer_rggb8")
        from_mosaic, _ = peer.send_and_wait(peer.image, mosaic)
        for message in (pose, from_mosaic):
            assert message.pose.position.x == pytest.approx(CAMERA[0], abs=0.1)
    empty = raw_image(np.zeros((0, 0, 3), np.uint8), 30)
    short = raw_image(flat_image(*COLOUR), 31)
    short.data = short.data[:-500]
    odd = raw_image(flat_image(*COLOUR), 32, "64FC3")
    causes = {"empty": empty, "truncated": short, "encoding": odd}
    for message in causes.values():
        peer.refusal(message, peer.image)
    for cause in causes:
        peer.wait_for_count(f"rejected_image_{cause}")
    peer.send_and_wait(peer.image, raw_image(flat_image(*COLOUR), 33))
    assert "Traceback" not in node.log


def test_a_silent_camera_is_an_error_until_it_sends_again(peer, start):
    start(diagnostics_max_age=1.0)
    peer.localize(1)
    silent = peer.wait_for_status("no image on /image/compressed for")
    assert silent.level == DiagnosticStatus.ERROR
    peer.statuses.clear()
    peer.localize(2)
    assert peer.wait_for_status("pose published").level == DiagnosticStatus.OK


def test_stamps_at_zero_backwards_and_in_the_future_are_reported(peer, start):
    node = start(gate="speed")
    peer.localize(50)
    unstamped = peer.picture(0)
    unstamped.header.stamp = Time()
    assert peer.refusal(unstamped).startswith("the image's stamp is zero: let the camera driver")
    node.wait_for_log("no pose .*the image's stamp is zero: let the camera driver stamp", peer.spin)
    np.testing.assert_allclose(peer.localize(10), CAMERA, atol=0.1)  # as in a looped bag
    node.wait_for_log("stamps went back by 4.000 s .*a looped bag", peer.spin)
    ahead = peer.picture(0)
    ahead.header.stamp = Time(sec=int(time.time()) + 3600)
    peer.send_and_wait(peer.compressed, ahead)
    node.wait_for_log("stamps are .* s in the future: synchronise", peer.spin)
    for cause in ("rejected_stamp", "stamp_backwards", "stamp_future"):
        peer.wait_for_count(cause)
    np.testing.assert_allclose(peer.localize(51), CAMERA, atol=0.1)


NO_TIMES = [
    {"sec": 1_700_000_000, "nanosec": 1_000_000_000},
    {"sec": 1_700_000_000, "nanosec": 2**32 - 1},
    {"sec": 2**31 - 1},
    {"sec": 2**31 - 1, "nanosec": 999_999_999},
    {"sec": -1},
    {"sec": -(2**31), "nanosec": 2**32 - 1},
]


def test_stamps_that_are_no_times_are_refused_and_never_changed(peer, start):
    node = start(gate="speed", tf_mode="map_to_base")
    peer.localize(1)
    for number, fields in enumerate(NO_TIMES):
        image = peer.picture(0)
        image.header.stamp = Time(**fields)
        peer.expect_no_pose(image)
        peer.compressed.publish(image)
        peer.wait_for_count("rejected_stamp", number + 1)
        broken = transform("base_link", "camera_optical", xyz=(9.0, 0.0, 0.0), at=Time(**fields))
        peer.static.publish(TFMessage(transforms=[broken]))
    node.wait_for_log("the stamp of 1700000000 s and 1000000000 ns is not a time", peer.spin)
    node.wait_for_log("TF base_link -> camera_optical ignored: the stamp of", peer.spin)
    poses = len(peer.poses)
    np.testing.assert_allclose(peer.localize(2), CAMERA, atol=0.1)
    assert len(peer.poses) == poses + 1
    assert "Traceback" not in node.log


def test_hostile_frames_break_neither_the_mount_nor_the_log(peer, start):
    node = start()
    peer.localize(1)
    flood = [transform("root", f"frame{number}") for number in range(10_000)]
    loops = [("camera_optical", "camera_optical"), ("camera_optical", "base_link"), ("", "")]
    for publisher in (peer.static, peer.moving):
        publisher.publish(TFMessage(transforms=[transform(*names) for names in loops]))
        publisher.publish(TFMessage(transforms=flood))
    node.wait_for_log("TF .* ignored: a frame would be above itself", peer.spin)
    np.testing.assert_allclose(peer.localize(2), CAMERA, atol=0.1)
    for number in range(30):  # each with another name of its camera
        strange = peer.picture(10 + number)
        strange.header.frame_id = f"camera{chr(97 + number)}" * 500
        peer.refusal(strange)
    peer.wait_for_count("rejected_mount", 30)
    np.testing.assert_allclose(peer.localize(3), CAMERA, atol=0.1)
    assert node.log.count("the camera's mount is unknown") <= 10
    assert max(len(line) for line in node.log.splitlines()) < 1500


@pytest.mark.parametrize(("focal", "message"), [(1e-300, "fx: "), (1.0, "only 2x0 pixels")])
def test_a_camera_info_of_no_focal_length_is_refused(peer, start, focal, message):
    node = start()
    peer.localize(1)
    stamps = itertools.count(2)

    def send():
        peer.info.publish(camera_info(128, 96, focal))
        peer.compressed.publish(peer.picture(next(stamps)))
        peer.spin()

    node.wait_for_log(rf"\[(WARN|ERROR)\].*{message}", send)
    peer.info.publish(camera_info(128, 96, 100.0))

    def has_pose():
        return peer.outcome(peer.picture(next(stamps))).message == "pose published"

    peer.wait(has_pose, "a pose with the right camera_info")
    assert "Traceback" not in node.log


def test_16_bit_images_are_scaled_as_the_bundle_says(peer, start, small_bundle):
    """A camera of 12 bits. The bundle's network gives the mean colour."""

    def set_levels(data):
        data["absolute"]["preprocessing"]["levels"] = [0, 4095]

    edit_manifest(small_bundle, set_levels)
    node = start(image_transport="raw")
    wide = np.rint(flat_image(*COLOUR).astype(np.float64) * (4095 / 255)).astype("<u2")
    image = raw_image(wide, 1, "bgr16")
    image.step *= 2
    pose, _ = peer.send_and_wait(peer.image, image)
    assert pose.pose.position.x == pytest.approx(CAMERA[0], abs=0.1)
    peer.wait_for_count("no_contrast")
    node.wait_for_log("an image has hardly any contrast: check exposure", peer.spin)


def test_poses_continue_after_a_simulation_is_reset(peer, start):
    """After /clock jumps back, poses, map -> odom and diagnostics are still published."""
    clock = peer.create_publisher(Clock, "/clock", RELIABLE)
    node = start(use_sim_time=True, gate="speed", tf_mode="map_to_odom")
    ticks = itertools.count()
    for began in (1000, 10):
        clock.publish(Clock(clock=Time(sec=began + 2)))
        image = peer.picture(0)
        image.header.stamp = Time(sec=began + 2)
        peer.send_and_wait(peer.compressed, image)
        early = transform("odom", "base_link", at=Time(sec=began + 1))
        peer.transforms.clear()

        def sent(began=began, early=early):
            seconds, twentieths = divmod(next(ticks), 20)
            now = Time(sec=began + 3 + seconds, nanosec=twentieths * 50_000_000)
            clock.publish(Clock(clock=now))
            late = transform("odom", "base_link", at=now)
            peer.moving.publish(TFMessage(transforms=[early, late]))
            stamps = [t.header.stamp.sec for t in peer.transforms if t.header.frame_id == "map"]
            return any(began <= at < began + 900 for at in stamps)

        peer.wait(sent, "map -> odom")
    node.wait_for_log("stamps went back by 990", peer.spin)
    peer.wait_for_diagnosis("")  # diagnostics do not depend on /clock


def test_a_changed_mount_is_used(peer, start):
    node = start(mount=False)
    stamps = itertools.count(1)
    for x in (1.0, 3.0):
        mount = transform("base_link", "camera_optical", xyz=(x, 0.0, 0.0))
        peer.static.publish(TFMessage(transforms=[mount]))

        def follows(x=x):
            return abs(peer.localize(next(stamps))[0] - (CAMERA[0] - x)) < 0.1

        peer.wait(follows, f"poses with the mount at {x}")
    node.wait_for_log(r"the mount base_link -> camera_optical has changed, now at \[3.0", peer.spin)
    peer.wait_for_count("mount_changed")


def test_two_publishers_on_the_image_topic_are_reported(peer, start):
    node = start()
    peer.localize(1)
    second = peer.create_publisher(CompressedImage, "image/compressed", RELIABLE)
    found = peer.wait_for_diagnosis("2 publishers on /image/compressed .*stop all but one")
    assert found.level == DiagnosticStatus.WARN or "no image" in found.message
    peer.wait_for_count("seconds_with_two_publishers")
    node.wait_for_log("2 publishers on /image/compressed", peer.spin)
    peer.destroy_publisher(second)
    peer.localize(2)
    peer.wait_for_diagnosis("^(?!.*publishers)")


def test_a_camera_info_that_contradicts_the_image_is_refused(peer, start):
    node = start()
    stamps = itertools.count(2)
    peer.localize(1)
    peer.info.publish(camera_info(256, 96, 100.0))  # wider than the images that come
    node.wait_for_log(
        "128x96 pixels, but camera_info says 256x96: publish the camera_info of this",
        lambda: peer.outcome(peer.picture(next(stamps))),
    )
    assert "but camera_info says 256x96" in peer.refusal(peer.picture(next(stamps)))
    peer.wait_for_count("rejected_camera")
    peer.info.publish(camera_info(128, 96, 0.0))
    peer.wait_for_count("camera_info_refused")
    peer.info.publish(camera_info(128, 96, 100.0))

    def has_pose():
        return peer.outcome(peer.picture(next(stamps))).level == DiagnosticStatus.OK

    peer.wait(has_pose, "a pose with the right camera_info")


def test_parameters_can_be_set_while_images_arrive(peer, start):
    start()
    for index in range(1, 7):
        peer.compressed.publish(peer.picture(100 + index))
        assert peer.set_parameter("diagnostics_max_delay", 0.1 * index).successful
        assert not peer.set_parameter("diagnostics_max_age", -1.0).successful
        assert not peer.set_parameter("base_frame", "chassis").successful
        np.testing.assert_allclose(peer.localize(index), CAMERA, atol=0.1)


def memory_kib_and_threads(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in text.splitlines())
    return int(lines["VmRSS"].split()[0]), int(lines["Threads"])


@pytest.mark.slow
def test_lifecycle_cycles_leak_nothing(peer, start_process):
    """RGSIAM_LIFECYCLE_CYCLES is the number of cycles, more than WARM_CYCLES. A long run has 200."""
    node = start_process(autostart=False)
    forth = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    back = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    for cycle in range(CYCLES):
        assert all(peer.change_state(transition) for transition in forth)
        if cycle % 10 == 0:
            peer.localize(cycle)
        assert all(peer.change_state(transition) for transition in back)
        if cycle == WARM_CYCLES:
            memory, threads = memory_kib_and_threads(node.process.pid)
    memory_then, threads_then = memory_kib_and_threads(node.process.pid)
    print(f"{CYCLES} cycles: {memory} to {memory_then} KiB, {threads} to {threads_then} threads")
    assert memory_then - memory < LARGEST_GROWTH_KIB
    assert threads_then <= threads


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signals_during_inference_end_the_node(peer, start_process, how):
    """The network of the town and images at a higher rate than inference, so that one is in work."""
    node = start_process(bundle=TOWN_BUNDLE)
    peer.wait_for_listener(peer.compressed)
    node.wait_for_log("engine ", peer.spin)

    stamps = itertools.count()

    def busy():
        for _ in range(10):
            peer.compressed.publish(peer.picture(next(stamps), width=320))
        return int(peer.figures().get("skipped", 0)) > 0

    peer.wait(busy, "a skipped image")
    busy()
    assert node.stop(how) == 0, node.log
    assert "Traceback" not in node.log


@pytest.mark.slow
def test_a_killed_node_can_be_started_again(peer, start_process):
    node = start_process()
    peer.localize(1)
    node.process.kill()
    node.process.wait()
    start_process()
    np.testing.assert_allclose(peer.localize(2), CAMERA, atol=0.1)
