"""The shipped Fast DDS profile: it loads, and large raw images arrive with it."""

import os
import subprocess
import sys
import time

import pytest
from support.paths import ROOT
from support.waiting import PATIENCE_S

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

pytestmark = [pytest.mark.ros, pytest.mark.slow]

COUNT, RATE_HZ = 60, 30.0
BEST_EFFORT = QoSProfile(depth=COUNT, reliability=ReliabilityPolicy.BEST_EFFORT)
"""The queue holds all images, so that none is lost because this test is slow."""

DRIVER = f"""
import time, rclpy
from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("driver")
qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, "image", qos)
begin = []
node.create_subscription(Time, "begin", begin.append, 1)
while not begin or publisher.get_subscription_count() == 0:
    rclpy.spin_once(node, timeout_sec=0.05)
message = Image(height=480, width=640, encoding="bgr8", step=1920, data=bytes(480 * 1920))
for i in range({COUNT}):
    message.header.stamp.sec = i + 1
    publisher.publish(message)
    time.sleep({1.0 / RATE_HZ})
time.sleep(0.5)
"""


def test_large_raw_images_arrive_with_the_profile(peer, tmp_path):
    seen = set()
    images = peer.create_subscription(
        Image, "image", lambda m: seen.add(m.header.stamp.sec), BEST_EFFORT
    )
    peer.destroy_publisher(peer.image)  # the driver's is the only one
    begin = peer.create_publisher(Time, "begin", 1)
    environment = {
        **os.environ,
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds_large_images.xml"),
        "ROS_LOG_DIR": str(tmp_path),
    }
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], env=environment)
    try:

        def begun():
            if images.get_publisher_count() > 0:
                begin.publish(Time())
            return seen

        peer.wait(begun, "the first image")
        deadline = time.monotonic() + PATIENCE_S
        while driver.poll() is None and time.monotonic() < deadline:
            peer.spin(0.1)
        assert driver.returncode == 0
        peer.wait(lambda: len(seen) >= 0.7 * COUNT, f"70 % of {COUNT} images")
    finally:
        driver.kill()
        driver.wait()
    print(f"{len(seen)} of {COUNT} images arrived")
