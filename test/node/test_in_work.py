"""Images that are in work, or wait, while the node is disabled, deactivated or stalled."""

import threading

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import SetBool
from support.ros_peer import RELIABLE, key
from support.waiting import PATIENCE_S

from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.node import relocalize
from rgsiam_ros.node.worker import NewestWorker

pytestmark = pytest.mark.ros


class Inference:
    """Blocks inference while a test wants an image to be in work."""

    def __init__(self, monkeypatch):
        self.begun, self.may_end, self.drained = (threading.Event() for _ in range(3))
        self.may_end.set()
        estimate, drain = Relocalizer.estimate, NewestWorker.drain

        def blocking_estimate(relocalizer, image):
            self.begun.set()
            assert self.may_end.wait(PATIENCE_S)
            return estimate(relocalizer, image)

        def recorded_drain(worker, timeout_s):
            self.drained.set()
            return drain(worker, timeout_s)

        monkeypatch.setattr(Relocalizer, "estimate", blocking_estimate)
        monkeypatch.setattr(NewestWorker, "drain", recorded_drain)
        monkeypatch.setattr(relocalize, "WAIT_FOR_FRAME_S", PATIENCE_S)

    def block(self, peer, index):
        """Send this image and wait until it is in work. It stays in work until `may_end` is set."""
        peer.warm = True  # send one image only, because more would wait
        self.drained.clear()
        self.begun.clear()
        self.may_end.clear()
        peer.send_until(peer.compressed, peer.picture(index), self.begun.is_set, "inference")
        peer.expect_no_pose(peer.picture(index))


@pytest.fixture
def inference(monkeypatch):
    blocked = Inference(monkeypatch)
    yield blocked
    blocked.may_end.set()


def check_response_waits_for_inference(peer, inference, response):
    """The node responds only after the image in work is done. response: the future of a service call."""
    peer.wait(
        lambda: inference.drained.is_set() or response.done(), "the node to wait for its worker"
    )
    assert not response.done(), "the node responded while an image was in work"
    inference.may_end.set()
    peer.wait(response.done, "a response of the service")
    assert response.result().success


def test_disabling_waits_for_the_image_in_work_and_drops_its_pose(peer, start, inference):
    start()
    peer.localize(1)
    peer.enable(True)  # after this response, no response is lost
    inference.block(peer, 2)
    client = peer.client(SetBool, "relocalize/enable")
    check_response_waits_for_inference(
        peer, inference, client.call_async(SetBool.Request(data=False))
    )
    assert peer.enable(True).success
    peer.localize(3)


def test_deactivating_waits_for_the_image_in_work_and_drops_its_pose(peer, start, inference):
    start()
    peer.localize(1)
    inference.block(peer, 2)
    response = peer.begin_change_of_state(Transition.TRANSITION_DEACTIVATE)
    check_response_waits_for_inference(peer, inference, response)
    assert peer.state() == "inactive"
    assert peer.change_state(Transition.TRANSITION_ACTIVATE)
    peer.localize(3)


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
