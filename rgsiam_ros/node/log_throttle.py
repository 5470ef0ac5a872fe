"""Limit how often one kind of fault is logged, so that a frequent one does not hide the others."""

from __future__ import annotations

import math
import time

THROTTLE_S = 5.0
MOST_KINDS = 100
SHOWN = 80
"""Most characters of a name that a sender chose, in a message."""


class LogThrottle:
    """Decides which messages go to the log."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}

    def may_log(self, kind: str) -> bool:
        """Whether to log a message.

        False if one of the same kind was logged in the last `THROTTLE_S` seconds. kind: names the fault, and
        holds nothing that a sender chooses: each new name of a frame would be a new kind.
        """
        now = time.monotonic()
        if now - self._logged_at.get(kind, -math.inf) < THROTTLE_S:
            return False
        if len(self._logged_at) > MOST_KINDS:
            self._logged_at.clear()
        self._logged_at[kind] = now
        return True
