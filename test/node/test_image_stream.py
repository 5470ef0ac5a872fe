"""Arrival rate, stamps and delay of the image stream. No ROS."""

import numpy as np
import pytest

from rgsiam_ros.node.image_stream import WINDOW, ArrivalRate, StampCheck, delay_s
from rgsiam_ros.node.log_throttle import LogThrottle

SECOND = 10**9


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
def test_wrong_stamps_are_named(stamps_s, now_s, causes):
    check = StampCheck()
    found = [check.problem(s * SECOND, now_s * SECOND) for s in stamps_s]
    assert [f and f[0] for f in found] == causes


def test_the_delay_counts_from_stamps_of_this_clock_only():
    assert delay_s(100 * SECOND, 101 * SECOND, 0.1) == pytest.approx(1.0)
    assert delay_s(100 * SECOND, 9_000 * SECOND, 0.1) == 0.1  # a replay
    assert delay_s(100 * SECOND, 99 * SECOND, 0.1) == 0.1


def arrival_rate_of(stamps_ns):
    rate = ArrivalRate()
    for stamp_ns in stamps_ns:
        rate.add(int(stamp_ns))
    return rate


def test_a_steady_stream_gives_no_warning():
    period = 33_333_333
    jitter = np.random.default_rng(0).normal(0.0, 2e6, 200)
    rate = arrival_rate_of(np.arange(200) * period + jitter + 1e12)
    assert rate.arriving_share() > 0.75
    assert rate.complaint() is None


def test_a_stream_that_loses_most_images_gives_one_warning():
    stamps = np.arange(400) * 33_333_333 + 10**12
    kept = stamps[np.random.default_rng(1).random(400) < 0.27]
    rate = arrival_rate_of(kept)
    assert 0.15 < rate.arriving_share() < 0.45
    complaint = rate.complaint()
    assert "30.0 Hz" in complaint
    assert rate.complaint() is None  # the window starts anew


def test_no_share_is_known_before_the_window_is_full():
    assert arrival_rate_of(np.arange(WINDOW - 1) * 10**9).arriving_share() is None


def test_the_throttle_counts_kinds_of_faults():
    throttle = LogThrottle()
    assert throttle.may_log("image_encoding")
    assert not throttle.may_log("image_encoding")
    assert throttle.may_log("mount")
