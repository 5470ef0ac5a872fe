"""Decide when the map filter starts, with which pose, and whether it still takes the visual poses.

A map filter that starts on its own is at the map's origin, with an unknown heading, and may reject every later pose,
silently and for good. So it is held back until there is a visual pose, is set to it, and is watched. This module
knows no ROS: `rgsiam_ros.node.fusion_supervisor` connects it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np

from rgsiam_ros.fusion.filter_check import (
    PLANE,
    SPACE,
    FilterTrack,
    MapPose,
    OdometryTrack,
    rejection_distance,
    worst_part,
)
from rgsiam_ros.fusion.gps_start import GpsStart
from rgsiam_ros.geometry.poses import Array

Source = Literal["visual", "gps", "hint"]
Level = Literal["info", "warning", "error"]

OFFER_EVERY_S = 0.5
"""Until the filter's odometry agrees, the pose is set again after this time."""
FRESH_S = 2.0
"""A fix that is older does not start the filter. A filter that is silent for longer has stopped."""
PATIENCE_S = 5.0
"""A filter that does not take a pose for longer is an error."""
SHOWN_S = 10.0
"""A new start is shown as an error for this time, because /diagnostics is read once a second."""
EMPTY_EVERY_S = 60.0
"""While the filter is held back it keeps every wheel and IMU message. Setting a pose empties this queue."""
MARGIN_M, MARGIN_S, MARGIN_RAD = 1.0, 0.3, 0.1
"""Standard deviations that a pose gets more before the filter is set to it: metres, seconds of driving, radians.
``set_pose`` also sets the filter's speeds to zero, and it takes some messages of the wheels until it moves."""
SPEED_TOLERANCE, SPEED_TOLERANCE_M_S = 0.1, 0.5
"""The filter moves once its speed is that of the wheels, within this part of it and this much."""
SMALLEST_SIGMA_M = 0.1
"""A filter whose sigma is within `Limits.sigma_factor` of this is sure enough, however sure the poses are."""
WORDS = {"visual": "a visual pose", "gps": "GPS alone", "hint": "a hint"}


@dataclass(frozen=True)
class Limits:
    """The settings of `FilterSupervisor`."""

    wait_s: float = 30.0
    """Without a visual pose for so long, the filter starts from GPS alone, if GPS is used. Seconds."""
    rejected_in_row: int = 10
    """So many poses in a row that the filter does not take are an error."""
    sigmas: float = 4.0
    """The filter's rejection threshold for poses, in sigmas."""
    sigma_factor: float = 10.0
    """A filter whose position sigma exceeds the pose's by this factor has not taken the pose."""
    reinitialise: bool = True
    """Whether a filter that rejects the poses is set to the newest one."""
    three_d: bool = False
    """Whether the filter fuses all six axes of a pose."""
    uses_gps: bool = True
    """Whether the filter fuses GPS."""
    uses_visual: bool = True
    """Whether the filter fuses visual poses. If not, it starts from GPS at once."""


class Phase(Enum):
    """What the supervisor waits for."""

    WAITING = "waiting for a visual pose"
    STARTING = "starting the map filter"
    RUNNING = "running"


@dataclass(frozen=True)
class Offer:
    """A pose to set the map filter to."""

    pose: MapPose
    enable: bool
    """Whether to enable the filter too. Without, it only forgets what it has queued."""


