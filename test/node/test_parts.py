"""The node's parts that know no ROS."""

import threading
import time

import numpy as np

from rgsiam_ros.node.stream_monitor import WINDOW, StreamMonitor
from rgsiam_ros.node.worker import NewestWorker


def test_the_worker_takes_the_newest_and_never_blocks():
    gate, seen = threading.Event(), []

    def work(item):
        gate.wait(5.0)
        seen.append(item)

    worker = NewestWorker(work, "test")
    worker.submit(0)
    time.sleep(0.1)  # item 0 is in work
    started = time.monotonic()
    for item in range(1, 100):
        worker.submit(item)
    assert time.monotonic() - started < 1.0
    gate.set()
    deadline = time.monotonic() + 5.0
    while len(seen) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen == [0, 99]
    assert worker.dropped == 98
    worker.stop()


def test_after_draining_nothing_is_in_work():
    done = []
    worker = NewestWorker(lambda item: (time.sleep(0.2), done.append(item)), "test")
    worker.submit("a")
    time.sleep(0.05)
    assert worker.drain(5.0)
    assert done == ["a"]
    worker.stop()


def share(stamps):
    monitor = StreamMonitor()
    for value in stamps:
        monitor.add(int(value))
    return monitor


def test_a_steady_stream_gives_no_complaint():
    period = 33_333_333
    jitter = np.random.default_rng(0).normal(0.0, 2e6, 200)
    monitor = share(np.arange(200) * period + jitter + 1e12)
    assert monitor.arriving_share() > 0.75
    assert monitor.complaint() is None


def test_losing_most_images_is_noticed():
    stamps = np.arange(400) * 33_333_333 + 10**12
    kept = stamps[np.random.default_rng(1).random(400) < 0.27]
    monitor = share(kept)
    assert 0.15 < monitor.arriving_share() < 0.45
    complaint = monitor.complaint()
    assert "30.0 Hz" in complaint
    assert monitor.complaint() is None  # the window starts anew


def test_a_window_must_be_full():
    assert share(np.arange(WINDOW - 1) * 10**9).arriving_share() is None
