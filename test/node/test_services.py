"""~/reset, ~/enable, the latched ~/status, /diagnostics, and another bundle while the node runs."""

import hashlib
import importlib.util
import itertools
import shutil

import numpy as np
import pytest
from support.bundles import brightness_contents, description, edit_manifest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from diagnostic_msgs.msg import DiagnosticStatus
from support.ros_watcher import CAMERA, LATCHED_ONE, starters, values, watchers

from rgsiam_ros.bundle import write_bundle

DOMAINS = itertools.cycle(range(131, 160))


@pytest.fixture
def peer(monkeypatch):
    yield from watchers(DOMAINS, monkeypatch)


@pytest.fixture
def start(peer, tmp_path, small_bundle):
    yield from starters(peer, tmp_path, small_bundle)


def bundle_at(path, origin_x=5000.0, **changes):
    """The small bundle's sister, elsewhere."""
    text = description() | {"name": "sister"} | changes
    text["target"] = {"origin_m": [origin_x, 2000.0, 3.0], "scale_m": 10.0}
    return write_bundle(path, text, brightness_contents()).path


def test_disabled_nothing_is_answered_and_whoever_comes_late_is_told(peer, start):
    node = start()
    peer.answer(1)
    assert peer.enable(False).success
    image = peer.picture(2)
    assert peer.never_answers(peer.compressed, image, 0.6)
    late = []
    peer.create_subscription(DiagnosticStatus, "relocalize/status", late.append, LATCHED_ONE)
    peer.wait(lambda: late, "the latched status")
    assert (late[0].level, late[0].message) == (DiagnosticStatus.STALE, "disabled by ~/enable")
    assert peer.state() == "active"
    broken = peer.picture(3)
    broken.data = b"nothing"
    assert peer.never_answers(peer.compressed, broken, 0.4)
    assert "neither JPEG nor PNG" not in node.log  # it was not even decoded
    assert peer.enable(True).success
    peer.answer(4)


def test_reset_forgets_a_frozen_camera(peer, start):
    start(frozen_images=3)
    for index in range(1, 5):
        peer.compressed.publish(peer.picture(index))
        peer.spin(0.1)

    def frozen():
        peer.compressed.publish(peer.picture(5))
        peer.spin(0.2)
        return any("repeats the same image" in s.message for s in peer.statuses)

    peer.wait(frozen, "a frozen camera")
    assert peer.never_answers(peer.compressed, peer.picture(6), 0.4)
    assert peer.reset().success
    peer.answer(7)


def test_reset_forgets_where_the_vehicle_was(peer, start):
    """From red 204 to 104 is 4 m in 0.1 s: gated, until the gate forgets."""
    start(gate="speed", gate_max_speed=0.5, gate_recover_after=1000)
    peer.answer(1)
    jumped = peer.picture(2, colour=(51, 102, 104))
    assert peer.never_answers(peer.compressed, jumped, 0.6)
    peer.wait_for_count("gated")
    assert peer.reset().success
    peer.answer(3, colour=(51, 102, 104))


UPDATER = """
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus


class Updater:
    def __init__(self, node, period=1.0):
        self.node, self.node_name, self.tasks = node, node.get_name(), []
        self.publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self.period = node.declare_parameter("diagnostic_updater.period", period).value
        self.timer = node.create_timer(self.period, self.force_update)

    def add(self, name, fill):
        self.tasks.append((name, fill))

    def force_update(self):
        array = DiagnosticArray()
        for name, fill in self.tasks:
            status = fill(DiagnosticStatus())
            status.name = f"{self.node_name}: {name}"
            array.status.append(status)
        self.publisher.publish(array)
"""
"""What the node uses of diagnostic_updater, which CI cannot install; the real one goes first."""


