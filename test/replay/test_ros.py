"""The replay through the real node: its process and DDS."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from support.bags import cut_bag, damage_image, with_raw_images
from support.command_line import rgsiam
from support.paths import TOWN_DRIVE

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from rgsiam_ros.fusion.report import gps_state, report_tracks
from rgsiam_ros.geometry.conversions import stamp_to_ns
from rgsiam_ros.recordings.rosbag import read_drive, read_messages
from rgsiam_ros.replay.large_images import VARIABLE, large_image_profile
from rgsiam_ros.replay.node_reports import NodeReports
from rgsiam_ros.replay.options import ReplayOptions
from rgsiam_ros.replay.run import run_replay
from rgsiam_ros.report.records import FrameRecord
from rgsiam_ros.report.schema import Metrics


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
    written = (out / "metrics.json").read_text()
    assert json.loads(written)["ros"] == ros
    assert Metrics.model_validate_json(written).ros.returned == ros["returned"]
    page = (out / "report.html").read_text()
    assert f"Through the node: {ros['returned']} poses for 40 images" in page
    assert "Both lists are of the offline replay" in page


@pytest.mark.ros
def test_the_command_replays_through_the_node(tmp_path, town_like_bundle):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=16)
    options = ["--bundle", town_like_bundle, "--out", tmp_path / "r", "--rate", "2"]
    done = rgsiam("replay", bag, "--ros", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "poses for 16 images" in done.stdout
    assert (tmp_path / "r" / "replay.png").is_file()


@pytest.mark.ros
@pytest.mark.slow
def test_raw_images_arrive_at_the_node(tmp_path, town_like_bundle):
    """Without Fast DDS's profile for large images, a third of these arrived."""
    bag = with_raw_images(TOWN_DRIVE, tmp_path / "raw", images=40, scale=3)
    options = ["--bundle", town_like_bundle, "--out", tmp_path / "r", "--rate", "0.5"]
    done = rgsiam("replay", bag, "--ros", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    ros = json.loads((tmp_path / "r" / "metrics.json").read_text())["ros"]
    assert ros["sent"] == 40
    assert ros["never_arrived"] == 0
    assert ros["returned"] + ros["lost"] + ros["skipped"] == 40
    assert "images never arrived" in done.stdout
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in done.stderr


@pytest.mark.ros
def test_images_that_are_rejected_are_told_from_those_that_are_lost(tmp_path, town_like_bundle):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=12)
    bag = damage_image(bag, tmp_path / "damaged", index=7)
    options = ReplayOptions(ros=True, rate=0.5)
    out = tmp_path / "results"
    metrics = run_replay(bag, town_like_bundle, out, options, Console(quiet=True))
    ros = metrics["ros"]
    assert ros["rejected"] == 1
    assert ros["never_arrived"] == ros["lost"] == metrics["lost"] == 0
    assert ros["returned"] + ros["skipped"] == 11
    rows = list(csv.DictReader((out / "frames.csv").open()))
    assert "truncated" in rows[7]["problem"]


def status(stamp_ns, level, message, **values):
    text = f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"
    pairs = {"stamp": text, **values}.items()
    return DiagnosticStatus(
        level=bytes([level]), message=message, values=[KeyValue(key=k, value=v) for k, v in pairs]
    )


def counters(skipped, received=9):
    values = {"received": received, "skipped": skipped}.items()
    found = DiagnosticStatus(
        name="rgsiam_replay/relocalize: relocalization",
        values=[KeyValue(key=k, value=str(v)) for k, v in values],
    )
    return DiagnosticArray(status=[DiagnosticStatus(name="lidar: temperature"), found])


def test_what_the_node_says_tells_why_an_image_has_no_pose():
    reports, sent = NodeReports("relocalization"), [n * 10**9 + 5 for n in range(10)]
    reports.take_status(DiagnosticStatus(message="no image yet"))
    reports.take_status(status(sent[0], 0, "pose published", trust="0.500", branch="geometric"))
    reports.take_status(status(sent[1], 1, "lost: trust -1.83 is below 0", trust="-1.830"))
    reports.take_status(status(sent[2], 2, "the image cannot be decoded"))
    reports.take_diagnostics(counters(skipped=2))
    counts = reports.count(sent, {sent[0]})
    assert counts == {
        "lost": 1, "rejected": 1, "skipped": 2, "never_arrived": 5, "pose_never_arrived": 0,
    }  # fmt: skip
    assert "skipped by the node, or never arrived" in reports.why_silent(counts)
    lost = reports.images[sent[1]].on(FrameRecord(sent[1]))
    assert (lost.problem, lost.trust) == ("lost: trust -1.83 is below 0", -1.83)
    posed = reports.images[sent[0]].on(FrameRecord(sent[0], np.eye(4)))
    assert (posed.problem, posed.trust, posed.branch) == ("", 0.5, "geometric")
    reports.take_diagnostics(counters(skipped=7))
    assert "busy" in reports.why_silent(reports.count(sent, {sent[0]}))
    reports.take_diagnostics(counters(skipped=0))
    assert reports.why_silent(reports.count(sent, {sent[0]})) == "never arrived at the node"


def test_the_profile_of_large_images_is_not_put_over_yours(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with large_image_profile():
        assert Path(os.environ[VARIABLE]).is_file()
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, "/mine.xml")
    with large_image_profile():
        assert os.environ[VARIABLE] == "/mine.xml"
    assert os.environ[VARIABLE] == "/mine.xml"


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
