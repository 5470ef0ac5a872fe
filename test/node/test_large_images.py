"""The shipped Fast DDS profile: it loads, and large raw images then arrive."""

import os
import subprocess
import sys
import time

import pytest
from support.paths import ROOT

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

COUNT, RATE_HZ = 60, 30.0
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)

DRIVER = f"""
import time, rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("driver")
qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
publisher = node.create_publisher(Image, "image", qos)
while publisher.get_subscription_count() == 0:
    time.sleep(0.05)
time.sleep(1.0)
message = Image(height=480, width=640, encoding="bgr8", step=1920, data=bytes(480 * 1920))
for i in range({COUNT}):
    message.header.stamp.sec = i + 1
    publisher.publish(message)
    time.sleep({1.0 / RATE_HZ})
time.sleep(0.5)
"""


def test_raw_images_arrive_with_the_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("ROS_DOMAIN_ID", "58")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=58)
    node = rclpy.create_node("listener", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    seen = set()
    node.create_subscription(Image, "image", lambda m: seen.add(m.header.stamp.sec), BEST_EFFORT)
    profile = ROOT / "config" / "fastdds_large_images.xml"
    environment = {
        **os.environ,
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(profile),
        "ROS_LOG_DIR": str(tmp_path),
    }
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], env=environment)
    deadline = time.monotonic() + 40.0
    while driver.poll() is None and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.1)
    driver.kill()
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()
    print(f"{len(seen)} of {COUNT} images arrived")
    assert len(seen) >= 0.7 * COUNT
