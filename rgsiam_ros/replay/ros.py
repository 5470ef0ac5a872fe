"""Replay a drive over DDS through the real node, which runs in another process. This module imports ROS."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.fusion.report import Tracks
from rgsiam_ros.fusion.robot_localization import FusionSetup
from rgsiam_ros.geometry.conversions import pose_from_message, stamp_to_ns
from rgsiam_ros.recordings.bag_reading import open_bag, recorded
from rgsiam_ros.recordings.rosbag import Drive
from rgsiam_ros.replay.large_images import large_image_profile
from rgsiam_ros.replay.node_reports import NodeReports
from rgsiam_ros.replay.options import ReplayOptions
from rgsiam_ros.report.records import FrameRecord, ReplayRecord

if TYPE_CHECKING:
    from rgsiam_ros.replay.filters import Filters

try:
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
    from geometry_msgs.msg import PoseWithCovarianceStamped
    from lifecycle_msgs.msg import State
    from lifecycle_msgs.srv import GetState
    from rclpy.node import Node
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image
    from tf2_msgs.msg import TFMessage

    from rgsiam_ros.node.qos import STATIC_TF_QOS
    from rgsiam_ros.node.status import TASK
except ImportError as error:
    raise RgsiamError(
        f"--ros needs ROS 2's Python packages ({error}): source your ROS installation, or run in "
        "the environment that `make demo` sets up"
    ) from error

logger = logging.getLogger(__name__)

MESSAGES = {
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/Image": Image,
}
NAMESPACE = "/rgsiam_replay"
"""Namespace of all topics, TF included, so that a replay on a live robot does not disturb it."""
GLOBAL_TOPICS = ("tf", "tf_static", "diagnostics")
START_TIMEOUT_S = 300.0
"""Longest wait for the node to become active. A node that ends is noticed at once."""
QUIET_S = 5.0
"""After the last image, the replay ends when every image has a pose, or when no pose came for this time."""
PLAYER_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
POSE_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
STATUS_QOS = QoSProfile(
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def replay_through_node(
    drive: Drive, bundle: Path, options: ReplayOptions, console: Console
) -> tuple[ReplayRecord, dict[str, int], Tracks]:
    """Play the bag's camera at its own pace into a fresh `relocalize` node and collect its poses.

    Also returns how many images got no pose for which reason, see `NodeReports.count`, and the tracks of
    robot_localization's filters: none unless it is installed and ``options.with_filter`` is set; `options.fusion`
    must then be set. Raises RgsiamError if the node does not start or ends during
    the replay.
    """
    context = rclpy.Context()
    with large_image_profile():
        rclpy.init(context=context)
        player = _Player(drive, context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(player)
    try:
        with _node_process(drive, bundle, options) as process:
            player.wait_until_active(executor, process)
            if options.with_filter and options.fusion is not None:
                player.start_filters(bundle, options.fusion)
            player.play(executor, options.rate, process, console)
        record, counts = player.record()
        return record, counts, {} if player.filters is None else player.filters.tracks()
    finally:
        if player.filters is not None:
            player.filters.close()
        executor.shutdown()
        player.destroy_node()
        rclpy.try_shutdown(context=context)


class _Player(Node):
    """Publishes a drive and records the poses that the node publishes."""

    def __init__(self, drive: Drive, context: Any) -> None:
        super().__init__("player", namespace=NAMESPACE, context=context)
        self._drive = drive
        self._sent_at: dict[int, float] = {}  # monotonic time by the stamp (ns) of the image
        self._frames: dict[int, FrameRecord] = {}
        self._map_frame = ""
        self._reports = NodeReports(TASK)
        self.filters: Filters | None = None
        name = "image/compressed" if _is_compressed(drive) else "image"
        self._image = self.create_publisher(MESSAGES[drive.image_type], name, PLAYER_QOS)
        self._info = self.create_publisher(CameraInfo, "camera_info", PLAYER_QOS)
        self._static = self.create_publisher(TFMessage, "tf_static", STATIC_TF_QOS)
        self.create_subscription(
            PoseWithCovarianceStamped,
            "relocalize/pose_with_covariance",
            self._take_pose,
            POSE_QOS,
        )
        take = self._reports
        self.create_subscription(
            DiagnosticStatus, "relocalize/status", take.take_status, STATUS_QOS
        )
        self.create_subscription(DiagnosticArray, "diagnostics", take.take_diagnostics, POSE_QOS)
        self._get_state = self.create_client(GetState, "relocalize/get_state")

    def wait_until_active(self, executor: Any, process: subprocess.Popen) -> None:
        """Wait until the node is active and subscribed to the images. Raises RgsiamError."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            executor.spin_once(timeout_sec=0.1)
            if not self._get_state.service_is_ready():
                continue
            future = self._get_state.call_async(GetState.Request())
            executor.spin_until_future_complete(future, timeout_sec=2.0)
            state = future.result()
            active = state is not None and state.current_state.id == State.PRIMARY_STATE_ACTIVE
            if active and self._image.get_subscription_count() > 0:
                return
        raise RgsiamError(
            f"the relocalize node ended, or was not active within {START_TIMEOUT_S:.0f} s: see its "
            "messages above"
        )

    def start_filters(self, bundle: Path, setup: FusionSetup) -> None:
        """Start robot_localization beside the node, or warn that it is not installed."""
        from rgsiam_ros.fusion.installed import find_robot_localization
        from rgsiam_ros.replay.filters import Filters

        prefix = find_robot_localization()
        if prefix is None:
            logger.warning(
                "robot_localization is not installed (no lib/robot_localization/ekf_node on "
                "AMENT_PREFIX_PATH): the replay runs without it. Install it with `apt install "
                "ros-jazzy-robot-localization`"
            )
            return
        manifest = Bundle.load(bundle).manifest
        if manifest.datum is None:
            logger.warning(
                "the bundle has no datum: the filters run without GPS. Add a datum with `rgsiam georeference`"
            )
        self.filters = Filters(self, prefix, manifest, setup, NAMESPACE)
        with open_bag(self._drive.path) as reader:
            self.filters.open({c.topic: c.msgtype for c in reader.connections})
        version = ".".join(str(part) for part in self.filters.version) or "of unknown version"
        logger.info("robot_localization %s at %s", version, prefix)

    def play(self, executor: Any, rate: float, process: subprocess.Popen, console: Console) -> None:
        """Publish the bag at `rate` times its recorded speed, then wait for the last poses."""
        from rgsiam_ros.replay.progress import progress_bar

        topics = {self._drive.image_topic, self._drive.camera_info_topic, "/tf_static"}
        if self.filters is not None:
            topics |= set(self.filters.topics)
        image_stamps = iter(self._drive.image_stamps_ns.tolist())
        with open_bag(self._drive.path) as reader, progress_bar(console) as bar:
            task = bar.add_task("through the node", total=self._drive.images)
            chosen = [c for c in reader.connections if c.topic in topics]
            first_ns = started = None
            for connection, at_ns, raw in recorded(reader, chosen, self._drive.path):
                first_ns = at_ns if first_ns is None else first_ns
                started = time.monotonic() if started is None else started
                _spin_until(executor, started + (at_ns - first_ns) * 1e-9 / rate)
                if process.poll() is not None:
                    raise RgsiamError("the relocalize node ended during the replay: see above")
                if self.filters is not None:
                    self.filters.tick(at_ns)
                    self.filters.feed(connection.topic, bytes(raw))
                if connection.topic == self._drive.image_topic:
                    self._sent_at[next(image_stamps)] = time.monotonic()
                    self._image.publish(bytes(raw))
                    bar.advance(task)
                elif connection.topic == "/tf_static":
                    self._static.publish(bytes(raw))
                    # the mount must arrive before the images
                    _spin_until(executor, time.monotonic() + 0.5)
                    started += 0.5
                elif connection.topic == self._drive.camera_info_topic:
                    self._info.publish(bytes(raw))
        known, deadline = self._known(), time.monotonic() + QUIET_S
        while time.monotonic() < deadline and known < len(self._sent_at):
            executor.spin_once(timeout_sec=0.1)
            if self._known() > known:
                known, deadline = self._known(), time.monotonic() + QUIET_S

    def _known(self) -> int:
        """Number of sent images that have a pose, or of which the node says why they have none."""
        without = (s for s, report in self._reports.images.items() if not report.published)
        return len(self._sent_at.keys() & {*self._frames, *without})

    def record(self) -> tuple[ReplayRecord, dict[str, int]]:
        """The record of every published image, with what the node said about it, and what became of those
        without a pose.
        """
        sent = sorted(self._sent_at)
        counts = self._reports.count(sent, set(self._frames))
        silent = self._reports.why_silent(counts)
        frames = []
        for stamp in sent:
            frame = self._frames.get(stamp, FrameRecord(stamp, problem=silent))
            report = self._reports.images.get(stamp)
            frames.append(frame if report is None else report.on(frame))
        map_frame = self._map_frame or self._drive.map_frame
        return ReplayRecord(frames, self._drive.base_frame, map_frame), counts

    def _take_pose(self, message: PoseWithCovarianceStamped) -> None:
        received = time.monotonic()
        stamp = stamp_to_ns(message.header.stamp)
        sent = self._sent_at.get(stamp)
        if sent is None:
            return
        pose = message.pose.pose
        self._map_frame = message.header.frame_id
        self._frames[stamp] = FrameRecord(
            stamp,
            pose_from_message(pose.position, pose.orientation),
            np.asarray(message.pose.covariance).reshape(6, 6),
            timings_ms={"image to pose": (received - sent) * 1e3},
        )


