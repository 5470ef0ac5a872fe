"""~/reset, ~/enable, the latched ~/status, /diagnostics, and another bundle while the node runs."""

import hashlib
import importlib.util
import itertools
import os
import shutil
import time

import numpy as np
import pytest
from support.bundles import brightness_contents, description, edit_manifest
from support.images import flat_image, jpeg_bytes

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from diagnostic_msgs.msg import DiagnosticStatus
from support.ros_peer import camera_info, compressed_image
from support.ros_watcher import CAMERA, COLOUR, LATCHED_ONE, position, values
from support.waiting import PATIENCE_S

from rgsiam_ros.bundle import write_bundle
from rgsiam_ros.node import health

pytestmark = pytest.mark.ros

SISTER = CAMERA + [4000.0, 0.0, 0.0]
"""Position of the camera in an image of `COLOUR`, according to a bundle of `bundle_at`."""


def bundle_at(path, origin_x=5000.0, **changes):
    """A bundle like the small one, named sister, whose map is 4 km away."""
    text = description() | {"name": "sister"} | changes
    text["absolute"]["target"] = {"origin_m": [origin_x, 2000.0, 3.0], "scale_m": 10.0}
    return write_bundle(path, text, brightness_contents()).path


def test_a_disabled_node_ignores_images_and_latches_its_status(peer, start):
    node = start()
    peer.localize(1)
    assert peer.enable(False).success
    peer.send_ignored(peer.compressed, peer.picture(2))
    late = []
    peer.create_subscription(DiagnosticStatus, "relocalize/status", late.append, LATCHED_ONE)
    peer.wait(lambda: late, "the latched status")
    assert (late[0].level, late[0].message) == (DiagnosticStatus.STALE, "disabled by ~/enable")
    assert peer.state() == "active"
    broken = peer.picture(3)
    broken.data = b"nothing"
    peer.send_ignored(peer.compressed, broken)
    assert peer.enable(True).success
    peer.localize(4)
    assert "neither JPEG nor PNG" not in node.log  # the broken image was not even decoded


def test_reset_clears_a_frozen_camera(peer, start):
    start(frozen_images=3)
    peer.localize(0, colour=(60, 102, 204))
    peer.localize(1)
    peer.localize(2)
    for index in (3, 4):
        assert "repeats the same image" in peer.refusal(peer.picture(index))
    assert peer.reset().success
    peer.localize(5)


def test_reset_resets_the_gate(peer, start):
    """A change of red from 204 to 104 moves the camera by 4 m in 0.1 s, which the gate rejects."""
    start(gate="speed", gate_max_speed=0.5, gate_recover_after=1000)
    peer.localize(1)
    assert "gated" in peer.refusal(peer.picture(2, colour=(51, 102, 104)))
    peer.wait_for_count("gated")
    assert peer.reset().success
    assert peer.outcome(peer.picture(3, colour=(51, 102, 104))).message == "pose published"


UPDATER = """
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus


class Updater:
    def __init__(self, node, period=1.0):
        self.node, self.node_name, self.tasks = node, node.get_name(), []
        self.publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self.period = node.declare_parameter("diagnostic_updater.period", period).value
        self.timer = node.create_timer(self.period, self.force_update)

    def setHardwareID(self, hardware_id):
        self.hardware_id = hardware_id

    def add(self, name, fill):
        self.tasks.append((name, fill))

    def force_update(self):
        array = DiagnosticArray()
        for name, fill in self.tasks:
            assert self.hardware_id
            status = fill(DiagnosticStatus())
            status.name = f"{self.node_name}: {name}"
            array.status.append(status)
        self.publisher.publish(array)
"""
"""The part of diagnostic_updater that the node uses. The real one, where it is installed, is preferred."""


