"""The worker thread of the node. No ROS."""

import threading
import time
import weakref

import numpy as np
from support.waiting import PATIENCE_S, wait_until

from rgsiam_ros.node.worker import NewestWorker


class Work:
    """Work that blocks on each item until `end_item` is called. It records the items in their order."""

    def __init__(self, prepared=lambda item: item):
        self.seen, self.prepared, self._prepared = [], [], prepared
        self._may_end = threading.Semaphore(0)

    def __call__(self, item):
        self.seen.append(item)
        assert self._may_end.acquire(timeout=PATIENCE_S)

    def prepare(self, item):
        self.prepared.append(item)
        return self._prepared(item)

    def end_item(self):
        self._may_end.release()


def test_the_worker_takes_the_newest_and_never_blocks():
    work = Work()
    worker = NewestWorker(work, "test")
    worker.submit(0)
    wait_until(lambda: work.seen == [0])
    for item in range(1, 100):  # submit returns although item 0 is still in work
        worker.submit(item)
    assert work.seen == [0]
    work.end_item()
    wait_until(lambda: work.seen == [0, 99])
    assert worker.dropped == 98
    work.end_item()
    worker.stop(PATIENCE_S)


def test_an_action_comes_at_once_or_after_the_item_in_work():
    work, done = Work(), []
    worker = NewestWorker(work, "test")
    worker.when_idle(lambda: done.append(0))
    assert done == [0]
    worker.submit("a")
    wait_until(lambda: work.seen == ["a"])
    worker.when_idle(lambda: done.append(1))
    worker.when_idle(lambda: done.append(2))
    worker.submit("b")
    assert done == [0]
    work.end_item()
    wait_until(lambda: work.seen == ["a", "b"])
    assert done == [0, 1, 2]
    work.end_item()
    worker.stop(PATIENCE_S)


def test_stop_tells_whether_the_worker_has_ended():
    work = Work()
    worker = NewestWorker(work, "test", prepare=work.prepare)
    worker.submit("a")
    wait_until(lambda: work.seen == ["a"])
    assert not worker.stop(0.01)
    work.end_item()
    assert worker.stop(PATIENCE_S)


def test_only_waiting_items_are_prepared():
    work = Work(prepared=lambda item: -item)
    worker = NewestWorker(work, "test", prepare=work.prepare)
    worker.submit(1)
    wait_until(lambda: work.seen == [1])
    worker.submit(2)
    wait_until(lambda: work.prepared == [2])
    work.end_item()
    wait_until(lambda: work.seen == [1, -2])
    work.end_item()
    idle = threading.Event()
    worker.when_idle(idle.set)
    assert idle.wait(PATIENCE_S)
    worker.submit(3)
    wait_until(lambda: work.seen == [1, -2, 3])
    assert work.prepared == [2]
    work.end_item()
    worker.stop(PATIENCE_S)


def test_no_item_is_prepared_while_items_are_dropped():
    work = Work()
    worker = NewestWorker(work, "test", prepare=work.prepare)
    worker.submit(1)
    wait_until(lambda: work.seen == [1])
    worker.submit(2)
    wait_until(lambda: work.prepared == [2])
    worker.submit(3)
    wait_until(lambda: work.prepared == [2, 3] and worker.dropped == 1)  # 2 was prepared in vain
    work.end_item()
    wait_until(lambda: work.seen == [1, 3])
    worker.submit(4)
    worker.submit(5)
    work.end_item()
    wait_until(lambda: work.seen == [1, 3, 5])
    assert work.prepared == [2, 3]
    worker.submit(6)
    work.end_item()
    wait_until(lambda: work.seen == [1, 3, 5, 6])
    assert work.prepared == [2, 3]
    worker.submit(7)
    wait_until(lambda: work.prepared == [2, 3, 7])  # nothing was dropped since then
    work.end_item()
    wait_until(lambda: work.seen == [1, 3, 5, 6, 7])
    work.end_item()
    worker.stop(PATIENCE_S)


def test_discard_drops_an_item_that_is_being_prepared():
    work, begun, go, ended = Work(), threading.Event(), threading.Event(), threading.Event()

    def prepare(item):
        begun.set()
        assert go.wait(PATIENCE_S)
        ended.set()
        return item

    worker = NewestWorker(work, "test", prepare=prepare)
    worker.submit("a")
    wait_until(lambda: work.seen == ["a"])
    worker.submit("b")
    assert begun.wait(PATIENCE_S)
    worker.discard()
    work.end_item()
    go.set()
    assert ended.wait(PATIENCE_S)
    worker.submit("c")
    wait_until(lambda: len(work.seen) == 2)
    assert work.seen == ["a", "c"]
    work.end_item()
    worker.stop(PATIENCE_S)


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
    wait_until(lambda: seen and seen[-1] == len(pauses) - 1)
    assert seen == sorted(seen)
    assert len(seen) + worker.dropped == len(pauses)
    assert worker.dropped > 0
    worker.stop(PATIENCE_S)


class Image:
    """An item that can be watched by a weak reference."""


def test_an_idle_worker_holds_no_item():
    begun, go, references = threading.Event(), threading.Event(), []

    def prepare(item):
        prepared = Image()
        references.append(weakref.ref(prepared))
        return prepared

    def work(item):
        begun.set()
        assert go.wait(PATIENCE_S)

    worker = NewestWorker(work, "test", prepare=prepare)
    for _ in range(2):  # the second is prepared while the first is in work
        item = Image()
        references.append(weakref.ref(item))
        worker.submit(item)
        del item
        assert begun.wait(PATIENCE_S)
    wait_until(lambda: len(references) == 3)
    go.set()
    wait_until(lambda: all(reference() is None for reference in references))
    worker.stop(PATIENCE_S)
