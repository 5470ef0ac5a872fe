"""What becomes of images that are in work, or wait, when the node is told something."""

import threading

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import SetBool
from support.ros_node import PATIENCE_S
from support.ros_peer import RELIABLE, key

from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.node import relocalize
from rgsiam_ros.node.worker import NewestWorker

pytestmark = pytest.mark.ros


class Inference:
    """Holds every inference until it may go on, so that an image is in work as long as a test likes."""

    def __init__(self, monkeypatch):
        self.begun, self.may_end, self.drained = (threading.Event() for _ in range(3))
        self.may_end.set()
        estimate, drain = Relocalizer.estimate, NewestWorker.drain

        def held(relocalizer, image):
            self.begun.set()
            assert self.may_end.wait(PATIENCE_S)
            return estimate(relocalizer, image)

        def noticed(worker, timeout_s):
            self.drained.set()
            return drain(worker, timeout_s)

        monkeypatch.setattr(Relocalizer, "estimate", held)
        monkeypatch.setattr(NewestWorker, "drain", noticed)
        monkeypatch.setattr(relocalize, "WAIT_FOR_FRAME_S", PATIENCE_S)

    def hold(self, peer, index):
        """From here on this image is in work."""
        peer.warm = True  # one image is enough, and the others would wait
        self.drained.clear()
        self.begun.clear()
        self.may_end.clear()
        peer.send_until(peer.compressed, peer.picture(index), self.begun.is_set, "inference")
        peer.expect_no_pose(peer.picture(index))


@pytest.fixture
def inference(monkeypatch):
    held = Inference(monkeypatch)
    yield held
    held.may_end.set()


def end_with_it(peer, inference, told):
    """The node has been told, with an image in work: it does not answer before that image is done."""
    peer.wait(lambda: inference.drained.is_set() or told.done(), "the node to wait for its worker")
    assert not told.done(), "the node answered while an image was in work"
    inference.may_end.set()
    peer.wait(told.done, "an answer of the service")
    assert told.result().success


def test_disabled_the_image_in_work_is_not_answered(peer, start, inference):
    start()
    peer.answer(1)
    peer.enable(True)  # a call whose answer came: none is lost from here on
    inference.hold(peer, 2)
    client = peer.client(SetBool, "relocalize/enable")
    end_with_it(peer, inference, client.call_async(SetBool.Request(data=False)))
    assert peer.enable(True).success
    peer.answer(3)


def test_deactivated_the_image_in_work_is_not_answered(peer, start, inference):
    start()
    peer.answer(1)
    inference.hold(peer, 2)
    told = peer.begin_change_of_state(Transition.TRANSITION_DEACTIVATE)
    end_with_it(peer, inference, told)
    assert peer.state() == "inactive"
    assert peer.change_state(Transition.TRANSITION_ACTIVATE)
    peer.answer(3)


def test_deactivated_the_gate_forgets_where_the_vehicle_was(peer, start):
    """From red 204 to 104 is 4 m in 0.1 s: gated, until the gate forgets."""
    start(gate="speed", gate_max_speed=0.5, gate_recover_after=1000)
    peer.answer(1)
    assert "gated" in peer.refused(peer.picture(2, colour=(51, 102, 104)))
    assert peer.change_state(Transition.TRANSITION_DEACTIVATE)
    assert peer.change_state(Transition.TRANSITION_ACTIVATE)
    assert peer.outcome(peer.picture(3, colour=(51, 102, 104))).message == "pose published"


def test_a_stalled_node_has_only_the_newest_image(peer, start):
    """Ten images come while its executor stands still: nine of them are out of date."""
    node = start()
    peer.answer(1)
    beside, images = set(), [peer.picture(index) for index in range(10, 20)]
    peer.create_subscription(
        CompressedImage, "image/compressed", lambda m: beside.add(key(m.header.stamp)), RELIABLE
    )
    peer.wait(lambda: peer.compressed.get_subscription_count() == 2, "the other reader")
    with node.stalled():
        for image in images:
            peer.compressed.publish(image)
        peer.wait(lambda: len(beside) == len(images), "all images at the other reader")
        for old in images[:-2]:  # the last one is perhaps still on its way to the node
            peer.expect_no_pose(old)
    peer.answer(20)