@pytest.mark.slow
def test_diagnostic_updater_is_used_where_it_is_installed(
    peer, start_process, tmp_path, monkeypatch
):
    if importlib.util.find_spec("diagnostic_updater") is None:
        (tmp_path / "diagnostic_updater.py").write_text(UPDATER)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    start_process(**{"diagnostic_updater.period": 0.2})
    peer.localize(1)
    peer.wait_for_count("published")
    count = len(peer.diagnostics)
    peer.wait(lambda: len(peer.diagnostics) >= count + 10, "ten diagnoses")
    found = peer.diagnostics[-1]
    assert found.name == "relocalize: relocalization"
    assert found.hardware_id == "bundle small"
    assert values(found)["precision"] == "float32"
    assert {s.name for s in peer.diagnostics} == {found.name}


def test_diagnostics_have_engine_bundle_and_reasons(peer, start, small_bundle, monkeypatch):
    monkeypatch.setattr(health, "WINDOW_S", 1.0)  # the window of the rates
    start(diagnostics_max_age=1.0)
    peer.localize(1)
    broken = peer.picture(2)
    broken.data = broken.data[:100]
    assert "truncated" in peer.refusal(broken)
    peer.wait_for_count("rejected_image_truncated")
    found = peer.figures()
    digest = hashlib.sha256((small_bundle / "manifest.yaml").read_bytes()).hexdigest()
    assert found["bundle"] == "small"
    assert found["bundle_sha256"] == digest
    assert found["engine"].split()[0] in ("onnxruntime", "openvino")
    assert found["precision"] == "float32"
    for name in ("rate_hz", "delay_median_ms", "age_of_last_pose_s"):
        assert float(found[name]) >= 0.0
    for name in ("skipped", "lost", "gated"):
        assert found[name].isdigit()
    silent = peer.wait_for_diagnosis("no image on /image/compressed for")
    assert silent.level == DiagnosticStatus.ERROR
    assert peer.set_parameter("diagnostics_max_age", 600.0).successful
    assert peer.set_parameter("diagnostics_min_rate", 500.0).successful
    peer.localize(3)
    slow = peer.wait_for_diagnosis("poses at .* Hz, fewer than 500")
    assert slow.level == DiagnosticStatus.WARN


def test_the_old_bundle_serves_until_the_new_one_is_ready(peer, start, tmp_path):
    node = start()
    assert peer.localize(1)[0] == pytest.approx(CAMERA[0], abs=0.1)
    other = bundle_at(tmp_path / "other")
    assert peer.set_parameter("bundle", str(other)).successful
    positions, deadline = [], time.monotonic() + PATIENCE_S
    for index in itertools.count(2):
        positions.append(peer.localize(index))  # every image is answered
        if np.allclose(positions[-1], SISTER, atol=0.1) or time.monotonic() > deadline:
            break
    np.testing.assert_allclose(positions[-1], SISTER, atol=0.1)
    np.testing.assert_allclose(positions[:-1], np.tile(CAMERA, (len(positions) - 1, 1)), atol=0.1)
    node.wait_for_log(r"bundle sister .*it serves from now on, in map", peer.spin)
    peer.wait(lambda: peer.figures().get("bundle") == "sister", "the new name in /diagnostics")


def change_bundle(peer, node, bundle):
    """Set the parameter, and wait until the node uses this bundle."""
    assert peer.set_parameter("bundle", str(bundle)).successful
    node.wait_for_log("it serves from now on", peer.spin)


def test_a_new_bundle_uses_the_camera_info_of_before(peer, start, tmp_path):
    """A wider camera, whose camera_info is not sent again. The border outside the trained view is black."""
    node = start()
    image = flat_image(0, 0, 0, width=256, height=192)
    image[24:168, 32:224] = COLOUR

    def answer(index):
        pose, _ = peer.send_and_wait(peer.compressed, compressed_image(jpeg_bytes(image), index))
        return position(pose)

    def adapt():
        peer.info.publish(camera_info(256, 192, 150.0))
        answer(1)
        peer.poses.clear()

    node.wait_for_log("cropped to 192x144", adapt)
    np.testing.assert_allclose(answer(2), CAMERA, atol=0.2)
    change_bundle(peer, node, bundle_at(tmp_path / "other"))
    np.testing.assert_allclose(answer(3), SISTER, atol=0.2)


