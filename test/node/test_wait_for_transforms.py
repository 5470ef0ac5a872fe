"""navsat_transform is started only when its transforms are there."""

import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from support.ros_peer import transform
from support.waiting import PATIENCE_S
from tf2_msgs.msg import TFMessage

pytestmark = pytest.mark.ros

COMMAND = [sys.executable, "-m", "rgsiam_ros.node.wait_for_transforms"]
PAIRS = ["base_link", "gps_link", "map", "base_link"]


@pytest.mark.slow
def test_the_program_names_missing_transforms_and_ends_with_the_last(peer, tmp_path):
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen([*COMMAND, *PAIRS], stdout=log, stderr=subprocess.STDOUT)
    try:
        peer.static.publish(TFMessage(transforms=[transform("base_link", "gps_link")]))
        deadline = time.monotonic() + PATIENCE_S
        while "transforms are missing" not in (tmp_path / "log").read_text():
            assert time.monotonic() < deadline
            peer.spin(0.2)
        text = (tmp_path / "log").read_text()
        assert "missing: map -> base_link." in text
        assert process.poll() is None
        while process.poll() is None:
            assert time.monotonic() < deadline
            peer.moving.publish(
                TFMessage(transforms=[transform("map", "odom"), transform("odom", "base_link")])
            )
            peer.spin(0.2)
        assert process.returncode == 0
    finally:
        process.kill()
        log.close()


def test_an_odd_number_of_frames_is_refused():
    done = subprocess.run(
        [*COMMAND, "map"], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 2
    assert "give pairs of frames" in done.stderr
