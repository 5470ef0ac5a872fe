"""The node's parts that know no ROS."""

import threading
import time

import numpy as np

from rgsiam_ros.node.image_stream import WINDOW, ArrivalRate
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


def until(condition):
    deadline = time.monotonic() + 5.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_what_waits_is_made_ready_meanwhile_and_what_does_not_wait_is_not():
    gate, seen, ready = threading.Semaphore(0), [], []

    def work(item):
        seen.append(item)
        gate.acquire(timeout=5.0)

    def prepare(item):
        ready.append(item)
        return -item

    worker = NewestWorker(work, "test", prepare=prepare)
    worker.submit(1)
    until(lambda: seen == [1])
    worker.submit(2)
    until(lambda: ready == [2])
    gate.release()
    until(lambda: seen == [1, -2])
    gate.release()
    time.sleep(0.05)
    worker.submit(3)  # nothing is in work
    until(lambda: seen == [1, -2, 3])
    assert ready == [2]
    worker.stop()


def test_while_items_are_dropped_none_is_made_ready():
    gate, seen, ready = threading.Semaphore(0), [], []

    def work(item):
        seen.append(item)
        gate.acquire(timeout=5.0)

    worker = NewestWorker(work, "test", prepare=lambda item: (ready.append(item), item)[1])
    worker.submit(1)
    until(lambda: seen == [1])
    worker.submit(2)
    until(lambda: ready == [2])
    worker.submit(3)
    until(lambda: ready == [2, 3] and worker.dropped == 1)  # 2 was made ready in vain
    gate.release()
    until(lambda: seen == [1, 3])
    worker.submit(4)
    worker.submit(5)
    time.sleep(0.05)
    assert ready == [2, 3]
    gate.release()
    until(lambda: seen == [1, 3, 5])
    worker.submit(6)
    time.sleep(0.05)
    gate.release()
    until(lambda: seen == [1, 3, 5, 6])
    worker.submit(7)
    until(lambda: ready == [2, 3, 7])  # nothing was dropped since
    gate.release()
    until(lambda: seen == [1, 3, 5, 6, 7])
    worker.stop()


def test_draining_forgets_what_is_being_made_ready():
    go, begun, seen = threading.Event(), threading.Event(), []

    def prepare(item):
        begun.set()
        go.wait(5.0)
        return item

    worker = NewestWorker(
        lambda item: (time.sleep(0.1), seen.append(item)), "test", prepare=prepare
    )
    worker.submit("a")
    time.sleep(0.03)
    worker.submit("b")
    assert begun.wait(5.0)
    assert worker.drain(5.0)
    go.set()
    time.sleep(0.1)
    worker.submit("c")
    until(lambda: seen == ["a", "c"])
    worker.stop()


def test_every_item_is_worked_on_in_order_or_counted_as_dropped():
    random = np.random.default_rng(0)
    seen, pauses = [], random.uniform(0.0, 2e-3, 2000)
    worker = NewestWorker(
        lambda item: (time.sleep(pauses[item]), seen.append(item)),
        "test",
        prepare=lambda item: (time.sleep(pauses[-item]), item)[1],
    )
    for item in range(len(pauses)):
        worker.submit(item)
        time.sleep(pauses[item] / 2.0)
    until(lambda: seen[-1] == len(pauses) - 1)
    assert seen == sorted(seen)
    assert len(seen) + worker.dropped == len(pauses)
    assert worker.dropped > 0
    worker.stop()


def share(stamps):
    monitor = ArrivalRate()
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
