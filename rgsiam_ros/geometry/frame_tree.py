"""A tree of static and moving coordinate frames with lookup by time.

It does what tf2's buffer does, and works without ROS.
"""

from __future__ import annotations

import bisect
import heapq
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from rgsiam_ros.errors import TransformUnavailableError
from rgsiam_ros.geometry.poses import (
    Array,
    check_pose,
    interpolate_poses,
    invert,
)

HISTORY = 1024
"""Number of poses that are kept for one moving transform."""
LONGEST_CHAIN = 256
"""Largest number of frames between a frame and its root; a longer chain counts as a loop."""

LONGEST_NAME = 256
"""Most characters of a frame's name."""
MOST_FRAMES = 20_000
"""Most frames with a parent. A vehicle has tens."""
MOST_SHOWN = 20
"""Most frames that a message names."""


@dataclass
class _Edge:
    parent: str
    static: bool
    stamps_ns: deque[int] = field(default_factory=lambda: deque(maxlen=HISTORY))
    poses: deque[Array] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def pose_at(self, child: str, stamp_ns: int | None) -> Array:
        if self.static or stamp_ns is None:
            return self.poses[-1]
        stamps = list(self.stamps_ns)
        if not stamps[0] <= stamp_ns <= stamps[-1]:
            side = "older" if stamp_ns < stamps[0] else "newer"
            raise TransformUnavailableError(
                f"{self.parent} -> {child} is known from {stamps[0] * 1e-9:.3f} to "
                f"{stamps[-1] * 1e-9:.3f} s; the wanted stamp {stamp_ns * 1e-9:.3f} s is {side}"
            )
        after = bisect.bisect_left(stamps, stamp_ns)
        if stamps[after] == stamp_ns:
            return self.poses[after]
        pair = slice(after - 1, after + 1)
        return interpolate_poses(stamps[pair], np.stack(list(self.poses)[pair]), [stamp_ns])[0]


class TransformTree:
    """Rigid transforms between named frames. Stamps are integer nanoseconds.

    A leading slash of a frame's name is ignored.
    """

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}

    def update(
        self, parent: str, child: str, T_parent_child: Array, stamp_ns: int, *, static: bool
    ) -> None:
        """Store the ``(4, 4)`` pose of `child` in `parent`, metres.

        static: the pose holds at every stamp. A moving transform with an older stamp than the newest
        stored one replaces the history of this transform; one with an equal stamp is ignored.
        Raises ValueError when T_parent_child is not a finite rigid transform, when a frame would be above
        itself, and for names that are too long or too many. The tree is then as before.
        """
        T = check_pose(T_parent_child)
        parent, child = parent.lstrip("/"), child.lstrip("/")
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent:
            self._check_new(parent, child)
        if edge is None or edge.parent != parent or edge.static != static:
            edge = self._edges[child] = _Edge(parent, static)
        if static:
            edge.poses.clear()
            edge.stamps_ns.clear()
        elif edge.stamps_ns and stamp_ns <= edge.stamps_ns[-1]:
            if stamp_ns == edge.stamps_ns[-1]:
                return
            edge.poses.clear()  # time went backwards: a bag was looped or a simulation was reset
            edge.stamps_ns.clear()
        edge.stamps_ns.append(stamp_ns)
        edge.poses.append(T)

    def lookup(self, target: str, source: str, stamp_ns: int | None = None) -> Array:
        """Return ``T_target_source``, ``(4, 4)``: the pose of frame `source` in frame `target`.

        stamp_ns: the time for which moving transforms are interpolated; None takes the newest pose of
        each. Raises TransformUnavailableError when no chain joins the frames, when a moving transform is
        not known at the stamp, or when the transforms form a loop.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        chains = {frame: self.ancestors(frame) for frame in (target, source)}
        common = next((frame for frame in chains[source] if frame in chains[target]), None)
        if common is None:
            frames = self.frames()
            shown = heapq.nsmallest(MOST_SHOWN, frames)
            more = f" and {len(frames) - len(shown)} more" if len(frames) > len(shown) else ""
            known = ", ".join(shown) + more or "none"
            raise TransformUnavailableError(
                f"no chain of transforms joins {target:.80} and {source:.80}; known frames: {known}"
            )
        T_common_target = self._pose_in_ancestor(common, chains[target], stamp_ns)
        T_common_source = self._pose_in_ancestor(common, chains[source], stamp_ns)
        return invert(T_common_target) @ T_common_source

    def frames(self) -> set[str]:
        """Return the names of all frames, parents and children."""
        return set(self._edges) | {edge.parent for edge in self._edges.values()}

    def _check_new(self, parent: str, child: str) -> None:
        """Raise ValueError if `child` cannot get this parent."""
        if max(len(parent), len(child)) > LONGEST_NAME:
            raise ValueError(f"a frame's name has more than {LONGEST_NAME} characters")
        if child not in self._edges and len(self._edges) >= MOST_FRAMES:
            raise ValueError(f"there are {MOST_FRAMES} frames already")
        above: str | None = parent
        for _ in range(LONGEST_CHAIN):
            if above is None:
                return
            if above == child:
                raise ValueError("a frame would be above itself")
            edge = self._edges.get(above)
            above = None if edge is None else edge.parent
        raise ValueError(f"a frame would be more than {LONGEST_CHAIN} levels deep")

    def ancestors(self, frame: str) -> list[str]:
        """`frame`, its parent, the parent's parent, and so on up to the root.

        Raises TransformUnavailableError for a loop.
        """
        chain = [frame]
        while (edge := self._edges.get(chain[-1])) is not None:
            if edge.parent in chain or len(chain) > LONGEST_CHAIN:
                raise TransformUnavailableError(f"the transforms above {frame} form a loop")
            chain.append(edge.parent)
        return chain

    def _pose_in_ancestor(self, ancestor: str, chain: list[str], stamp_ns: int | None) -> Array:
        """The pose of the first frame of `chain` (see `ancestors`) in `ancestor`."""
        T = np.eye(4)
        for child in reversed(chain[: chain.index(ancestor)]):
            T = T @ self._edges[child].pose_at(child, stamp_ns)
        return T