def test_diagnostic_updater_is_used_where_it_is_installed(peer, start, tmp_path, monkeypatch):
    if importlib.util.find_spec("diagnostic_updater") is None:
        (tmp_path / "diagnostic_updater.py").write_text(UPDATER)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    start(**{"diagnostic_updater.period": 0.2})
    peer.answer(1)
    peer.wait_for_count("published")
    said = len(peer.diagnostics)
    peer.wait(lambda: len(peer.diagnostics) >= said + 10, "ten diagnoses")
    found = peer.diagnostics[-1]
    assert found.name == "relocalize: relocalization"
    assert found.hardware_id == "bundle small"
    assert values(found)["precision"] == "float32"
    assert {s.name for s in peer.diagnostics} == {found.name}


def test_diagnostics_name_engine_bundle_and_reasons(peer, start, small_bundle):
    start(diagnostics_max_age=1.0)
    peer.answer(1)
    broken = peer.picture(2)
    broken.data = broken.data[:100]
    peer.compressed.publish(broken)
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
    peer.answer(3)
    assert peer.set_parameter("diagnostics_max_age", 60.0).successful
    assert peer.set_parameter("diagnostics_min_rate", 500.0).successful
    slow = peer.wait_for_diagnosis("poses at .* Hz, fewer than 500")
    assert slow.level == DiagnosticStatus.WARN


def test_the_old_bundle_serves_until_the_new_one_is_ready(peer, start, tmp_path):
    node = start()
    assert peer.answer(1)[0] == pytest.approx(CAMERA[0], abs=0.1)
    other = bundle_at(tmp_path / "other")
    assert peer.set_parameter("bundle", str(other)).successful
    answers = []
    for index in itertools.count(2):
        answers.append(peer.answer(index)[0])
        if abs(answers[-1] - (CAMERA[0] + 4000.0)) < 0.1 or index > 60:
            break
    assert answers[-1] == pytest.approx(CAMERA[0] + 4000.0, abs=0.1)
    np.testing.assert_allclose(answers[:-1], CAMERA[0], atol=0.1)  # every image was answered
    node.wait_for_log(r"bundle sister .*it serves from now on, in map", peer.spin)
    peer.wait(lambda: peer.figures().get("bundle") == "sister", "the new name in /diagnostics")


def test_a_bad_bundle_is_refused_at_once_with_the_reason(peer, start, tmp_path):
    start()
    peer.answer(1)
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
    assert peer.answer(2)[0] == pytest.approx(CAMERA[0], abs=0.1)


def test_a_bundle_that_proves_bad_while_loading_leaves_the_old_one(
    peer, start, tmp_path, small_bundle
):
    node = start()
    peer.answer(1)
    damaged = bundle_at(tmp_path / "damaged")
    content = (damaged / "absolute.onnx").read_bytes()
    (damaged / "absolute.onnx").write_bytes(content[:-1] + b"!")
    assert peer.set_parameter("bundle", str(damaged)).successful
    node.wait_for_log(
        r"bundle \S+damaged refused, \S+small serves on: .*absolute.onnx has changed", peer.spin
    )
    assert peer.wait_for_diagnosis("another bundle was refused").level >= DiagnosticStatus.WARN
    assert peer.answer(2)[0] == pytest.approx(CAMERA[0], abs=0.1)
    assert values(peer.diagnostics[-1])["bundle_path"] == str(small_bundle)


def test_a_bundle_removed_or_replaced_while_it_serves(peer, start, small_bundle):
    start()
    peer.answer(1)
    shutil.rmtree(small_bundle)
    assert peer.answer(2)[0] == pytest.approx(CAMERA[0], abs=0.1)  # it was read whole
    refused = peer.set_parameter("bundle", str(small_bundle))
    assert "is not a directory" in refused.reason
    bundle_at(small_bundle)
    assert peer.answer(3)[0] == pytest.approx(CAMERA[0], abs=0.1)
    assert peer.set_parameter("bundle", str(small_bundle)).successful  # the same path: read anew
    peer.wait(lambda: peer.figures().get("bundle") == "sister", "the new bundle")
    assert peer.answer(4)[0] == pytest.approx(CAMERA[0] + 4000.0, abs=0.1)
