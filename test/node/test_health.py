"""The health of the stream: rate, delay and age of images and poses. No ROS."""

import pytest

from rgsiam_ros.node.health import ERROR, OK, WARN, Health, Limits

LIMITS = Limits(min_rate=2.0, max_delay=0.5, max_age=2.0)
FINE = (OK, "pose published")


class Clock:
    def __init__(self):
        self.at = 100.0

    def __call__(self):
        return self.at


def stream(seconds, hz, delay, poses=True):
    """The clock and the health after a stream of images."""
    clock = Clock()
    health = Health(clock)
    health.start()
    for _ in range(round(seconds * hz)):
        clock.at += 1.0 / hz
        health.image()
        if poses:
            health.pose(delay)
    return clock, health


def findings(health, last):
    """What ``/diagnostics`` reports: the missing image, or else the other findings."""
    missing = health.missing_image(LIMITS, "/image")
    return [missing] if missing else health.findings(LIMITS, last)


def test_a_steady_stream_has_no_findings():
    _, health = stream(10.0, 10.0, 0.05)
    assert findings(health, FINE) == []
    figures = health.values()
    assert float(figures["rate_hz"]) == pytest.approx(10.0, abs=0.3)
    assert float(figures["delay_median_ms"]) == pytest.approx(50.0)
    assert figures["published"] == figures["received"] == "100"


def test_slow_late_and_missing_poses_are_named():
    _, slow = stream(20.0, 1.0, 0.05)
    assert [level for level, _ in findings(slow, FINE)] == [WARN]
    _, late = stream(5.0, 10.0, 0.8)
    assert findings(late, FINE) == [(WARN, "poses 0.80 s late, over 0.5")]
    _, lost = stream(5.0, 10.0, 0.0, poses=False)
    found = findings(lost, (WARN, "lost: trust -1 is below 0"))
    assert (ERROR, "no pose for 5 s") in found
    assert (WARN, "lost: trust -1 is below 0") in found
    assert lost.values()["age_of_last_pose_s"] == "none yet"


def test_a_silent_camera_is_an_error_until_it_returns():
    clock, health = stream(10.0, 10.0, 0.05)
    clock.at += 3.0
    ((level, words),) = findings(health, FINE)
    assert level == ERROR
    assert words.startswith("no image on /image for 3 s: check")
    for _ in range(60):
        clock.at += 0.1
        health.image()
        health.pose(0.05)
    assert findings(health, FINE) == []


def test_the_age_may_cross_its_limit_between_two_readings():
    clock, health = stream(10.0, 10.0, 0.05)
    clock.at += LIMITS.max_age
    missing = health.missing_image(LIMITS, "/image")
    clock.at += 0.001
    assert missing is None
    assert health.findings(LIMITS, FINE) == [(ERROR, "no pose for 2 s")]
    assert health.missing_image(LIMITS, "/image") is not None
