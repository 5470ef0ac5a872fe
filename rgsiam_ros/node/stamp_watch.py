"""Stamps of images that cannot be right. No ROS."""

from __future__ import annotations

FUTURE_S = 1.0
ANOTHER_CLOCK_S = 60.0


class StampWatch:
    """Compares each stamp with the one before and with the clock."""

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def problem(self, stamp_ns: int, now_ns: int) -> tuple[str, str] | None:
        """Cause in one word (``zero``, ``backwards``, ``future``) and in words; None where all is well.

        now_ns: of the node's clock; 0 where simulated time has not begun.
        """
        if stamp_ns <= 0:
            return "zero", (
                "the image's stamp is zero: let the camera driver stamp its images, since a pose "
                "without a time is of no use"
            )
        last_ns, self._last_ns = self._last_ns, stamp_ns
        if last_ns is not None and stamp_ns < last_ns:
            return "backwards", (
                f"stamps went back by {(last_ns - stamp_ns) * 1e-9:.3f} s (a looped bag, a simulation "
                "that was reset, or two cameras on one topic): the gate starts anew"
            )
        ahead = (stamp_ns - now_ns) * 1e-9
        if now_ns > 0 and ahead > FUTURE_S:
            return "future", (
                f"stamps are {ahead:.1f} s in the future: synchronise the camera's clock with this "
                "machine's, or set use_sim_time as the camera does"
            )
        return None


def delay_s(stamp_ns: int, now_ns: int, since_received_s: float) -> float:
    """From the stamp to now; from the receipt where the stamp is of another clock, as in a replay."""
    since_stamp = (now_ns - stamp_ns) * 1e-9
    return since_stamp if 0.0 <= since_stamp < ANOTHER_CLOCK_S else since_received_s
