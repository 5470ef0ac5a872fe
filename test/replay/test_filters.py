"""Replay beside filters: real processes and DDS, with a fake robot_localization."""

import json
import math
import sys
import time

import numpy as np
import pytest
import yaml
from support.bags import copy_bag
from support.command_line import rgsiam
from support.paths import ROOT, TOWN_BUNDLE, TOWN_DRIVE
from support.waiting import PATIENCE_S

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import NavSatFix
from tf2_msgs.msg import TFMessage

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.errors import FusionError, RgsiamError
from rgsiam_ros.fusion.installed import find_robot_localization
from rgsiam_ros.fusion.robot_localization import FusionSetup, write_files
from rgsiam_ros.replay.filters import Filters
from rgsiam_ros.replay.options import ReplayOptions
from rgsiam_ros.replay.run import run_replay

DOMAIN = 100
"""Not one of `support.ros_peer.DOMAINS`. The ports of domains above 101 may be taken on Linux."""
SETUP = FusionSetup(
    wheel_topic="/odom", imu_topic="/imu", gps_topic="/fix", gps_frame="antenna", sources=("gps",)
)
KINDS = {
    "/odom": "nav_msgs/msg/Odometry",
    "/imu": "sensor_msgs/msg/Imu",
    "/fix": "sensor_msgs/msg/NavSatFix",
}


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An installation prefix with a fake robot_localization of version 3.8.3."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    folder = tmp_path / "prefix"
    programs = folder / "lib" / "robot_localization"
    programs.mkdir(parents=True)
    source = (ROOT / "test" / "support" / "fake_filter.py").read_text()
    for name in ("ekf_node", "navsat_transform_node"):
        (programs / name).write_text(f"#!{sys.executable}\n{source}")
        (programs / name).chmod(0o755)
    share = folder / "share" / "robot_localization"
    share.mkdir(parents=True)
    (share / "package.xml").write_text("<package><version>3.8.3</version></package>")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{folder}")
    return folder


@pytest.fixture
def player():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = Node("player", namespace="/replay_test", context=context)
    node.executor_ = SingleThreadedExecutor(context=context)
    node.executor_.add_node(node)
    yield node
    node.executor_.shutdown()
    node.destroy_node()
    context.try_shutdown()


def feed_step(filters, player, step, speed=1.0):
    """Feed one message of each sensor. A step is 0.1 s of the bag's time."""
    at_ns = 1_700_000_000_000_000_000 + step * 100_000_000
    wheel, fix = Odometry(), NavSatFix(latitude=48.0, longitude=11.5)
    for message in (wheel, fix):
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(at_ns, 10**9)
    wheel.twist.twist.linear.x = speed
    filters.tick(at_ns)
    filters.feed("/odom", serialize_message(wheel))
    filters.feed("/fix", serialize_message(fix))
    filters.feed("/camera", b"not for the filters")
    player.executor_.spin_once(timeout_sec=0.05)


def feed_until(filters, player, condition, first_step, speed=1.0):
    """Feed steps until the condition holds. Returns the next step."""
    deadline, step = time.monotonic() + PATIENCE_S, first_step
    while not condition():
        assert time.monotonic() < deadline
        feed_step(filters, player, step, speed)
        step += 1
    return step


def antenna():
    mount = TransformStamped(child_frame_id="antenna")
    mount.header.frame_id = "base_link"
    mount.transform.translation.z = 1.5
    return serialize_message(TFMessage(transforms=[mount]))


