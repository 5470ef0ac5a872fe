"""The real node in a process of its own, and a peer to talk to it over DDS."""

import os
import re
import signal
import subprocess
import sys
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

RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
PATIENCE_S = 20.0


def stamp(index):
    return Time(sec=1_700_000_000 + index // 10, nanosec=(index % 10) * 100_000_000)


def key(time_message):
    return time_message.sec, time_message.nanosec


class NodeProcess:
    """`relocalize` with parameters, its log in a file."""

    def __init__(self, log_path, *, namespace="", **parameters):
        command = [sys.executable, "-m", "rgsiam_ros.node.relocalize", "--ros-args"]
        if namespace:
            command += ["-r", f"__ns:={namespace}"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        environment = {**os.environ, "ROS_LOG_DIR": str(log_path.parent), "PYTHONUNBUFFERED": "1"}
        self._log_path = log_path
        self._file = log_path.open("w")
        self.process = subprocess.Popen(
            command, stdout=self._file, stderr=subprocess.STDOUT, env=environment
        )

    @property
    def log(self):
        return self._log_path.read_text()

    def wait_for_log(self, pattern, spin=lambda: time.sleep(0.05)):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if re.search(pattern, self.log):
                return
            assert self.process.poll() is None, self.log
            spin()
        raise AssertionError(f"{pattern!r} did not appear in:\n{self.log}")

    def stop(self, how=signal.SIGINT):
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(10.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"the node did not stop:\n{self.log}") from None
        self._file.close()
        return self.process.returncode


class Peer(Node):
    """Publishes images and transforms, collects poses and TF."""

    def __init__(self, context):
        super().__init__("peer", context=context)
        self.executor_ = SingleThreadedExecutor(context=context)
        self.executor_.add_node(self)
        self.poses, self.covariances, self.transforms = {}, {}, []
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

    def wait(self, condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if condition():
                return
            self.spin()
        raise AssertionError(f"timed out waiting for {what}")

    def wait_for_listener(self, publisher):
        self.wait(lambda: publisher.get_subscription_count() > 0, "the node to subscribe")

    def call(self, kind, name, request):
        """Call a service once.

        The node may learn of the reader of its answers after it has read the request, and the
        answer is then lost: hence one client per name, and a pause after it found its service.
        """
        client = self._clients_by_name.get(name)
        if client is None or not client.service_is_ready():
            client = client or self.create_client(kind, name)
            self._clients_by_name[name] = client
            self.wait(client.service_is_ready, name)
            self.spin(0.5)
        future = client.call_async(request)
        self.wait(future.done, f"an answer of {name}")
        return future.result()

    def state(self):
        return self.call(GetState, "relocalize/get_state", GetState.Request()).current_state.label

    def change_state(self, transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, "relocalize/change_state", request).success

    def set_parameter(self, name, value):
        message = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[message])
        return self.call(SetParameters, "relocalize/set_parameters", request).results[0]

    def send_and_wait(self, publisher, message):
        """Publish an image until its poses are there, matched by stamp.

        Again and again, because the node may have subscribed but not yet be active.
        """
        wanted = key(message.header.stamp)
        deadline = time.monotonic() + PATIENCE_S
        while not (wanted in self.poses and wanted in self.covariances):
            assert time.monotonic() < deadline, "timed out waiting for a pose"
            publisher.publish(message)
            self.spin(0.3)
        return self.poses[wanted], self.covariances[wanted]

    def never_answers(self, publisher, message, seconds=1.0):
        self.wait_for_listener(publisher)
        for _ in range(max(1, round(seconds / 0.2))):
            publisher.publish(message)
            self.spin(0.2)
        return key(message.header.stamp) not in self.poses


@contextmanager
def in_domain(domain, monkeypatch, kind=Peer):
    """A peer in a domain, in which the nodes started meanwhile are too."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = new_context(domain)
    node = kind(context)
    yield node
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
