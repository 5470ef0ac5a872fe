"""The report of a replay on the tracks of its filters."""

import numpy as np
import pytest
from support.paths import TOWN_DRIVE

from rgsiam_ros.fusion.report import describe_track, report_tracks
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_ros.recordings.topics import BagTopics

NO_GPS = (np.zeros(0, np.int64), np.zeros(0, int))


def track(drive):
    """Stamps and true poses of a drive, moved one metre to the east."""
    stamps = drive.truth_stamps_ns[:: max(1, len(drive.truth_stamps_ns) // 200)]
    T, _ = drive.true_base_poses(stamps)
    T[:, 0, 3] += 1.0
    return stamps, T


def test_poses_of_a_diverged_filter_are_counted(tmp_path):
    drive = read_drive(TOWN_DRIVE)
    stamps, T = track(drive)
    T[-40:] = np.nan
    tracks = {"visual": (stamps, T), "both": (stamps[:0], T[:0])}
    found = report_tracks(tracks, drive, NO_GPS, tmp_path, "test")
    assert found["visual"]["answers"] == len(stamps)
    assert found["visual"]["not_finite"] == 40
    assert found["visual"]["all"]["p95_m"] == pytest.approx(1.0)
    lines = (tmp_path / "fused_visual.tum").read_text().splitlines()
    assert len(lines) == len(stamps) - 40
    text = describe_track(found["visual"])
    assert text.startswith(
        "1.00 m median, 1.00 m p95 over the whole drive; the filter diverged: 40 of "
    )
    assert "published no pose" in describe_track(found["both"])
    assert (tmp_path / "fusion.png").is_file()


def test_without_true_poses_the_tracks_are_written(tmp_path):
    stamps, T = track(read_drive(TOWN_DRIVE))
    blind = read_drive(TOWN_DRIVE, BagTopics(truth="/no/such/topic"))
    assert len(blind.truth_stamps_ns) == 0
    found = report_tracks({"gps": (stamps, T)}, blind, NO_GPS, tmp_path, "test")
    assert len((tmp_path / "fused_gps.tum").read_text().splitlines()) == len(stamps)
    assert describe_track(found["gps"]) == f"{len(stamps)} poses, none with a true pose"