def test_a_camera_that_fits_only_the_new_bundle_is_used_with_it(peer, start, tmp_path):
    node = start()
    peer.localize(1)
    peer.info.publish(camera_info(128, 96, 400.0))
    node.wait_for_log("cannot be reconciled", lambda: peer.outcome(peer.picture(2)))
    assert "cannot be reconciled" in peer.refusal(peer.picture(3))
    camera = {**description()["camera"], "fx": 400.0, "fy": 400.0}
    change_bundle(peer, node, bundle_at(tmp_path / "other", camera=camera))
    assert peer.outcome(peer.picture(4)).message == "pose published"
    np.testing.assert_allclose(peer.localize(4), SISTER, atol=0.1)


def test_a_new_bundle_resets_the_gate_and_the_frozen_images(peer, start, tmp_path):
    """Its poses are 4 km from those of the old one, and the camera has shown the image before."""
    node = start(gate="speed", gate_max_speed=0.5, gate_recover_after=1000, frozen_images=3)
    peer.localize(0, colour=(60, 102, 204))
    peer.localize(1)
    peer.localize(2)
    change_bundle(peer, node, bundle_at(tmp_path / "other"))
    for index in (3, 4):
        assert peer.outcome(peer.picture(index)).message == "pose published"
        np.testing.assert_allclose(peer.localize(index), SISTER, atol=0.1)


def test_a_bad_bundle_is_refused_at_once_with_the_reason(peer, start, tmp_path):
    start()
    peer.localize(1)
    elsewhere = bundle_at(tmp_path / "elsewhere", map_frame="other_map")
    invalid = bundle_at(tmp_path / "invalid")
    edit_manifest(invalid, lambda data: data.pop("camera"))
    for path, reason in (
        (tmp_path / "nowhere", "nowhere is not a directory: give the folder of a bundle"),
        (invalid, "is not a valid manifest: camera: Field required"),
        (elsewhere, "is of the map frame other_map, and poses are published in map"),
    ):
        refused = peer.set_parameter("bundle", str(path))
        assert not refused.successful
        assert reason in refused.reason
    assert peer.localize(2)[0] == pytest.approx(CAMERA[0], abs=0.1)


def test_a_bundle_that_fails_to_load_leaves_the_old_one_in_use(peer, start, tmp_path, small_bundle):
    node = start()
    peer.localize(1)
    damaged = bundle_at(tmp_path / "damaged")
    content = (damaged / "absolute.onnx").read_bytes()
    (damaged / "absolute.onnx").write_bytes(content[:-1] + b"!")
    assert peer.set_parameter("bundle", str(damaged)).successful
    node.wait_for_log(
        r"bundle \S+damaged refused, \S+small serves on: .*absolute.onnx has changed", peer.spin
    )
    assert peer.wait_for_diagnosis("another bundle was refused").level >= DiagnosticStatus.WARN
    assert peer.localize(2)[0] == pytest.approx(CAMERA[0], abs=0.1)
    assert values(peer.diagnostics[-1])["bundle_path"] == str(small_bundle)


def test_a_bundle_may_be_removed_or_replaced_while_it_is_in_use(peer, start, small_bundle):
    start()
    peer.localize(1)
    shutil.rmtree(small_bundle)
    assert peer.localize(2)[0] == pytest.approx(CAMERA[0], abs=0.1)  # it was read whole
    refused = peer.set_parameter("bundle", str(small_bundle))
    assert "is not a directory" in refused.reason
    bundle_at(small_bundle)
    assert peer.localize(3)[0] == pytest.approx(CAMERA[0], abs=0.1)
    assert peer.set_parameter("bundle", str(small_bundle)).successful  # the same path: read anew
    peer.wait(lambda: peer.figures().get("bundle") == "sister", "the new bundle")
    np.testing.assert_allclose(peer.localize(4), SISTER, atol=0.1)
