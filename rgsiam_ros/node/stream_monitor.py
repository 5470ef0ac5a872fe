"""Notice images that were taken but never arrived. No ROS.

A camera stamps its images at a steady period. When the transport loses many of them, the gaps
between received stamps are mostly multiples of that period, while the shortest gaps still show it.
"""

from __future__ import annotations

from collections import deque

import numpy as np

WINDOW = 40
NOMINAL_PERCENTILE = 10
LOW_SHARE = 0.6


class StreamMonitor:
    """Share of images that arrive, judged from their stamps."""

    def __init__(self) -> None:
        self._stamps_ns: deque[int] = deque(maxlen=WINDOW)

    def add(self, stamp_ns: int) -> None:
        """Take note of a received image. A stamp that goes backwards starts the window anew."""
        if self._stamps_ns and stamp_ns <= self._stamps_ns[-1]:
            self._stamps_ns.clear()
        self._stamps_ns.append(stamp_ns)

    def arriving_share(self) -> float | None:
        """Received rate over the rate that the stamps imply, 0..1; None before the window is full."""
        if len(self._stamps_ns) < WINDOW:
            return None
        gaps = np.diff(np.array(self._stamps_ns))
        return float(min(1.0, np.percentile(gaps, NOMINAL_PERCENTILE) / gaps.mean()))

    def complaint(self) -> str | None:
        """What to tell the user when far too few images arrive, else None. Restarts the window."""
        share = self.arriving_share()
        if share is None or share >= LOW_SHARE:
            return None
        gaps = np.diff(np.array(self._stamps_ns)) * 1e-9
        self._stamps_ns.clear()
        return (
            f"only about {share:.0%} of the images arrive: {1.0 / gaps.mean():.1f} Hz received, "
            f"but their stamps imply {1.0 / np.percentile(gaps, NOMINAL_PERCENTILE):.1f} Hz. Large "
            "raw images overflow Fast DDS's shared memory in the camera driver's process: start "
            "the driver with FASTRTPS_DEFAULT_PROFILES_FILE set to config/fastdds_large_images.xml "
            "of rgsiam_ros, or use the compressed transport"
        )
