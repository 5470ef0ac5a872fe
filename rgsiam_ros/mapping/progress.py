"""How far the building of a map is, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Advance = Callable[[int], None]
"""Is called with the number of steps that were done since the last call."""


class Progress(Protocol):
    """Shows the stages of a long task."""

    def start(self, stage: str, steps: int) -> Advance:
        """Begin a stage of `steps` steps."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, stage: str, steps: int) -> Advance:
        """See `Progress.start`."""
        return lambda steps: None
