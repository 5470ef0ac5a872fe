"""The true poses in a bag. A bad one is left out, like a bad label of any other dataset."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rgsiam_ros.geometry.conversions import stamp_text, stamp_to_ns
from rgsiam_ros.geometry.poses import Array, interpolate_poses, quaternion_wxyz_from_xyzw
from rgsiam_ros.recordings.base import Dropped
from rgsiam_ros.recordings.pose_labels import BadLabelError, pose_from_quaternion

LONGEST_TRUTH_GAP_NS = 1_000_000_000
"""Largest time between two true poses between which poses are interpolated."""
FEWEST = 2
"""True poses that are needed for an interpolation."""


@dataclass(frozen=True)
class TruthTrack:
    """The usable true poses of a bag."""

    stamps_ns: np.ndarray
    """``(N,)``, increasing."""
    T_map_base_N44: Array
    messages: int = 0
    """Number of messages on the topic."""
    dropped: tuple[Dropped, ...] = ()
    """The messages that were left out."""

    def at(self, stamps_ns: Any) -> tuple[Array, np.ndarray]:
        """Return the true poses ``T_map_base`` ``(N, 4, 4)`` at stamps, and a mask ``(N,)`` of known poses.

        Poses are interpolated between two recorded ones. A pose is unknown outside the recorded time span
        and between two poses that are more than ``LONGEST_TRUTH_GAP_NS`` apart. The array then holds the
        identity.
        """
        stamps = np.asarray(stamps_ns, np.int64)
        poses, known = np.tile(np.eye(4), (len(stamps), 1, 1)), np.zeros(len(stamps), bool)
        truth = self.stamps_ns
        if len(truth) < FEWEST or not len(stamps):
            return poses, known
        after = np.clip(np.searchsorted(truth, stamps), 1, len(truth) - 1)
        gap = truth[after] - truth[after - 1]
        known = (stamps >= truth[0]) & (stamps <= truth[-1])
        known &= (gap <= LONGEST_TRUTH_GAP_NS) | np.isin(stamps, truth)
        poses[known] = interpolate_poses(truth, self.T_map_base_N44, stamps[known])
        return poses, known

    def why_too_few(self, topic: str) -> str | None:
        """The reason why no pose can be interpolated; None if it can. topic: of the poses."""
        if len(self.stamps_ns) >= FEWEST:
            return None
        if self.messages < FEWEST:
            return f"has {self.messages} messages on {topic}, and at least {FEWEST} true poses are needed: record it with the images"
        if self.dropped:
            return (
                f"has {len(self.stamps_ns)} usable poses in {self.messages} messages on {topic} ({self.dropped[0].where}: "
                f"{self.dropped[0].why}): correct what is published there"
            )
        return (
            f"has {self.messages} messages on {topic}, all with the stamp {stamp_text(int(self.stamps_ns[0]))} s: publish "
            "them with the time for which the pose holds"
        )

    def why_unknown(self, stamps_ns: np.ndarray, topic: str) -> str:
        """The reason why none of the images has a true pose. stamps_ns: of the images, at least one."""
        first, last = self.stamps_ns[[0, -1]]
        inside = (stamps_ns >= first) & (stamps_ns <= last)
        if inside.any():
            gap = float(np.median(np.diff(self.stamps_ns))) * 1e-9
            return (
                f"the poses on {topic} are {gap:.1f} s apart (median), and images are used only between two that are at "
                f"most {LONGEST_TRUTH_GAP_NS * 1e-9:g} s apart: record them at a higher rate"
            )
        if not stamps_ns.any():
            return "the stamps of all images are zero: let the camera driver stamp them"
        spans = [
            f"{stamp_text(int(a))} to {stamp_text(int(b))} s"
            for a, b in ((stamps_ns.min(), stamps_ns.max()), (first, last))
        ]
        return (
            f"no image lies within the time span of {topic}: the images are of {spans[0]}, the poses of {spans[1]}: "
            "check the clocks of both"
        )


def read_track(bag: Path, topic: str | None, messages: Iterable[Any]) -> TruthTrack:
    """The usable poses of Odometry or Pose messages, sorted by stamp. topic: for `TruthTrack.dropped`."""
    stamps, poses, dropped = array("q"), array("d"), []
    count = 0
    for message in messages:
        count += 1
        pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
        p, q = pose.position, pose.orientation
        stamp = stamp_to_ns(message.header.stamp)
        try:
            T = pose_from_quaternion(
                [p.x, p.y, p.z], quaternion_wxyz_from_xyzw(np.array([q.x, q.y, q.z, q.w]))
            )
        except BadLabelError as error:
            where = f"{bag}: {topic} at {stamp_text(stamp)} s"
            dropped.append(Dropped(where, str(error), frames=0))
            continue
        stamps.append(stamp)
        poses.extend(T.ravel())
    unique, first = np.unique(np.frombuffer(stamps, np.int64), return_index=True)
    track = np.frombuffer(poses).reshape(-1, 4, 4)[first]
    return TruthTrack(unique, track, count, tuple(dropped))
