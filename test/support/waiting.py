"""Waiting for events."""

import time

PATIENCE_S = 300.0
"""A safety net for an event that never comes. However busy the machine is, no event takes so long."""


def wait_until(condition):
    """Wait until the condition holds. Fail if it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert condition()
