"""Limit how often one message is logged, so that a frequent one does not hide the others."""

from __future__ import annotations

import math
import re
import time

THROTTLE_S = 5.0
MOST_CAUSES = 100


class LogThrottle:
    """Decides which messages go to the log."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}

    def may_log(self, cause: str) -> bool:
        """Whether to log a message.

        False if the same message was logged in the last `THROTTLE_S` seconds. Numbers in it may differ.
        """
        kind = re.sub(r"[\d.]+", "#", cause)
        now = time.monotonic()
        if now - self._logged_at.get(kind, -math.inf) < THROTTLE_S:
            return False
        if len(self._logged_at) > MOST_CAUSES:
            self._logged_at.clear()
        self._logged_at[kind] = now
        return True