@contextmanager
def _node_process(drive: Drive, bundle: Path, options: ReplayOptions) -> Iterator[subprocess.Popen]:
    """Run the node in a process of its own, as on a vehicle. SIGINT ends it."""
    fusion = options.fusion if options.with_filter else None
    planar = fusion is not None and fusion.two_d_mode
    parameters = {
        "bundle": str(bundle.resolve()),
        "image_transport": "compressed" if _is_compressed(drive) else "raw",
        "engine": options.engine.engine,
        "precision": options.engine.precision,
        "engine_fallback": "none",
        "branch": options.branch,
        "threads": str(options.engine.threads),
        "base_frame": drive.base_frame,
        "rectified_images": str(options.topics.rectified).lower(),
        "planar_covariance": str(planar).lower(),
        "autostart": "true",
    }
    command = [sys.executable, "-m", "rgsiam_ros.node.relocalize", "--ros-args"]
    for rule in (f"__ns:={NAMESPACE}", *(f"/{name}:={name}" for name in GLOBAL_TOPICS)):
        command += ["-r", rule]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    with tempfile.TemporaryDirectory(prefix="rgsiam_log_") as logs:
        environment = {**os.environ, "ROS_LOG_DIR": os.environ.get("ROS_LOG_DIR", logs)}
        process = subprocess.Popen(command, env=environment)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_compressed(drive: Drive) -> bool:
    return drive.image_type == "sensor_msgs/msg/CompressedImage"


def _spin_until(executor: Any, moment: float) -> None:
    while (left := moment - time.monotonic()) > 0.0:
        executor.spin_once(timeout_sec=left)
