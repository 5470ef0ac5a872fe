import json
import subprocess
import sys

import pytest
from bags import cut_bag
from conftest import TOWN_DRIVE
from rich.console import Console

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from rgsiam_ros.replay.run import ReplayOptions, run_replay


@pytest.fixture(autouse=True)
def isolated(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "101")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def test_the_node_gives_what_offline_gives(tmp_path, town_like_bundle):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=40)
    options = ReplayOptions(ros=True, rate=1.0)
    out = tmp_path / "results"
    metrics = run_replay(bag, town_like_bundle, out, options, Console(quiet=True))
    ros = metrics["ros"]
    assert ros["sent"] == 40
    assert ros["returned"] == ros["compared"] >= 30
    assert ros["largest_difference_m"] < 1e-6
    assert ros["largest_difference_deg"] < 1e-6
    assert metrics["reported_frame"] == "base_link"
    assert set(metrics["latency_ms"]) == {"image to pose"}
    assert metrics["refined"] is None  # a pose message does not say
    assert json.loads((out / "metrics.json").read_text())["ros"] == ros


def test_the_command_line(tmp_path, town_like_bundle):
    bag = cut_bag(TOWN_DRIVE, tmp_path / "short", images=16)
    command = [sys.executable, "-m", "rgsiam_ros.cli", "replay", str(bag), "--ros"]
    command += ["--bundle", str(town_like_bundle), "--out", str(tmp_path / "r"), "--rate", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "poses for 16 images" in done.stdout
    assert (tmp_path / "r" / "replay.png").is_file()
