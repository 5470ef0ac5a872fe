"""Run robot_localization beside a replay, to compare GPS alone, the visual pose alone, and both.

Each set of filters has its own namespace, TF included, and follows the time of the bag. This module imports
ROS.
"""

from __future__ import annotations

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
from rgsiam_ros.fusion.installed import LOCAL_CARTESIAN_SINCE, version_of
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
from rgsiam_ros.node.messages import stamp_message
from rgsiam_ros.node.qos import STATIC_TF_QOS

SETS: dict[str, tuple[str, ...]] = {
    "gps": ("gps",),
    "visual": ("visual",),
    "both": ("gps", "visual"),
}
"""The sources of position that each set of filters fuses with odometry."""
NOT_FINITE = np.full((4, 4), np.nan)
"""Stands in a track for a pose that is not valid. A diverged filter publishes such poses."""
SENSOR_QOS = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
STOP_S = 5.0


@dataclass
class FilterSet:
    """The processes of one set of filters, and the poses that they publish."""

    name: str
    """A key of `SETS`."""
    files: dict[str, Path]
    """The parameter file of each filter, by its name in `rgsiam_ros.fusion.robot_localization`."""
    processes: list[subprocess.Popen] = field(default_factory=list)
    waiting: subprocess.Popen | None = None
    """The process of `rgsiam_ros.node.wait_for_transforms`. None once it has ended, or without GPS."""
    stamps_ns: list[int] = field(default_factory=list)
    T_map_base: list[Array] = field(default_factory=list)
    """The filter's poses, ``(4, 4)``, metres."""


