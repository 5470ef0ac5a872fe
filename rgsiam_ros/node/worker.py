"""A thread that always works on the newest item and never makes the producer wait. No ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class NewestWorker(Generic[Item]):
    """One slot, one thread. An item that is still waiting when the next comes is dropped."""

    def __init__(
        self,
        work: Callable[[Item], None],
        name: str,
        on_drop: Callable[[], None] = lambda: None,
    ) -> None:
        """work must not raise; it runs in the worker's thread. on_drop: for each dropped item."""
        self._on_drop = on_drop
        self._work = work
        self._condition = threading.Condition()
        self._waiting: Item | None = None
        self._busy = False
        self._running = True
        self.dropped = 0
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> None:
        """Hand over an item; returns at once."""
        with self._condition:
            if self._waiting is not None:
                self.dropped += 1
                self._on_drop()
            self._waiting = item
            self._condition.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Forget a waiting item and wait until the current one is done; False on timeout."""
        with self._condition:
            self._waiting = None
            return self._condition.wait_for(lambda: not self._busy, timeout_s)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread after the item in work."""
        with self._condition:
            self._running = False
            self._waiting = None
            self._condition.notify_all()
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting is not None or not self._running)
                if not self._running:
                    return
                item, self._waiting, self._busy = self._waiting, None, True
            try:
                self._work(item)  # type: ignore[arg-type]
            finally:
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()
