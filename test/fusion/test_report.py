"""The report on the tracks of a replay's filters."""

import numpy as np
import pytest
from support.paths import TOWN_DRIVE

from rgsiam_ros.fusion.report import in_words, report_tracks
from rgsiam_ros.recordings.rosbag import BagTopics, read_drive

NO_GPS = (np.zeros(0, np.int64), np.zeros(0, int))


def track(drive):
    """True poses, one metre to the east."""
    stamps = drive.truth_stamps_ns[:: max(1, len(drive.truth_stamps_ns) // 200)]
    T, _ = drive.true_base_poses(stamps)
    T[:, 0, 3] += 1.0
    return stamps, T


def test_a_filter_that_diverged_is_counted_and_the_rest_reported(tmp_path):
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
    said = in_words(found["visual"])
    assert said.startswith("1.00 m median, 1.00 m p95 over the whole drive; it diverged: 40 of ")
    assert "no answer at all" in in_words(found["both"])
    assert (tmp_path / "fusion.png").is_file()


def test_without_true_poses_the_tracks_are_kept(tmp_path):
    stamps, T = track(read_drive(TOWN_DRIVE))
    blind = read_drive(TOWN_DRIVE, BagTopics(truth="/no/such/topic"))
    assert len(blind.truth_stamps_ns) == 0
    found = report_tracks({"gps": (stamps, T)}, blind, NO_GPS, tmp_path, "test")
    assert len((tmp_path / "fused_gps.tum").read_text().splitlines()) == len(stamps)
    assert in_words(found["gps"]) == f"{len(stamps)} poses, none beside a true one"
