"""A thread that works on the newest item and never makes the producer wait. This module needs no ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class NewestWorker(Generic[Item]):
    """A worker thread with room for one waiting item. A newer item replaces the waiting one.

    With `prepare`, a second thread prepares the waiting item while the worker is busy. An item that comes
    while the worker is idle is not prepared. While items are being dropped, none is prepared either, because
    a newer item would replace it.
    """

    def __init__(
        self,
        work: Callable[[Item], None],
        name: str,
        on_drop: Callable[[], None] = lambda: None,
        prepare: Callable[[Item], Item] | None = None,
    ) -> None:
        """work: called in the worker's thread; prepare: called in the second thread, returns the prepared
        item; on_drop: called for each dropped item. `work` and `prepare` must not raise.
        """
        self._on_drop = on_drop
        self._work = work
        self._condition = threading.Condition()
        self._waiting: Item | None = None
        self._preparing: Item | None = None
        self._prepared: Item | None = None
        self._busy = False
        self._dropping = False
        self._dropped_since = False
        self._running = True
        self._afterwards: list[Callable[[], None]] = []
        self.dropped = 0
        self._threads = [threading.Thread(target=self._loop, name=name, daemon=True)]
        if prepare is not None:
            self._threads.append(
                threading.Thread(
                    target=self._prepare_loop, args=(prepare,), name=f"{name}_ahead", daemon=True
                )
            )
        for thread in self._threads:
            thread.start()

    def submit(self, item: Item) -> None:
        """Hand over an item. Returns at once."""
        with self._condition:
            if self._waiting is not None:
                self._drop()
            self._waiting = item
            self._condition.notify_all()

    def discard(self) -> None:
        """Discard waiting items. The one in work goes on."""
        with self._condition:
            self._waiting = self._preparing = self._prepared = None

    def when_idle(self, action: Callable[[], None]) -> None:
        """Call `action` as soon as no item is in work: now, or later in the worker's thread. It must not raise."""
        with self._condition:
            if self._busy:
                self._afterwards.append(action)
                return
        action()

    def stop(self, timeout_s: float) -> bool:
        """End the threads after the current item. False if they still work after this time."""
        with self._condition:
            self._running = False
            self._waiting = self._preparing = self._prepared = None
            self._condition.notify_all()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _drop(self) -> None:
        self.dropped += 1
        self._dropping = self._dropped_since = True
        self._on_drop()

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._ready() or not self._running)
                if not self._running:
                    return
                if self._prepared is not None:
                    item, self._prepared = self._prepared, None
                else:
                    assert self._waiting is not None
                    item, self._waiting = self._waiting, None
                self._busy = True
                self._dropping, self._dropped_since = self._dropped_since, False
                self._condition.notify_all()
            try:
                self._work(item)
            finally:
                del item  # it may be large, and the next one may come late
                with self._condition:
                    self._busy = False
                    actions, self._afterwards = self._afterwards, []
                    self._condition.notify_all()
                for action in actions:
                    action()

    def _ready(self) -> bool:
        """Whether an item can go to work. One that is being prepared is older, so it goes first."""
        return self._prepared is not None or (self._waiting is not None and self._preparing is None)

    def _worth_preparing(self) -> bool:
        return self._waiting is not None and self._busy and not self._dropping

    def _prepare_loop(self, prepare: Callable[[Item], Item]) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._worth_preparing() or not self._running)
                if not self._running:
                    return
                assert self._waiting is not None
                item = self._preparing = self._waiting
                self._waiting = None
            ready = prepare(item)
            with self._condition:
                if self._preparing is item:  # otherwise `discard` has discarded it
                    if self._prepared is not None:
                        self._drop()
                    self._prepared, self._preparing = ready, None
                self._condition.notify_all()
            del item, ready  # they may be large, and the next one may come late