class FilterSupervisor:
    """A state machine. Times are seconds of one clock. Not thread-safe."""

    def __init__(self, limits: Limits, now_s: float) -> None:
        self.limits = limits
        self.phase = Phase.WAITING
        self.source: Source = "visual"
        """What the filter was last set to. It means nothing while the phase is WAITING."""
        self.rejected_in_row = 0
        self.counts = dict.fromkeys(("started", "restarted", "poses", "rejected"), 0)
        self._axes = SPACE if limits.three_d else PLANE
        self._since_s = now_s
        self._wheels, self._track = OdometryTrack(), FilterTrack()
        self._speed_m_s = 0.0
        self._offer: MapPose | None = None
        self._offers = 0
        self._offered_s = self._heard_s = -math.inf
        self._emptied_s = now_s
        self._gps, self._fix_s = GpsStart(), -math.inf
        self._pending: tuple[MapPose, str] | None = None
        self._previous_sigma_m = math.inf
        self._smallest_sigma_m = math.inf
        self._why_rejected = ""
        self._restart: tuple[str, float] | None = None
        self._events: list[tuple[Level, str]] = []

    @property
    def passes(self) -> bool:
        """Whether visual poses and converted fixes may reach the filter.

        They may not while it does not move yet: they would make it sure of its place, and then reject the next.
        """
        return self.phase is Phase.RUNNING

    def take_events(self) -> list[tuple[Level, str]]:
        """What has happened since the last call, for the log."""
        events, self._events = self._events, []
        return events

    def add_odometry(self, stamp_ns: int, T_odom_base: Array, speed_m_s: float) -> None:
        """A pose by wheels and IMU, ``(4, 4)``, metres, and the speed. Raises ValueError if it is not finite."""
        self._wheels.add(stamp_ns, T_odom_base)
        self._speed_m_s = abs(speed_m_s)

    def add_fix(self, pose: MapPose, now_s: float) -> None:
        """A position by GPS. Its rotation is not used."""
        self._gps.add(pose)
        self._fix_s = now_s

    def add_hint(self, pose: MapPose, now_s: float) -> None:
        """A pose that a person gave. The filter is set to it, until a visual pose comes."""
        self._begin(pose, "hint", now_s)

    def add_visual(self, pose: MapPose, now_s: float) -> None:
        """A pose that the relocalizer published."""
        if not self.limits.uses_visual:
            return
        self.counts["poses"] += 1
        if self.phase is Phase.RUNNING and self.source == "visual":
            self._smallest_sigma_m, smallest = math.inf, self._smallest_sigma_m
            previous, self._previous_sigma_m = self._previous_sigma_m, pose.horizontal_sigma_m
            self._pending = pose, self._why_unsure(smallest, previous)
            self._judge_pending(now_s)
        elif self.phase is Phase.STARTING and self.source == "visual":
            self._offer = self._with_margin(pose)
        else:
            self._begin(pose, "visual", now_s)

    def add_filtered(self, pose: MapPose, speed_m_s: float, now_s: float) -> None:
        """A pose and speed that the map filter published. Raises ValueError if the pose is not finite."""
        self._track.add(pose)
        self._heard_s = now_s
        self._smallest_sigma_m = min(self._smallest_sigma_m, pose.horizontal_sigma_m)
        if self.phase is Phase.STARTING and self._has_taken(pose, abs(speed_m_s)):
            self.phase = Phase.RUNNING
            self._smallest_sigma_m = self._previous_sigma_m = math.inf
            self._events.append(("info", f"the map filter runs, from {WORDS[self.source]}"))
        self._judge_pending(now_s)

    def tick(self, now_s: float, *, reachable: bool = True) -> Offer | None:
        """Let time pass. Returns a pose to set the filter to, or None. To be called ten times a second.

        reachable: whether the filter would receive it. The filter is enabled one call after its pose was set, so
        that it never runs without one.
        """
        if self.phase is Phase.RUNNING and now_s - self._heard_s > FRESH_S:
            self._wait_anew(now_s)
        if self.phase is Phase.WAITING:
            self._start_from_gps(now_s)
        if not reachable:
            return None
        silent = now_s - self._heard_s > FRESH_S
        if self.phase is Phase.WAITING and silent and now_s - self._emptied_s >= EMPTY_EVERY_S:
            self._emptied_s = now_s
            return Offer(MapPose(0, np.eye(4), np.diag([1e6] * 3 + [10.0] * 3)), enable=False)
        if self.phase is not Phase.STARTING or self._offer is None:
            return None
        if self._offers > 1 and now_s - self._offered_s < OFFER_EVERY_S:
            return None
        self._offer, self._offered_s = self._wheels.carried(self._offer), now_s
        self._offers += 1
        return Offer(self._offer, enable=silent and self._offers > 1)

    def findings(self, now_s: float) -> list[tuple[Level, str]]:
        """Level and message of each problem."""
        waited_s = now_s - self._since_s
        found: list[tuple[Level, str]] = []
        if self.phase is Phase.WAITING:
            found.append(("warning", self._waiting_text(waited_s)))
        elif self.phase is Phase.STARTING and waited_s > PATIENCE_S:
            text = (
                f"the map filter has not taken {WORDS[self.source]} for {waited_s:.0f} s: check that "
                "it runs, with its topics set_pose and odometry/filtered and its service enable"
            )
            found.append(("error", text))
        elif self.phase is Phase.STARTING:
            found.append(("warning", f"the map filter starts from {WORDS[self.source]}"))
        elif self.source != "visual" and self.limits.uses_visual:
            text = f"the map filter runs from {WORDS[self.source]}, no visual pose yet"
            found.append(("warning", text))
        if self.rejected_in_row >= self.limits.rejected_in_row:
            found.append(("error", self._rejection_text()))
        if self._restart is not None and now_s - self._restart[1] <= SHOWN_S:
            found.append(("error", self._restart[0]))
        return found

    def _waiting_text(self, waited_s: float) -> str:
        drive = "some metres of driving give the heading"
        if not self.limits.uses_visual:
            return f"no position by GPS for {waited_s:.0f} s: the map filter is held back; {drive}"
        text = f"no visual pose for {waited_s:.0f} s: the map filter is held back"
        if not self.limits.uses_gps:
            return text
        return f"{text}; it starts from GPS alone after {self.limits.wait_s:g} s, {drive}"

    def _begin(self, pose: MapPose, source: Source, now_s: float) -> None:
        level: Level = "info" if source == "visual" or not self.limits.uses_visual else "warning"
        self._events.append((level, f"the map filter is set to {WORDS[source]}"))
        self.counts["restarted" if self.counts["started"] else "started"] += 1
        self.phase, self.source, self._since_s = Phase.STARTING, source, now_s
        self._offer, self._offers = self._with_margin(pose), 0
        self._pending, self.rejected_in_row = None, 0

    def _with_margin(self, pose: MapPose) -> MapPose:
        sigma = np.repeat([MARGIN_M + MARGIN_S * self._speed_m_s, MARGIN_RAD], 3)
        return pose.widened(np.diag(sigma**2))

    def _start_from_gps(self, now_s: float) -> None:
        wait_s = self.limits.wait_s if self.limits.uses_visual else 0.0
        if not self.limits.uses_gps or now_s - self._since_s < wait_s:
            return
        if now_s - self._fix_s > FRESH_S:
            return
        if now_s - self._heard_s <= FRESH_S:  # it was not this supervisor that started it
            self.phase, self.source = Phase.RUNNING, "gps"
        elif (pose := self._gps.pose(self._wheels)) is not None:
            self._begin(pose, "gps", now_s)

    def _wait_anew(self, now_s: float) -> None:
        text = f"the map filter has been silent for over {FRESH_S:g} s: it is set to the next pose"
        self._note_restart(text, now_s)
        self.phase, self._since_s = Phase.WAITING, now_s
        self._pending, self.rejected_in_row = None, 0

    def _note_restart(self, text: str, now_s: float) -> None:
        self._events.append(("error", text))
        self._restart = (text, now_s)

    def _has_taken(self, filtered: MapPose, speed_m_s: float) -> bool:
        """Whether the filter is where it was set to, as sure, and as fast as the wheels."""
        if self._offer is None or not self._offers:
            return False
        tolerance_m_s = SPEED_TOLERANCE * self._speed_m_s + SPEED_TOLERANCE_M_S
        if abs(speed_m_s - self._speed_m_s) > tolerance_m_s:
            return False
        wanted = self._wheels.carried(self._offer)
        return self._is_sure(filtered.horizontal_sigma_m, wanted.horizontal_sigma_m) and (
            rejection_distance(wanted, filtered, self._axes) <= self.limits.sigmas
        )

    def _is_sure(self, filter_sigma_m: float, pose_sigma_m: float) -> bool:
        return filter_sigma_m <= self.limits.sigma_factor * max(pose_sigma_m, SMALLEST_SIGMA_M)

    def _why_unsure(self, smallest_m: float, previous_m: float) -> str:
        """Why the filter cannot have taken the previous pose: it never became sure after it. Empty if it did."""
        if math.inf in (smallest_m, previous_m) or self._is_sure(smallest_m, previous_m):
            return ""
        return f"its sigma is {smallest_m:.1f} m, the poses' {previous_m:.2f} m"

    def _judge_pending(self, now_s: float) -> None:
        """Compare the newest visual pose with the filter at its stamp, once the filter has come so far."""
        if self._pending is None or self.phase is not Phase.RUNNING:
            return
        pose, why_unsure = self._pending
        filtered = self._track.at(pose.stamp_ns)
        if filtered is None:
            return
        self._pending = None
        distance = rejection_distance(pose, filtered, self._axes)
        if distance > self.limits.sigmas:
            worst = worst_part(pose, filtered, self._axes)
            text = f"{distance:.1f} sigmas away, over {self.limits.sigmas:g}, most in {worst}"
            self._reject(pose, text, now_s)
        elif why_unsure:
            self._reject(pose, why_unsure, now_s)
        else:
            self.rejected_in_row = 0

    def _reject(self, pose: MapPose, why: str, now_s: float) -> None:
        self.counts["rejected"] += 1
        self.rejected_in_row += 1
        self._why_rejected = why
        if self.rejected_in_row < self.limits.rejected_in_row:
            return
        if self.limits.reinitialise:
            self._note_restart(f"{self._rejection_text()}; it is set to the newest", now_s)
            self._begin(pose, "visual", now_s)
        elif self.rejected_in_row == self.limits.rejected_in_row:
            self._events.append(("error", self._rejection_text()))

    def _rejection_text(self) -> str:
        return (
            f"the map filter does not take the visual poses, {self.rejected_in_row} in a row: "
            f"{self._why_rejected}"
        )