class Filters:
    """All sets of filters whose sources a `FusionSetup` has. The replay sends them the bag's messages."""

    def __init__(
        self, node: Node, prefix: Path, manifest: Manifest, setup: FusionSetup, namespace: str
    ) -> None:
        """Start the processes. setup: topics and frames as in the bag. Raises FusionError."""
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
            for filter_set in self.sets:
                self._start(filter_set)
        except BaseException:
            self.close()
            raise

    @property
    def topics(self) -> dict[str, Any]:
        """The bag's topics that the filters need, with their message classes."""
        topics = {self._setup.wheel_topic: Odometry, self._setup.imu_topic: Imu}
        return topics | ({self._setup.gps_topic: NavSatFix} if self._uses_gps else {})

    def open(self, kinds: dict[str, str]) -> None:
        """Create the publishers of sensor messages. Raises RgsiamError if the bag lacks a sensor.

        kinds: message type of each topic of the bag.
        """
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
        """Publish one serialized message of the bag to the filters that need its topic."""
        if topic == "/tf_static":
            for publisher in self._static:
                publisher.publish(raw)
        elif topic in self._publishers:
            self._publishers[topic].publish(raw)

    def tick(self, at_ns: int) -> None:
        """Publish the bag's time. Starts navsat_transform as soon as its transforms are known."""
        self._clock.publish(Clock(clock=stamp_message(at_ns)))
        for filter_set in self.sets:
            if filter_set.waiting is not None and filter_set.waiting.poll() == 0:
                filter_set.waiting = None
                self._run(filter_set, "navsat_transform_node", "navsat_transform", NAVSAT)

    def tracks(self) -> dict[str, tuple[np.ndarray, Array]]:
        """Stamps ``(N,)`` in nanoseconds and poses ``T_map_base`` ``(N, 4, 4)`` of each set.

        A pose that is not valid is NaN. N is 0 for a set that published nothing.
        """
        return {
            filter_set.name: (
                np.array(filter_set.stamps_ns, np.int64),
                np.array(filter_set.T_map_base, np.float64).reshape(-1, 4, 4),
            )
            for filter_set in self.sets
        }

    def close(self) -> None:
        """End all processes. Warn of those that ended by themselves or were never started."""
        for filter_set in self.sets:
            self._warn_of_failures(filter_set)
        processes = [
            p
            for filter_set in self.sets
            for p in (*filter_set.processes, filter_set.waiting)
            if p is not None
        ]
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

    def _warn_of_failures(self, filter_set: FilterSet) -> None:
        log = self._node.get_logger()
        for process in filter_set.processes:
            if process.poll() is not None:
                name = Path(process.args[0]).name  # type: ignore[index, arg-type]
                log.warning(
                    f"{filter_set.name}: {name} ended by itself ({process.returncode}): see above"
                )
        if filter_set.waiting is not None and filter_set.waiting.poll() != 0:
            log.warning(
                f"{filter_set.name}: navsat_transform was never started, as {self._setup.base_frame} -> "
                f"{self._setup.gps_frame} or {self._setup.map_frame} -> {self._setup.base_frame} is "
                "missing: record the antenna's mount on /tf_static"
            )

    def _prepare(self, name: str, manifest: Manifest) -> FilterSet:
        set_namespace = f"{self._namespace}/{name}"
        setup = replace(
            self._setup,
            wheel_topic=self._namespace + self._setup.wheel_topic,
            imu_topic=self._namespace + self._setup.imu_topic,
            gps_topic=self._namespace + self._setup.gps_topic,
            pose_topic=f"{self._namespace}/relocalize/pose_with_covariance",
            gps_odometry_topic=f"{set_namespace}/odometry/gps",
            sources=SETS[name],
            two_d_mode=self._setup.two_d_mode or "visual" not in SETS[name],
        )
        files = {}
        for file, values in filter_parameters(manifest, setup).items():
            overrides: dict[str, Any] = {"use_sim_time": True}
            if file == NAVSAT and self.version < LOCAL_CARTESIAN_SINCE:
                overrides["use_local_cartesian"] = False
            files[file] = Path(self._folder.name) / f"{name}_{file}"
            files[file].write_text(to_yaml(file, values | overrides))
        return FilterSet(name, files)

    def _start(self, filter_set: FilterSet) -> None:
        def take(message: Odometry) -> None:
            pose = message.pose.pose
            filter_set.stamps_ns.append(stamp_to_ns(message.header.stamp))
            try:
                filter_set.T_map_base.append(pose_from_message(pose.position, pose.orientation))
            except ValueError:  # a diverged filter must not end the replay
                filter_set.T_map_base.append(NOT_FINITE)

        self._node.create_subscription(
            Odometry, f"{self._namespace}/{filter_set.name}/odometry/filtered/map", take, SENSOR_QOS
        )
        for world, file in (("odom", EKF_ODOM), ("map", EKF_MAP)):
            self._run(filter_set, "ekf_node", f"ekf_{world}", file, f"odometry/filtered/{world}")
        if NAVSAT in filter_set.files:
            setup = self._setup
            command = [sys.executable, "-m", "rgsiam_ros.node.wait_for_transforms"]
            command += [setup.base_frame, setup.gps_frame, setup.map_frame, setup.base_frame]
            filter_set.waiting = subprocess.Popen(
                [*command, "--ros-args", *self._namespace_rules(filter_set)]
            )

    def _run(
        self,
        filter_set: FilterSet,
        executable: str,
        name: str,
        file: str,
        filtered: str | None = None,
    ) -> None:
        command = [str(self._prefix / "lib/robot_localization" / executable), "--ros-args"]
        command += [*self._namespace_rules(filter_set), "-r", f"__node:={name}"]
        command += ["--params-file", str(filter_set.files[file])]
        command += ["-r", f"odometry/filtered:={filtered or 'odometry/filtered/map'}"]
        command += ["-r", f"gps/fix:={self._namespace}{self._setup.gps_topic}"]
        filter_set.processes.append(subprocess.Popen(command))

    def _namespace_rules(self, filter_set: FilterSet) -> list[str]:
        rules = (f"__ns:={self._namespace}/{filter_set.name}", "/tf:=tf", "/tf_static:=tf_static")
        clock = f"/clock:={self._namespace}/clock"
        return [word for rule in (*rules, clock) for word in ("-r", rule)]
