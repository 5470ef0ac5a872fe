"""What the node makes of rate, delay, ages and stamps. No ROS."""

import pytest

from rgsiam_ros.node.health import ERROR, OK, WARN, Health, Limits
from rgsiam_ros.node.image_stream import StampCheck, delay_s

LIMITS = Limits(min_rate=2.0, max_delay=0.5, max_age=2.0)
FINE = (OK, "pose published")
SECOND = 10**9


class Clock:
    def __init__(self):
        self.at = 100.0

    def __call__(self):
        return self.at


def drive(seconds, hz, delay, poses=True):
    clock = Clock()
    health = Health(clock)
    health.start()
    for _ in range(round(seconds * hz)):
        clock.at += 1.0 / hz
        health.image()
        if poses:
            health.pose(delay)
    return clock, health


def test_a_steady_stream_is_well():
    _, health = drive(10.0, 10.0, 0.05)
    assert health.findings(LIMITS, FINE, "/image") == []
    figures = health.values()
    assert float(figures["rate_hz"]) == pytest.approx(10.0, abs=0.3)
    assert float(figures["delay_median_ms"]) == pytest.approx(50.0)
    assert figures["published"] == figures["received"] == "100"


def test_slow_late_and_missing_poses_are_named():
    _, slow = drive(20.0, 1.0, 0.05)
    assert [level for level, _ in slow.findings(LIMITS, FINE, "/image")] == [WARN]
    _, late = drive(5.0, 10.0, 0.8)
    assert late.findings(LIMITS, FINE, "/image") == [(WARN, "poses 0.80 s late, over 0.5")]
    _, lost = drive(5.0, 10.0, 0.0, poses=False)
    found = lost.findings(LIMITS, (WARN, "lost: trust -1 is below 0"), "/image")
    assert (ERROR, "no pose for 5 s") in found
    assert (WARN, "lost: trust -1 is below 0") in found
    assert lost.values()["age_of_last_pose_s"] == "none yet"


def test_a_silent_camera_is_an_error_and_its_return_is_well():
    clock, health = drive(10.0, 10.0, 0.05)
    clock.at += 3.0
    ((level, words),) = health.findings(LIMITS, FINE, "/image")
    assert level == ERROR
    assert words.startswith("no image on /image for 3 s: check")
    for _ in range(60):
        clock.at += 0.1
        health.image()
        health.pose(0.05)
    assert health.findings(LIMITS, FINE, "/image") == []


@pytest.mark.parametrize(
    ("stamps_s", "now_s", "causes"),
    [
        ([100, 101, 102], 102, [None, None, None]),
        ([0, 100], 100, ["zero", None]),
        ([100, 50, 51], 100, [None, "backwards", None]),
        ([500], 100, ["future"]),
        ([500], 0, [None]),  # simulated time has not begun
        ([100, 100], 100, [None, None]),
    ],
)
def test_stamps_that_cannot_be_right(stamps_s, now_s, causes):
    watch = StampCheck()
    found = [watch.problem(s * SECOND, now_s * SECOND) for s in stamps_s]
    assert [f and f[0] for f in found] == causes


def test_the_delay_counts_from_the_stamp_where_that_is_of_this_clock():
    assert delay_s(100 * SECOND, 101 * SECOND, 0.1) == pytest.approx(1.0)
    assert delay_s(100 * SECOND, 9_000 * SECOND, 0.1) == 0.1  # a replay
    assert delay_s(100 * SECOND, 99 * SECOND, 0.1) == 0.1
