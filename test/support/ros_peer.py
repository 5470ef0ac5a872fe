"""A peer of the node: it sends images and transforms over DDS and collects the poses."""

import itertools
import time
from contextlib import contextmanager

import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, TransformStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from support.waiting import PATIENCE_S

RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
DOMAINS = itertools.cycle(range(60, 100))
"""ROS domains, one for each test, so that no test receives late messages of the previous one."""
FIRST_RESEND_S, RESEND_S = 0.3, 5.0
"""Seconds until an image or a request without an answer is sent again: before the first pose, and after it."""
STATE_AFTER = {
    Transition.TRANSITION_CONFIGURE: "inactive",
    Transition.TRANSITION_ACTIVATE: "active",
    Transition.TRANSITION_DEACTIVATE: "inactive",
    Transition.TRANSITION_CLEANUP: "unconfigured",
}
"""The state that a transition leads to."""


def stamp(index):
    return Time(sec=1_700_000_000 + index // 10, nanosec=(index % 10) * 100_000_000)


def key(time_message):
    return time_message.sec, time_message.nanosec


class Peer(Node):
    """Publishes images and transforms, collects poses and TF."""

    def __init__(self, context):
        super().__init__("peer", context=context)
        self.executor_ = SingleThreadedExecutor(context=context)
        self.executor_.add_node(self)
        self.domain = context.get_domain_id()
        self.poses, self.covariances, self.transforms = {}, {}, []
        self.warm = False  # before the first pose the node may miss images
        self._without_pose = set()
        self._clients_by_name = {}
        self.image = self.create_publisher(Image, "image", RELIABLE)
        self.compressed = self.create_publisher(CompressedImage, "image/compressed", RELIABLE)
        self.info = self.create_publisher(CameraInfo, "camera_info", RELIABLE)
        self.static = self.create_publisher(TFMessage, "/tf_static", LATCHED)
        self.moving = self.create_publisher(TFMessage, "/tf", RELIABLE)
        self.create_subscription(PoseStamped, "relocalize/pose", self._on_pose, RELIABLE)
        self.create_subscription(
            PoseWithCovarianceStamped,
            "relocalize/pose_with_covariance",
            self._on_covariance,
            RELIABLE,
        )
        self.create_subscription(TFMessage, "/tf", self._on_tf, RELIABLE)

    def _on_pose(self, message):
        self.poses[key(message.header.stamp)] = message

    def _on_covariance(self, message):
        self.covariances[key(message.header.stamp)] = message

    def _on_tf(self, message):
        self.transforms.extend(message.transforms)

    def spin(self, seconds=0.05):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0.0:
            self.executor_.spin_once(timeout_sec=left)

    def comes(self, condition, seconds):
        """Spin until the condition holds, or the time is over. Returns whether it holds."""
        deadline = time.monotonic() + seconds
        while not (found := condition()) and time.monotonic() < deadline:
            self.executor_.spin_once(timeout_sec=0.05)
        return bool(found)

    def wait(self, condition, what):
        """Spin until the condition holds. Fail if it never does."""
        assert self.comes(condition, PATIENCE_S), f"timed out waiting for {what}"

    def wait_for_listener(self, publisher):
        self.wait(lambda: publisher.get_subscription_count() > 0, "the node to subscribe")

    def client(self, kind, name):
        """The client of a service, when the service is ready. Each service has one client."""
        if name not in self._clients_by_name:
            self._clients_by_name[name] = self.create_client(kind, name)
        client = self._clients_by_name[name]
        self.wait(client.service_is_ready, name)
        return client

    def call(self, kind, name, request):
        """Call a service that may be called twice.

        The first response can be lost, because the node may read the request before it has discovered
        the reader of the response. So the request is sent again when no response comes.
        """
        client, futures = self.client(kind, name), []

        def answered():
            return [future for future in futures if future.done()]

        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            futures.append(client.call_async(request))
            if self.comes(answered, RESEND_S):
                return answered()[0].result()
        raise AssertionError(f"no response of {name}")

    def state(self):
        return self.call(GetState, "relocalize/get_state", GetState.Request()).current_state.label

    def begin_change_of_state(self, transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.client(ChangeState, "relocalize/change_state").call_async(request)

    def change_state(self, transition):
        """Returns whether the node made the transition. If the response is lost, the state decides."""
        self.warm = False  # the node may subscribe anew
        future = self.begin_change_of_state(transition)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.comes(future.done, RESEND_S):
                return future.result().success
            if self.state() == STATE_AFTER[transition]:
                return True
        raise AssertionError("no response of change_state")

    def set_parameter(self, name, value):
        def set_parameters(*messages):
            request = SetParameters.Request(parameters=messages)
            return self.call(SetParameters, "relocalize/set_parameters", request)

        set_parameters()  # after the response to this empty request, no response is lost
        return set_parameters(Parameter(name, value=value).to_parameter_msg()).results[0]

    def send_until(self, publisher, message, condition, what):
        """Publish an image until the condition holds. Once is enough when the node has had an image before."""
        self.wait_for_listener(publisher)
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"timed out waiting for {what}"
            publisher.publish(message)
            self.comes(condition, RESEND_S if self.warm else FIRST_RESEND_S)

    def send_and_wait(self, publisher, message):
        """Publish an image until the two pose messages with its stamp are there."""
        stamp_key = key(message.header.stamp)
        self.send_until(
            publisher,
            message,
            lambda: stamp_key in self.poses and stamp_key in self.covariances,
            "a pose",
        )
        self.warm = True
        self.check_expected_silence()
        return self.poses[stamp_key], self.covariances[stamp_key]

    def expect_no_pose(self, message):
        """Later checks, with the next pose and at the end of the test, fail if this image has a pose.

        Poses come in the order of their images. So when a later pose has come, this image has none.
        """
        self._without_pose.add(key(message.header.stamp))

    def check_expected_silence(self):
        broken = self._without_pose & (self.poses.keys() | self.covariances.keys())
        assert not broken, f"poses of images that must have none: {sorted(broken)}"

    def send_ignored(self, publisher, message):
        """Publish an image that the node must ignore, and wait until the node has received it."""
        self.wait_for_listener(publisher)
        self.expect_no_pose(message)
        for _ in range(2):  # the node takes images before it answers a service
            publisher.publish(message)
            self.state()


@contextmanager
def in_domain(domain, monkeypatch, kind=Peer):
    """A peer in a ROS domain. Processes that start inside the context are in that domain too."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = new_context(domain)
    node = kind(context)
    try:
        yield node
        node.check_expected_silence()
    finally:
        node.executor_.shutdown()
        node.destroy_node()
        context.try_shutdown()


def transform(parent, child, xyz=(0.0, 0.0, 0.0), xyzw=(0.0, 0.0, 0.0, 1.0), at=None):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = at or stamp(0)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = xyz
    q.x, q.y, q.z, q.w = xyzw
    return message


def raw_image(image_HW3, index, encoding="bgr8", frame_id="camera_optical"):
    message = Image(height=image_HW3.shape[0], width=image_HW3.shape[1], encoding=encoding)
    message.header.stamp, message.header.frame_id = stamp(index), frame_id
    message.step = image_HW3.shape[1] * (image_HW3.shape[2] if image_HW3.ndim == 3 else 1)
    message.data = image_HW3.tobytes()
    return message


def compressed_image(content, index, frame_id="camera_optical"):
    message = CompressedImage(format="bgr8; jpeg compressed bgr8", data=content)
    message.header.stamp, message.header.frame_id = stamp(index), frame_id
    return message


def camera_info(width, height, focal):
    k = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0]
    return CameraInfo(width=width, height=height, k=k, distortion_model="plumb_bob", d=[0.0] * 5)


def new_context(domain):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    return context
