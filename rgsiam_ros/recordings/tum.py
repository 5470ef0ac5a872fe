"""Trajectories in TUM format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rgsiam_ros.geometry.poses import Array, quaternion_wxyz, quaternion_xyzw_from_wxyz


def write_tum(path: Path, poses: Iterable[tuple[int, Array]]) -> None:
    """TUM trajectory: ``stamp_s x y z qx qy qz qw``, stamps with all nine decimals."""
    lines = []
    for stamp_ns, T in poses:
        quaternion_xyzw = quaternion_xyzw_from_wxyz(quaternion_wxyz(T))
        numbers = " ".join(f"{value:.9f}" for value in [*T[:3, 3], *quaternion_xyzw])
        lines.append(f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d} {numbers}\n")
    path.write_text("".join(lines))
