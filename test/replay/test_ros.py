"""The replay through the real node: its process and DDS."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from support.bags import cut_bag
from support.command_line import rgsiam
from support.paths import TOWN_DRIVE

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from rgsiam_ros.fusion.report import gps_state, report_tracks
from rgsiam_ros.geometry.conversions import stamp_to_ns
from rgsiam_ros.recordings.rosbag import read_drive, read_messages
from rgsiam_ros.replay.options import ReplayOptions
from rgsiam_ros.replay.run import run_replay


@pytest.fixture(autouse=True)
def ros_domain(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "101")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


@pytest.mark.ros
def test_the_node_gives_the_same_poses_as_offline(tmp_path, town_like_bundle):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=40)
    options = ReplayOptions(ros=True, rate=0.5)
    out = tmp_path / "results"
    metrics = run_replay(bag, town_like_bundle, out, options, Console(quiet=True))
    ros = metrics["ros"]
    assert ros["sent"] == 40
    assert ros["returned"] == ros["compared"] >= 30
    assert ros["largest_difference_m"] < 1e-6
    assert ros["largest_difference_deg"] < 1e-6
    assert metrics["reported_frame"] == "base_link"
    assert set(metrics["latency_ms"]) == {"image to pose"}
    assert json.loads((out / "metrics.json").read_text())["ros"] == ros


@pytest.mark.ros
def test_the_command_replays_through_the_node(tmp_path, town_like_bundle):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=16)
    options = ["--bundle", town_like_bundle, "--out", tmp_path / "r", "--rate", "2"]
    done = rgsiam("replay", bag, "--ros", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "poses for 16 images" in done.stdout
    assert (tmp_path / "r" / "replay.png").is_file()


@pytest.mark.ros
def test_without_robot_localization_the_replay_warns_and_goes_on(
    tmp_path, town_like_bundle, monkeypatch
):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(Path(sys.prefix)))
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=8)
    options = ["--with-filter", "--bundle", town_like_bundle, "--out", tmp_path / "r"]
    done = rgsiam("replay", bag, "--ros", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "robot_localization is not installed" in done.stderr
    assert "poses for 8 images" in done.stdout
    assert "fusion" not in json.loads((tmp_path / "r" / "metrics.json").read_text())


def test_filter_errors_are_reported_for_each_state_of_gps(tmp_path):
    """The track is 2 m off while GPS is bad, and exact otherwise."""
    drive = read_drive(TOWN_DRIVE)
    _, fixes = read_messages(TOWN_DRIVE, "/gps/fix", "fix")
    stamps = np.array([stamp_to_ns(m.header.stamp) for m in fixes], np.int64)
    state = gps_state(fixes)
    assert set(state) == {0, 1, 2}
    T, known = drive.true_base_poses(stamps)
    T[state == 1, 0, 3] += 2.0
    tracks = {"both": (stamps[known], T[known])}
    figures = report_tracks(tracks, drive, (stamps, state), tmp_path, "test")["both"]
    assert figures["good"]["p95_m"] < 1e-6
    assert figures["bad"]["median_m"] == pytest.approx(2.0)
    assert figures["none"]["p95_m"] < 1e-6
    assert (tmp_path / "fusion.png").stat().st_size > 10_000
    assert len((tmp_path / "fused_both.tum").read_text().splitlines()) == known.sum()
