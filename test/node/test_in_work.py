"""Images that are in work, or wait, while the node is disabled, deactivated or stalled."""

import shutil
import signal
import threading

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import CompressedImage
from support.ros_peer import RELIABLE, key

from rgsiam_ros.localization.relocalizer import Relocalizer

pytestmark = pytest.mark.ros


PLENTY_S = 9.0
"""An image stays in work for this time if the node waits for it. Then the test fails."""


class Inference:
    """Blocks inference while a test wants an image to be in work."""

    def __init__(self, monkeypatch):
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()
        self.overdue = False
        estimate = Relocalizer.estimate

        def blocking_estimate(relocalizer, image):
            self.begun.set()
            self.overdue |= not self.may_end.wait(PLENTY_S)
            return estimate(relocalizer, image)

        monkeypatch.setattr(Relocalizer, "estimate", blocking_estimate)

    def block(self, peer, index):
        """Send this image and wait until it is in work. It stays in work until `end`."""
        peer.warm = True  # send one image only, because more would wait
        self.begun.clear()
        self.may_end.clear()
        peer.send_until(peer.compressed, peer.picture(index), self.begun.is_set, "inference")
        peer.expect_no_pose(peer.picture(index))

    def end(self):
        """Let the image go on. Fails if the node has waited for it."""
        assert not self.overdue
        self.may_end.set()


@pytest.fixture
def inference(monkeypatch):
    blocked = Inference(monkeypatch)
    yield blocked
    blocked.may_end.set()


def test_disabling_does_not_wait_and_drops_the_pose_in_work(peer, start, inference):
    start()
    peer.localize(1)
    peer.enable(True)  # after this response, no response is lost
    inference.block(peer, 2)
    assert peer.enable(False).success
    assert peer.enable(True).success
    inference.end()  # the image was begun before the node was disabled
    peer.localize(3)


def test_deactivating_does_not_wait_and_drops_the_pose_in_work(peer, start, inference):
    start()
    peer.localize(1)
    peer.state()  # after this response, no response is lost
    inference.block(peer, 2)
    assert peer.change_state(Transition.TRANSITION_DEACTIVATE)
    assert peer.change_state(Transition.TRANSITION_ACTIVATE)
    inference.end()
    peer.localize(3)


def test_cleaning_up_leaves_the_engine_to_the_image_in_work(peer, start, inference):
    node = start()
    peer.localize(1)
    peer.state()
    inference.block(peer, 2)
    for step in ("DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"):
        assert peer.change_state(getattr(Transition, f"TRANSITION_{step}"))
    inference.end()
    peer.localize(3)
    assert "Traceback" not in node.log


def test_another_bundle_does_not_wait_for_the_image_in_work(
    peer, start, inference, tmp_path, small_bundle
):
    node = start()
    peer.localize(1)
    other = tmp_path / "other"
    shutil.copytree(small_bundle, other)
    inference.block(peer, 2)
    assert peer.set_parameter("bundle", str(other)).successful
    node.wait_for_log("other.*it serves from now on", peer.spin)
    inference.end()
    peer.localize(3)


def test_the_node_ends_while_an_image_is_in_work(peer, start, inference):
    node = start()
    peer.localize(1)
    inference.block(peer, 2)
    node.stop()
    inference.end()


STUCK = """
import sys, time
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.node import relocalize

def stuck(relocalizer, image):
    print("stuck", flush=True)
    while True:
        time.sleep(1.0)

Relocalizer.estimate = stuck
relocalize.main(sys.argv)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_node_whose_worker_never_does(peer, start_process, monkeypatch, how):
    monkeypatch.setattr("support.ros_node.PROGRAM", ["-c", STUCK])
    node = start_process()
    picture = peer.picture(1)
    peer.send_until(peer.compressed, picture, lambda: "stuck" in node.log, "inference")
    assert node.stop(how) == 0, node.log
    assert "Traceback" not in node.log


def test_deactivating_resets_the_gate(peer, start):
    """A change of red from 204 to 104 moves the camera by 4 m in 0.1 s, which the gate rejects."""
    start(gate="speed", gate_max_speed=0.5, gate_recover_after=1000)
    peer.localize(1)
    assert "gated" in peer.refusal(peer.picture(2, colour=(51, 102, 104)))
    assert peer.change_state(Transition.TRANSITION_DEACTIVATE)
    assert peer.change_state(Transition.TRANSITION_ACTIVATE)
    assert peer.outcome(peer.picture(3, colour=(51, 102, 104))).message == "pose published"


def test_a_stalled_node_keeps_only_the_newest_image(peer, start):
    """Ten images arrive while the executor is blocked. Older ones than the last two must have no pose."""
    node = start()
    peer.localize(1)
    received, images = set(), [peer.picture(index) for index in range(10, 20)]
    peer.create_subscription(
        CompressedImage, "image/compressed", lambda m: received.add(key(m.header.stamp)), RELIABLE
    )
    peer.wait(lambda: peer.compressed.get_subscription_count() == 2, "the second subscription")
    with node.stalled():
        for image in images:
            peer.compressed.publish(image)
        peer.wait(lambda: len(received) == len(images), "all images at the second subscription")
        for old in images[:-2]:  # the last one may still be on its way to the node
            peer.expect_no_pose(old)
    peer.localize(20)
