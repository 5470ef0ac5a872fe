"""The node's parts that know no ROS."""

import threading
import time

import numpy as np

from rgsiam_ros.node.image_stream import WINDOW, ArrivalRate
from rgsiam_ros.node.worker import NewestWorker

PATIENCE_S = 60.0
"""A backstop; each wait ends on an event."""


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert condition()


class Work:
    """Notes each item, then holds it until it may end; the same for items that are made ready."""

    def __init__(self, ready=lambda item: item):
        self.seen, self.ready, self._ready = [], [], ready
        self._may_end = threading.Semaphore(0)

    def __call__(self, item):
        self.seen.append(item)
        assert self._may_end.acquire(timeout=PATIENCE_S)

    def prepare(self, item):
        self.ready.append(item)
        return self._ready(item)

    def end(self):
        """The item in work."""
        self._may_end.release()


def test_the_worker_takes_the_newest_and_never_blocks():
    work = Work()
    worker = NewestWorker(work, "test")
    worker.submit(0)
    until(lambda: work.seen == [0])
    for item in range(1, 100):  # this comes to its end although item 0 does not
        worker.submit(item)
    assert work.seen == [0]
    work.end()
    until(lambda: work.seen == [0, 99])
    assert worker.dropped == 98
    work.end()
    worker.stop()


def test_after_draining_nothing_is_in_work():
    begun, done = threading.Event(), []

    def work(item):
        begun.set()
        time.sleep(0.1)
        done.append(item)

    worker = NewestWorker(work, "test")
    worker.submit("a")
    assert begun.wait(PATIENCE_S)
    assert worker.drain(PATIENCE_S)
    assert done == ["a"]
    worker.stop()


def test_draining_gives_up_where_the_work_does_not_end():
    work = Work()
    worker = NewestWorker(work, "test")
    worker.submit("a")
    until(lambda: work.seen == ["a"])
    assert not worker.drain(0.01)
    work.end()
    assert worker.drain(PATIENCE_S)
    worker.stop()


def test_only_what_waits_is_made_ready():
    work = Work(ready=lambda item: -item)
    worker = NewestWorker(work, "test", prepare=work.prepare)
    worker.submit(1)
    until(lambda: work.seen == [1])
    worker.submit(2)
    until(lambda: work.ready == [2])
    work.end()
    until(lambda: work.seen == [1, -2])
    work.end()
    assert worker.drain(PATIENCE_S)  # nothing is in work
    worker.submit(3)
    until(lambda: work.seen == [1, -2, 3])
    assert work.ready == [2]
    work.end()
    worker.stop()


def test_while_items_are_dropped_none_is_made_ready():
    work = Work()
    worker = NewestWorker(work, "test", prepare=work.prepare)
    worker.submit(1)
    until(lambda: work.seen == [1])
    worker.submit(2)
    until(lambda: work.ready == [2])
    worker.submit(3)
    until(lambda: work.ready == [2, 3] and worker.dropped == 1)  # 2 was made ready in vain
    work.end()
    until(lambda: work.seen == [1, 3])
    worker.submit(4)
    worker.submit(5)
    work.end()
    until(lambda: work.seen == [1, 3, 5])
    assert work.ready == [2, 3]
    worker.submit(6)
    work.end()
    until(lambda: work.seen == [1, 3, 5, 6])
    assert work.ready == [2, 3]
    worker.submit(7)
    until(lambda: work.ready == [2, 3, 7])  # nothing was dropped since
    work.end()
    until(lambda: work.seen == [1, 3, 5, 6, 7])
    work.end()
    worker.stop()


def test_draining_forgets_what_is_being_made_ready():
    work, begun, go, ended = Work(), threading.Event(), threading.Event(), threading.Event()

    def prepare(item):
        begun.set()
        assert go.wait(PATIENCE_S)
        ended.set()
        return item

    worker = NewestWorker(work, "test", prepare=prepare)
    worker.submit("a")
    until(lambda: work.seen == ["a"])
    worker.submit("b")
    assert begun.wait(PATIENCE_S)
    work.end()
    assert worker.drain(PATIENCE_S)
    go.set()
    assert ended.wait(PATIENCE_S)
    worker.submit("c")
    until(lambda: len(work.seen) == 2)
    assert work.seen == ["a", "c"]
    work.end()
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
    until(lambda: seen and seen[-1] == len(pauses) - 1)
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
