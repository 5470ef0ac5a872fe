"""Each cause of trouble is logged once in a while, so that one does not hide another."""

from __future__ import annotations

import math
import re
import time

THROTTLE_S = 5.0
LARGEST_MEMORY = 100


class LogThrottle:
    """Decides which messages go to the log."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}

    def may_log(self, cause: str) -> bool:
        """Whether this cause, numbers apart, was not logged in the last `THROTTLE_S`."""
        kind = re.sub(r"[\d.]+", "#", cause)
        now = time.monotonic()
        if now - self._logged_at.get(kind, -math.inf) < THROTTLE_S:
            return False
        if len(self._logged_at) > LARGEST_MEMORY:
            self._logged_at.clear()
        self._logged_at[kind] = now
        return True
