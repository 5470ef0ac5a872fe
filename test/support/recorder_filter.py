"""Stands in for a node of robot_localization and writes down what it gets: one JSON line for each event.

Usage: NAME FILE --ros-args ..., where NAME is ekf_odom, ekf_map or navsat_transform. As the real ones, the map
filter does nothing before it is enabled, and starts at the origin; each second fix is converted to zero. The odometry
filter gives the pose of the wheel odometry. The map filter stays where set_pose has put it.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path

import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import NavSatFix
from std_srvs.srv import Empty
from tf2_msgs.msg import TFMessage


class Recorder(Node):
    def __init__(self, name, path):
        super().__init__(name, automatically_declare_parameters_from_overrides=True)
        self.path, self.fixes = Path(path), 0
        if name == "navsat_transform":
            self.out = self.create_publisher(Odometry, "odometry/gps", 10)
            self.create_subscription(NavSatFix, "gps/fix", self.convert, 10)
            return
        value = {key: self.get_parameter(key).value for key in self._parameters}
        self.world, self.odom = value["world_frame"], value["odom_frame"]
        self.base = value["base_link_frame"]
        self.enabled = not value.get("disabled_at_startup", False)
        self.now = Odometry(child_frame_id=self.base)
        self.now.pose.pose.orientation.w = 1.0
        self.now.pose.covariance[::7] = [1e6, 1e6, 1e-6, 1e-6, 1e-6, 10.0]
        self.filtered = self.create_publisher(Odometry, "odometry/filtered", 10)
        self.tf = self.create_publisher(TFMessage, "/tf", 10)
        self.create_subscription(Odometry, value["odom0"], self.filter, 10)
        self.create_subscription(PoseWithCovarianceStamped, "set_pose", self.set_pose, 1)
        self.create_service(Empty, "enable", self.enable)
        if "odom1" in value:
            self.create_subscription(
                Odometry, value["odom1"], lambda message: self.take("gps", message), 10
            )
        if "pose0" in value:
            kind = PoseWithCovarianceStamped
            self.create_subscription(
                kind, value["pose0"], lambda message: self.take("pose", message), 10
            )

    def record(self, event, position=None):
        place = None if position is None else [position.x, position.y]
        with self.path.open("a") as file:
            file.write(json.dumps([event, place]) + "\n")

    def set_pose(self, message):
        self.record("set_pose", message.pose.pose.position)
        self.now.pose = message.pose

    def enable(self, _, response):
        self.record("enable")
        self.enabled = True
        return response

    def take(self, kind, message):
        self.record(kind, message.pose.pose.position)

    def filter(self, message):
        if not self.enabled:
            return
        self.now.twist = message.twist
        if self.world == self.odom:
            self.now.pose.pose = message.pose.pose
        self.now.header.stamp, self.now.header.frame_id = message.header.stamp, self.world
        self.filtered.publish(self.now)
        moved = TransformStamped(header=self.now.header)
        moved.child_frame_id = self.base if self.world == self.odom else self.odom
        moved.transform.translation.x = self.now.pose.pose.position.x
        moved.transform.translation.y = self.now.pose.pose.position.y
        self.tf.publish(TFMessage(transforms=[moved]))

    def convert(self, message):
        self.fixes += 1
        converted = Odometry(header=message.header)
        if self.fixes % 2:
            converted.pose.pose.position.x = converted.pose.pose.position.y = 7.0
        self.out.publish(converted)


if __name__ == "__main__":
    rclpy.init()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Recorder(*sys.argv[1:3]))
