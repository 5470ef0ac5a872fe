"""How the node starts, and what it publishes when: a failed autostart, publishers that are not needed."""

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from support.paths import TOWN_BUNDLE
from support.waiting import PATIENCE_S

pytestmark = pytest.mark.ros


def test_a_failed_autostart_is_an_error_with_its_cause(peer, start, small_bundle):
    content = (small_bundle / "absolute.onnx").read_bytes()
    (small_bundle / "absolute.onnx").write_bytes(content[:-1] + b"!")
    start()
    found = peer.wait_for_diagnosis("^not configured: .*absolute.onnx has changed: its SHA-256")
    assert found.level == DiagnosticStatus.ERROR
    assert found.hardware_id == "none"
    assert peer.wait_for_status("^not configured: .*has changed").level == DiagnosticStatus.ERROR
    (small_bundle / "absolute.onnx").write_bytes(content)
    assert peer.change_state(Transition.TRANSITION_CONFIGURE)
    assert peer.wait_for_diagnosis("^inactive$").level == DiagnosticStatus.STALE
    assert peer.change_state(Transition.TRANSITION_CLEANUP)
    assert peer.wait_for_diagnosis("^not configured$").level == DiagnosticStatus.STALE


@pytest.mark.parametrize(
    ("parameters", "cause"),
    [
        ({"bundle": '""'}, "parameter bundle is empty"),
        ({"bundle": "/nowhere"}, "/nowhere is not a directory"),
        ({"map_frame": "base_link"}, "map_frame and base_frame are both base_link"),
        ({"publish_fix": True}, "has no datum"),
        ({"qos_overrides./image/compressed.subscription.depth": "many"}, "depth"),
    ],
)
def test_each_cause_of_a_failed_start_is_in_diagnostics(peer, start, parameters, cause):
    start(**parameters)
    found = peer.wait_for_diagnosis(f"^not configured: .*{cause}")
    assert found.level == DiagnosticStatus.ERROR


@pytest.mark.slow
def test_a_failed_autostart_can_end_the_process(peer, start_process):
    node = start_process(bundle="/nowhere", exit_on_failure=True)
    assert node.process.wait(PATIENCE_S) == 1
    assert "cannot configure: /nowhere is not a directory" in node.log
    assert "autostart failed: correct the error above; the node ends" in node.log
    assert "Traceback" not in node.log


def test_publishers_exist_only_while_they_are_used(peer, start):
    def published():
        names = peer.get_node_names()
        if "relocalize" not in names:
            return None
        found = {n for n, _ in peer.get_publisher_names_and_types_by_node("relocalize", "/")}
        return found & {"/tf", "/relocalize/fix", "/relocalize/pose"}

    pose = {"/relocalize/pose"}
    node = start(bundle=TOWN_BUNDLE)
    peer.wait(lambda: peer.state() == "active" and published() == pose, "only the pose")
    node.stop()
    peer.wait(lambda: "relocalize" not in peer.get_node_names(), "the end of the node")
    start(bundle=TOWN_BUNDLE, tf_mode="map_to_odom", publish_fix=True)
    everything = pose | {"/tf", "/relocalize/fix"}
    peer.wait(lambda: published() == everything, "pose, fix and /tf")
    assert peer.change_state(Transition.TRANSITION_DEACTIVATE)
    assert peer.change_state(Transition.TRANSITION_CLEANUP)
    peer.wait(lambda: published() == pose, "only the pose, after the clean-up")
    assert peer.change_state(Transition.TRANSITION_CONFIGURE)
    peer.wait(lambda: published() == everything, "pose, fix and /tf again")
