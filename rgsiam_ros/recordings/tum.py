"""Write trajectories in TUM format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rgsiam_ros.geometry.conversions import quaternion_xyzw_of, stamp_text
from rgsiam_ros.geometry.poses import Array


def write_tum(path: Path, poses: Iterable[tuple[int, Array]]) -> None:
    """Write stamps (ns) and poses ``(4, 4)`` as lines ``stamp_s x y z qx qy qz qw``, metres.

    The stamps keep all nine decimals.
    """
    lines = []
    for stamp_ns, T in poses:
        numbers = " ".join(f"{value:.9f}" for value in [*T[:3, 3], *quaternion_xyzw_of(T)])
        lines.append(f"{stamp_text(stamp_ns)} {numbers}\n")
    path.write_text("".join(lines))
