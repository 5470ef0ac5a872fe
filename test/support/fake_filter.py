"""A stand-in for robot_localization's `ekf_node` and `navsat_transform_node`: same topics and parameters.

It filters nothing: the map EKF answers each wheel message with the last absolute position that it was
given, and with NaN where the speed is NaN. The fake navsat_transform gives the latitude as x, the longitude
as y.
"""

import sys
from contextlib import suppress
from pathlib import Path

import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import NavSatFix
from tf2_msgs.msg import TFMessage


class Ekf(Node):
    def __init__(self):
        super().__init__("ekf", automatically_declare_parameters_from_overrides=True)
        value = {name: self.get_parameter(name).value for name in self._parameters}
        self.world, self.odom = value["world_frame"], value["odom_frame"]
        self.base = value["base_link_frame"]
        self.at = (0.0, 0.0)
        self.filtered = self.create_publisher(Odometry, "odometry/filtered", 10)
        self.tf = self.create_publisher(TFMessage, "/tf", 10)
        self.create_subscription(Odometry, value["odom0"], self.filter, 10)
        if "odom1" in value:
            self.create_subscription(Odometry, value["odom1"], self.take, 10)
        if "pose0" in value:
            self.create_subscription(PoseWithCovarianceStamped, value["pose0"], self.take, 10)

    def take(self, message):
        self.at = (message.pose.pose.position.x, message.pose.pose.position.y)

    def filter(self, message):
        filtered = Odometry(child_frame_id=self.base)
        filtered.header.stamp, filtered.header.frame_id = message.header.stamp, self.world
        speed = message.twist.twist.linear.x
        filtered.pose.pose.position.x = self.at[0] if speed == speed else speed
        filtered.pose.pose.position.y = self.at[1]
        self.filtered.publish(filtered)
        moved = TransformStamped(
            child_frame_id=self.base if self.world == self.odom else self.odom,
        )
        moved.header = filtered.header
        self.tf.publish(TFMessage(transforms=[moved]))


class Navsat(Node):
    def __init__(self):
        super().__init__("navsat_transform", automatically_declare_parameters_from_overrides=True)
        assert len(self.get_parameter("datum").value) == 3
        self.out = self.create_publisher(Odometry, "odometry/gps", 10)
        self.create_subscription(NavSatFix, "gps/fix", self.convert, 10)

    def convert(self, message):
        converted = Odometry(header=message.header)
        converted.pose.pose.position.x = message.latitude
        converted.pose.pose.position.y = message.longitude
        self.out.publish(converted)


if __name__ == "__main__":
    rclpy.init()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Ekf() if Path(sys.argv[0]).name == "ekf_node" else Navsat())
