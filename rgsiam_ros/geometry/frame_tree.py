"""A small tree of frames, static and moving: what tf2's buffer does, for where tf2 is not there."""

from __future__ import annotations

import bisect
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
LONGEST_CHAIN = 256


@dataclass
class _Edge:
    parent: str
    static: bool
    stamps_ns: deque[int] = field(default_factory=lambda: deque(maxlen=HISTORY))
    poses: deque[Array] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def at(self, child: str, stamp_ns: int | None) -> Array:
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
        between = slice(after - 1, after + 1)
        return interpolate_poses(stamps[between], np.stack(list(self.poses)[between]), [stamp_ns])[
            0
        ]


class TransformTree:
    """Frames and the rigid transforms between them. Stamps are integer nanoseconds."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}

    def update(
        self, parent: str, child: str, T_parent_child: Array, stamp_ns: int, *, static: bool
    ) -> None:
        """Take in one transform. Raises ValueError when it is not a finite rigid transform."""
        T = check_pose(T_parent_child)
        parent, child = parent.lstrip("/"), child.lstrip("/")
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.static != static:
            edge = self._edges[child] = _Edge(parent, static)
        if static:
            edge.poses.clear()
            edge.stamps_ns.clear()
        elif edge.stamps_ns and stamp_ns <= edge.stamps_ns[-1]:
            if stamp_ns == edge.stamps_ns[-1]:
                return
            edge.poses.clear()  # time went backwards: a looped bag or a simulation reset
            edge.stamps_ns.clear()
        edge.stamps_ns.append(stamp_ns)
        edge.poses.append(T)

    def lookup(self, target: str, source: str, stamp_ns: int | None = None) -> Array:
        """``T_target_source``, ``(4, 4)``: the pose of `source` in `target`, any chain depth.

        stamp_ns None takes the newest of each moving transform. Raises TransformUnavailableError.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        chains = {frame: self._ancestors(frame) for frame in (target, source)}
        common = next((frame for frame in chains[source] if frame in chains[target]), None)
        if common is None:
            known = ", ".join(sorted(self.frames())) or "none"
            raise TransformUnavailableError(
                f"no chain of transforms joins {target} and {source}; known frames: {known}"
            )
        T_common_target = self._down(common, chains[target], stamp_ns)
        T_common_source = self._down(common, chains[source], stamp_ns)
        return invert(T_common_target) @ T_common_source

    def parent(self, child: str) -> str | None:
        """The frame that `child` hangs on, or None."""
        edge = self._edges.get(child.lstrip("/"))
        return None if edge is None else edge.parent

    def frames(self) -> set[str]:
        """Every frame heard of."""
        return set(self._edges) | {edge.parent for edge in self._edges.values()}

    def _ancestors(self, frame: str) -> list[str]:
        chain = [frame]
        while (edge := self._edges.get(chain[-1])) is not None:
            if edge.parent in chain or len(chain) > LONGEST_CHAIN:
                raise TransformUnavailableError(f"the transforms above {frame} form a loop")
            chain.append(edge.parent)
        return chain

    def _down(self, common: str, chain: list[str], stamp_ns: int | None) -> Array:
        T = np.eye(4)
        for child in reversed(chain[: chain.index(common)]):
            T = T @ self._edges[child].at(child, stamp_ns)
        return T
