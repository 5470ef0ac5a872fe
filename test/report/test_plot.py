"""The picture of a replay."""

import cv2
import numpy as np
import pytest
from support.poses import random_poses

from rgsiam_ros.report.plot import draw_replay, widest_axes
from rgsiam_ros.report.records import FrameRecord, ReplayRecord


def record(trust, sigma=0.1, withheld=(), true=False):
    """Ten frames, ten seconds."""
    T = random_poses(10)
    frames = []
    for i in range(10):
        lost = i in withheld
        frames.append(
            FrameRecord(
                i * 10**9,
                None if lost else T[i],
                sigma**2 * np.eye(6),
                T[i] if true else None,
                trust=trust,
                T_withheld=T[i] if lost else None,
            )
        )
    return ReplayRecord(frames, "base_link", "map")


def drawn(found, path):
    draw_replay(found, path, title="a drive")
    return cv2.imread(str(path)).astype(int)


@pytest.mark.slow
def test_without_true_poses_trust_and_sigmas_are_drawn(tmp_path):
    plain = drawn(record(0.5), tmp_path / "a.png")
    for other in (record(1.5), record(0.5, sigma=10.0), record(0.5, withheld=(4,))):
        assert np.abs(drawn(other, tmp_path / "b.png") - plain).max() > 100
    same = drawn(record(0.5, true=True), tmp_path / "c.png")
    assert (same == drawn(record(1.5, true=True), tmp_path / "d.png")).all()


@pytest.mark.parametrize("found", [record(None), ReplayRecord([], "base_link", "map")])
def test_what_is_unknown_is_left_out(tmp_path, found):
    assert drawn(found, tmp_path / "a.png").std() > 10


@pytest.mark.slow
def test_frames_without_a_true_pose_are_on_the_time_axis(tmp_path):
    found = record(0.5, true=True)
    late = FrameRecord(100 * 10**9, random_poses(1)[0], 0.01 * np.eye(6))
    longer = ReplayRecord([*found.frames, late], "base_link", "map")
    right = np.s_[:, 700:]
    change = drawn(longer, tmp_path / "b.png")[right] - drawn(found, tmp_path / "a.png")[right]
    assert np.abs(change).max() > 100


@pytest.mark.parametrize(
    ("extent", "expected"),
    [((9.0, 5.0, 1.0), (0, 1)), ((2.0, 0.5, 1.0), (0, 2)), ((0.0, 3.0, 4.0), (1, 2))],
)
def test_a_map_is_seen_along_its_narrowest_axis(extent, expected):
    positions = np.random.default_rng(0).uniform(0.0, 1.0, (50, 3)) * extent
    positions[7] = np.nan  # a pause
    assert widest_axes(positions) == expected
