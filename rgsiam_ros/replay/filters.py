"""robot_localization beside a replay: the same drive with GPS only, the visual pose only, and both.

Each set of filters lives in a namespace of its own, TF included, on the time of the bag. An adapter: it
imports ROS.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Imu, NavSatFix
from tf2_msgs.msg import TFMessage

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.fusion.robot_localization import (
    EKF_MAP,
    EKF_ODOM,
    NAVSAT,
    FusionSetup,
    filter_parameters,
    to_yaml,
)
from rgsiam_ros.geometry.conversions import pose_from_message, stamp_to_ns
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.node.qos import STATIC_TF_QOS

SETS: dict[str, tuple[str, ...]] = {
    "gps": ("gps",),
    "visual": ("visual",),
    "both": ("gps", "visual"),
}
NOT_FINITE = np.full((4, 4), np.nan)
"""What stands in a track for an answer that is no pose: a diverged filter's."""
SENSOR_QOS = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LOCAL_CARTESIAN_SINCE = (3, 8, 1)
STOP_S = 5.0


def find_robot_localization() -> Path | None:
    """The prefix that robot_localization is installed in, or None."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix and (Path(prefix) / "lib/robot_localization/ekf_node").is_file():
            return Path(prefix)
    return None


def version_of(prefix: Path) -> tuple[int, ...]:
    """Of robot_localization; empty where its package.xml does not say."""
    path = prefix / "share/robot_localization/package.xml"
    found = re.search(r"<version>([\d.]+)</version>", path.read_text()) if path.is_file() else None
    return tuple(int(part) for part in found[1].split(".")) if found else ()


@dataclass
class FilterSet:
    """The nodes of one set, and what they say."""

    name: str
    files: dict[str, Path]
    processes: list[subprocess.Popen] = field(default_factory=list)
    waiting: subprocess.Popen | None = None
    stamps_ns: list[int] = field(default_factory=list)
    T_map_base: list[Array] = field(default_factory=list)


class Filters:
    """A set of filters for each way to fuse that the set-up's sources allow, fed by the replay."""

    def __init__(
        self, node: Node, prefix: Path, manifest: Manifest, setup: FusionSetup, namespace: str
    ) -> None:
        """Starts the processes. setup: the bag's own topics and frames. Raises FusionError."""
        self._node, self._prefix, self._setup, self._namespace = node, prefix, setup, namespace
        self.version = version_of(prefix)
        names = [name for name, sources in SETS.items() if set(sources) <= set(setup.sources)]
        self._folder = tempfile.TemporaryDirectory(prefix="rgsiam_filters_")
        self._clock = node.create_publisher(Clock, f"{namespace}/clock", SENSOR_QOS)
        self._publishers: dict[str, Any] = {}
        self._static = [
            node.create_publisher(TFMessage, f"{namespace}/{name}/tf_static", STATIC_TF_QOS)
            for name in names
        ]
        self.sets: list[FilterSet] = []
        try:
            self.sets += [self._prepare(name, manifest) for name in names]
            for one in self.sets:
                self._start(one)
        except BaseException:
            self.close()
            raise

    @property
    def topics(self) -> dict[str, Any]:
        """Topics of the bag that are to be fed, with their message classes."""
        topics = {self._setup.wheel_topic: Odometry, self._setup.imu_topic: Imu}
        return topics | ({self._setup.gps_topic: NavSatFix} if self._uses_gps else {})

    def open(self, kinds: dict[str, str]) -> None:
        """kinds: message types of the bag's topics. Raises RgsiamError where a sensor is missing."""
        for topic, kind in self.topics.items():
            wanted = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
            if kinds.get(topic) != wanted:
                raise RgsiamError(
                    f"the bag has no {topic} of type {wanted}, which the filter needs: give its topics "
                    "with --fusion-config, or replay without --with-filter"
                )
            self._publishers[topic] = self._node.create_publisher(
                kind, self._namespace + topic, SENSOR_QOS
            )

    def feed(self, topic: str, raw: bytes) -> None:
        """One message of the bag."""
        if topic == "/tf_static":
            for publisher in self._static:
                publisher.publish(raw)
        elif topic in self._publishers:
            self._publishers[topic].publish(raw)

    def tick(self, at_ns: int) -> None:
        """The bag's time; also starts navsat_transform where its transforms are there."""
        clock = Clock()
        clock.clock.sec, clock.clock.nanosec = at_ns // 10**9, at_ns % 10**9
        self._clock.publish(clock)
        for one in self.sets:
            if one.waiting is not None and one.waiting.poll() == 0:
                one.waiting = None
                self._run(one, "navsat_transform_node", "navsat_transform", NAVSAT)

    def tracks(self) -> dict[str, tuple[np.ndarray, Array]]:
        """Stamps (ns) and poses ``T_map_base`` ``(N, 4, 4)`` of each set.

        A pose of NaN is an answer that was none; a set that never answered has no poses.
        """
        return {
            one.name: (
                np.array(one.stamps_ns, np.int64),
                np.array(one.T_map_base, np.float64).reshape(-1, 4, 4),
            )
            for one in self.sets
        }

    def close(self) -> None:
        """End every process; say so where one had ended by itself, or never was started."""
        for one in self.sets:
            self._complain(one)
        processes = [p for one in self.sets for p in (*one.processes, one.waiting) if p is not None]
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    @property
    def _uses_gps(self) -> bool:
        return "gps" in self._setup.sources

    def _complain(self, one: FilterSet) -> None:
        log = self._node.get_logger()
        for process in one.processes:
            if process.poll() is not None:
                name = Path(process.args[0]).name  # type: ignore[index, arg-type]
                log.warning(f"{one.name}: {name} ended by itself ({process.returncode}): see above")
        if one.waiting is not None and one.waiting.poll() != 0:
            log.warning(
                f"{one.name}: navsat_transform was never started, as {self._setup.base_frame} -> "
                f"{self._setup.gps_frame} or {self._setup.map_frame} -> {self._setup.base_frame} is "
                "missing: record the antenna's mount on /tf_static"
            )

    def _prepare(self, name: str, manifest: Manifest) -> FilterSet:
        inside = f"{self._namespace}/{name}"
        setup = replace(
            self._setup,
            wheel_topic=self._namespace + self._setup.wheel_topic,
            imu_topic=self._namespace + self._setup.imu_topic,
            gps_topic=self._namespace + self._setup.gps_topic,
            pose_topic=f"{self._namespace}/relocalize/pose_with_covariance",
            gps_odometry_topic=f"{inside}/odometry/gps",
            sources=SETS[name],
            two_d_mode=self._setup.two_d_mode or "visual" not in SETS[name],
        )
        files = {}
        for file, values in filter_parameters(manifest, setup).items():
            own: dict[str, Any] = {"use_sim_time": True}
            if file == NAVSAT and self.version < LOCAL_CARTESIAN_SINCE:
                own["use_local_cartesian"] = False
            files[file] = Path(self._folder.name) / f"{name}_{file}"
            files[file].write_text(to_yaml(file, values | own))
        return FilterSet(name, files)

    def _start(self, one: FilterSet) -> None:
        def take(message: Odometry) -> None:
            pose = message.pose.pose
            one.stamps_ns.append(stamp_to_ns(message.header.stamp))
            try:
                one.T_map_base.append(pose_from_message(pose.position, pose.orientation))
            except ValueError:  # a filter that diverged must not end the replay
                one.T_map_base.append(NOT_FINITE)

        self._node.create_subscription(
            Odometry, f"{self._namespace}/{one.name}/odometry/filtered/map", take, SENSOR_QOS
        )
        for world, file in (("odom", EKF_ODOM), ("map", EKF_MAP)):
            self._run(one, "ekf_node", f"ekf_{world}", file, f"odometry/filtered/{world}")
        if NAVSAT in one.files:
            setup = self._setup
            command = [sys.executable, "-m", "rgsiam_ros.node.wait_for_transforms"]
            command += [setup.base_frame, setup.gps_frame, setup.map_frame, setup.base_frame]
            one.waiting = subprocess.Popen([*command, "--ros-args", *self._names(one)])

    def _run(
        self, one: FilterSet, executable: str, name: str, file: str, filtered: str | None = None
    ) -> None:
        command = [str(self._prefix / "lib/robot_localization" / executable), "--ros-args"]
        command += [*self._names(one), "-r", f"__node:={name}"]
        command += ["--params-file", str(one.files[file])]
        command += ["-r", f"odometry/filtered:={filtered or 'odometry/filtered/map'}"]
        command += ["-r", f"gps/fix:={self._namespace}{self._setup.gps_topic}"]
        one.processes.append(subprocess.Popen(command))

    def _names(self, one: FilterSet) -> list[str]:
        rules = (f"__ns:={self._namespace}/{one.name}", "/tf:=tf", "/tf_static:=tf_static")
        clock = f"/clock:={self._namespace}/clock"
        return [word for rule in (*rules, clock) for word in ("-r", rule)]