@pytest.mark.ros
def test_a_filter_set_starts_publishes_and_stops(prefix, player):
    assert find_robot_localization() == prefix
    filters = Filters(player, prefix, Bundle.load(TOWN_BUNDLE).manifest, SETUP, "/replay_test")
    try:
        assert filters.version == (3, 8, 3)
        assert [filter_set.name for filter_set in filters.sets] == ["gps"]
        with pytest.raises(
            RgsiamError, match=r"no /fix of type sensor_msgs/msg/NavSatFix.*fusion-c"
        ):
            filters.open(KINDS | {"/fix": "sensor_msgs/msg/Imu"})
        filters.open(KINDS)
        (filter_set,) = filters.sets
        step = feed_until(filters, player, lambda: len(filter_set.stamps_ns) > 3, 0)
        assert len(filter_set.processes) == 2  # navsat_transform waits for the antenna's mount
        filters.feed("/tf_static", antenna())

        def fix_arrived():
            return np.any(filters.tracks()["gps"][1][:, 0, 3] == 48.0)

        step = feed_until(filters, player, fix_arrived, step)
        assert len(filter_set.processes) == 3

        def diverged():
            return bool(np.isnan(filters.tracks()["gps"][1][-1]).all())

        step = feed_until(filters, player, diverged, step, speed=math.nan)
        feed_until(filters, player, lambda: not diverged(), step)  # the replay goes on
        stamps, T = filters.tracks()["gps"]
        assert len(stamps) == len(T)
        assert np.all(np.diff(stamps) > 0)
        processes = filter_set.processes
        assert all(process.poll() is None for process in processes)
    finally:
        filters.close()
    assert all(process.poll() is not None for process in processes)
    assert not any(path.exists() for path in filter_set.files.values())


@pytest.mark.ros
def test_a_filter_that_ends_by_itself_is_named(prefix, player, capfd):
    (prefix / "lib" / "robot_localization" / "ekf_node").write_text("#!/bin/sh\nexit 3\n")
    filters = Filters(player, prefix, Bundle.load(TOWN_BUNDLE).manifest, SETUP, "/replay_test")
    try:
        for process in filters.sets[0].processes:
            process.wait(PATIENCE_S)
        stamps, T = filters.tracks()["gps"]
        assert (len(stamps), T.shape) == (0, (0, 4, 4))
    finally:
        filters.close()
    output = "".join(capfd.readouterr())
    assert "gps: ekf_node ended by itself (3)" in output
    assert "gps: navsat_transform was never started, as base_link -> antenna" in output


@pytest.mark.ros
def test_a_replay_without_gps_and_with_another_map_frame(prefix, town_like_bundle, tmp_path):
    """Without a datum the bag needs no fixes. Frames come from the bundle, topics from the folder."""
    manifest_file = town_like_bundle / "manifest.yaml"
    text = yaml.safe_load(manifest_file.read_text()) | {"map_frame": "yard"}
    manifest_file.write_text(yaml.safe_dump(text))
    manifest = Bundle.load(town_like_bundle).manifest
    assert manifest.datum is None
    limits = {"/gps/fix": 0, "/camera/image_raw/compressed": 16}
    bag = copy_bag(
        TOWN_DRIVE, tmp_path / "bag", lambda topic, index: index < limits.get(topic, 100)
    )
    setup = FusionSetup(map_frame="yard", sources=("visual",))
    write_files(manifest, setup, tmp_path / "fusion")
    options = ["--bundle", town_like_bundle, "--out", tmp_path / "r", "--rate", "0.5"]
    options += ["--with-filter", "--fusion-config", tmp_path / "fusion"]
    done = rgsiam("replay", bag, "--ros", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "robot_localization 3.8.3" in done.stderr
    assert "fused, odometry + visual: " in done.stdout
    fusion = json.loads((tmp_path / "r" / "metrics.json").read_text())["fusion"]
    assert set(fusion) == {"settling_s", "visual"}
    assert fusion["visual"]["answers"] > 0
    assert fusion["visual"]["not_finite"] == 0
    assert (tmp_path / "r" / "fused_visual.tum").stat().st_size > 0


def test_a_setup_that_does_not_fit_is_refused_before_the_replay(town_like_bundle, tmp_path):
    from rich.console import Console

    def replay(**changes):
        options = ReplayOptions(ros=True, with_filter=True, fusion=FusionSetup(**changes))
        run_replay(TOWN_DRIVE, town_like_bundle, tmp_path / "r", options, Console(quiet=True))

    with pytest.raises(FusionError, match=r"vehicle frame is car.*give --base-frame car"):
        replay(base_frame="car", sources=("visual",))
    with pytest.raises(FusionError, match="has no datum"):
        replay()
    assert not (tmp_path / "r").exists()
