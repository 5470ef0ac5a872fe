"""The camera of `node_latency.py`: sends images over DDS, receives the poses, and starts the systems under
test.

It has one thread. A pose that arrives while an image is being sent is read directly afterwards.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from latency_images import CameraOfSize, encoded_images, image_size
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

ROOT = Path(__file__).parents[1]
TICK = os.sysconf("SC_CLK_TCK")
"""Clock ticks per second of ``/proc/PID/stat``."""
FIRST_POSE_WITHIN_S = 120.0
DRAIN_S = 2.5
"""Time to wait for the last poses after the last image."""
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
FRAME = "camera_optical"


class Process:
    """A system under test, in its own process."""

    def __init__(self, name, command, **options):
        environment = {k: v for k, v in os.environ.items() if k != "FASTRTPS_DEFAULT_PROFILES_FILE"}
        environment["PYTHONUNBUFFERED"] = "1"
        self.name, self.launched = name, time.monotonic()
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.popen = subprocess.Popen(command, env=environment, stderr=self.log, **options)

    def cpu_s(self):
        """User and system time so far, seconds."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory_mib(self):
        """Resident memory, MiB."""
        for line in Path(f"/proc/{self.popen.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return float("nan")

    def check(self):
        """Raise RuntimeError if the process has ended."""
        if self.popen.poll() is not None:
            self.log.seek(0)
            raise RuntimeError(f"{self.name} ended:\n{self.log.read()[-2000:]}")

    def stop(self):
        """End the process."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
            try:
                self.popen.wait(10.0)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


def node_process(bundle, transport, name="node"):
    """Start the real node in the namespace `name`."""
    parameters = {
        "bundle": bundle,
        "autostart": "true",
        "image_transport": transport,
    }
    options = [part for key, value in parameters.items() for part in ("-p", f"{key}:={value}")]
    command = [sys.executable, "-m", "rgsiam_ros.node.relocalize", "--ros-args"]
    return Process(name, [*command, "-r", f"__ns:=/{name}", *options], stdout=subprocess.DEVNULL)


def system_process(name, transport, bundle, drive, seed, **options):
    """Start one of the systems of `latency_systems.py`."""
    script = Path(__file__).with_name("latency_systems.py")
    arguments = [name, transport, str(bundle), str(drive), str(seed)]
    return Process(name, [sys.executable, str(script), *arguments], **options)


@dataclass
class Sent:
    """The images that were sent to one system in one stretch of time, by their stamps in nanoseconds."""

    sent_s: dict[int, float] = field(default_factory=dict)
    """Time at which each image was sent, on the monotonic clock."""
    received_s: dict[int, float] = field(default_factory=dict)
    """Time at which the pose of an image was received."""
    worked_on: set[int] = field(default_factory=set)
    """Stamps of the images that the node reports as processed, with or without a pose."""
    cpu_s: float = 0.0
    """CPU time of the system."""
    seconds: float = 0.0


class Camera:
    """Sends images to one system at a time, in the namespace of its name."""

    def __init__(self, trained, drive, transport, seed, names):
        rclpy.init()
        self._trained, self._drive, self._transport = trained, drive, transport
        self._seed, self._period, self._stamp = seed, 1.0, 1_700_000_000 * 10**9
        self._node = rclpy.create_node("camera")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._messages, self._now = {}, Sent()
        self._image, self._info, kept = {}, {}, []
        kind, topic = (
            (Image, "image") if transport == "raw" else (CompressedImage, "image/compressed")
        )
        make = self._node.create_publisher
        for name in names:
            self._image[name] = make(kind, f"/{name}/{topic}", RELIABLE)
            self._info[name] = make(CameraInfo, f"/{name}/camera_info", RELIABLE)
            kept += [
                self._node.create_subscription(
                    PoseWithCovarianceStamped,
                    f"/{name}/relocalize/pose_with_covariance",
                    self._on_pose,
                    QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE),
                ),
                self._node.create_subscription(
                    DiagnosticStatus, f"/{name}/relocalize/status", self._on_status, 100
                ),
            ]
        self._mount = make(TFMessage, "/tf_static", LATCHED)
        mount = TransformStamped(child_frame_id=FRAME)
        mount.header.frame_id = "base_link"
        q = mount.transform.rotation
        q.x, q.y, q.z, q.w = -0.5, 0.5, -0.5, 0.5
        self._mount.publish(TFMessage(transforms=[mount]))

    def _on_pose(self, message):
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self._now.received_s.setdefault(stamp, time.monotonic())

    def _on_status(self, message):
        for value in message.values:
            if value.key == "stamp":
                sec, _, nanosec = value.value.partition(".")
                self._now.worked_on.add(int(sec) * 10**9 + int(nanosec))

    def _spin_until(self, until):
        while (left := until - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=left)

    def prepare(self, size):
        """Make the image messages of one size, ``WIDTHxHEIGHT``, and publish the camera's calibration."""
        width, height = image_size(size)
        self._messages = []
        for content in encoded_images(self._drive, size, self._transport, self._seed):
            data = array("B", content)
            if self._transport == "raw":
                message = Image(height=height, width=width, encoding="bgr8", step=3 * width)
            else:
                message = CompressedImage(format="bgr8; jpeg compressed bgr8")
            message.header.frame_id, message.data = FRAME, data
            self._messages.append(message)
        c = CameraOfSize(self._trained, width, height).fields()
        k = [c["fx"], 0.0, c["cx"], 0.0, c["fy"], c["cy"], 0.0, 0.0, 1.0]
        info = CameraInfo(width=width, height=height, k=k, distortion_model="plumb_bob")
        info.d = [0.0] * 5
        for publisher in self._info.values():
            publisher.publish(info)
        self._spin_until(time.monotonic() + 0.5)

    def _send(self, name, i):
        message, stamp = self._messages[i % len(self._messages)], self._stamp
        self._stamp += round(self._period * 1e9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        self._now.sent_s[stamp] = time.monotonic()
        self._image[name].publish(message)

    def wait_for(self, process):
        """Send images at 30 Hz until the first pose. Returns the seconds since the launch."""
        self._now, self._period, i = Sent(), 1.0 / 30.0, 0
        while not self._now.received_s:
            process.check()
            if time.monotonic() - process.launched > FIRST_POSE_WITHIN_S:
                raise RuntimeError(f"no pose from {process.name}")
            self._send(process.name, i)
            self._spin_until(time.monotonic() + self._period)
            i += 1
        first = min(self._now.received_s.values())
        self._spin_until(time.monotonic() + DRAIN_S)
        return first - process.launched

    def stretch(self, process, rate, seconds):
        """Send images at `rate` for this time, wait for the last poses, and return what was received."""
        self._now, self._period = Sent(), 1.0 / rate
        before, began = process.cpu_s(), time.monotonic()
        for i in range(round(seconds * rate)):
            self._spin_until(began + i * self._period)
            self._send(process.name, i)
        self._spin_until(began + seconds)
        self._now.seconds = time.monotonic() - began
        self._spin_until(time.monotonic() + DRAIN_S)
        self._now.cpu_s = process.cpu_s() - before
        process.check()
        return self._now

    def close(self):
        """Leave DDS."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()
