"""What the node says about the images that it got: its ``~/status`` and ``/diagnostics``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rgsiam_ros.report.records import FrameRecord

OK, ERROR = 0, 2
"""Levels of ``diagnostic_msgs/DiagnosticStatus``."""
LOST, REJECTED = "lost", "rejected"
SKIPPED = "skipped: the node was busy with an earlier image"
NEVER_ARRIVED = "never arrived at the node"
UNKNOWN = "skipped by the node, or never arrived"


@dataclass(frozen=True)
class ImageReport:
    """The status of one image."""

    published: bool
    outcome: str
    """`LOST` or `REJECTED` for an image without a pose."""
    reason: str
    branch: str
    trust: float | None

    def on(self, frame: FrameRecord) -> FrameRecord:
        """The frame with what the status says about it."""
        problem = "" if frame.T_map_frame is not None else self.reason
        return replace(frame, problem=problem, branch=self.branch, trust=self.trust)


class NodeReports:
    """Collects what the node says."""

    def __init__(self, task: str) -> None:
        """task: name of the node's entry in the diagnostics, without the node."""
        self._task = task
        self.images: dict[int, ImageReport] = {}
        """By the stamp of the image, nanoseconds."""
        self.received = self.skipped = 0
        """Images that the node received, and those of them for which it had no time; by its diagnostics."""

    def take_status(self, message: Any) -> None:
        """Take a ``DiagnosticStatus`` of ``~/status``. Those that are not about an image are ignored."""
        values = {item.key: item.value for item in message.values}
        if "stamp" not in values:
            return
        seconds, _, fraction = values["stamp"].partition(".")
        level = ord(message.level)
        self.images[int(seconds) * 10**9 + int(fraction)] = ImageReport(
            level == OK,
            REJECTED if level == ERROR else LOST,
            message.message,
            values.get("branch", ""),
            _number(values.get("trust", "")),
        )

    def take_diagnostics(self, array: Any) -> None:
        """Take the node's counters from a ``DiagnosticArray``."""
        for status in array.status:
            if status.name.endswith(f": {self._task}"):
                values = {item.key: item.value for item in status.values}
                self.received, self.skipped = int(values["received"]), int(values["skipped"])

    def count(self, sent: list[int], answered: set[int]) -> dict[str, int]:
        """Numbers of the sent images that got no pose, by what became of them.

        The node does not say which images it skipped. An image is skipped if it arrived and nothing was said about
        it.
        """
        silent = [stamp for stamp in sent if stamp not in answered]
        known = [report for stamp in silent if (report := self.images.get(stamp)) is not None]
        lost = sum(report.outcome == LOST and not report.published for report in known)
        rejected = sum(report.outcome == REJECTED for report in known)
        unknown = len(silent) - len(known)
        skipped = min(self.skipped, unknown)
        return {
            "lost": lost,
            "rejected": rejected,
            "skipped": skipped,
            "never_arrived": unknown - skipped,
            "pose_never_arrived": len(known) - lost - rejected,
        }

    def why_silent(self, counts: dict[str, int]) -> str:
        """Why nothing was said about an image, as far as the counters tell. counts: of `count`."""
        if not counts["skipped"]:
            return NEVER_ARRIVED
        return UNKNOWN if counts["never_arrived"] else SKIPPED


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
