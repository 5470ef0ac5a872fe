"""Write trajectories in TUM format."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from rgsiam_ros.geometry.conversions import quaternion_xyzw_of, stamp_text
from rgsiam_ros.geometry.poses import Array

logger = logging.getLogger(__name__)


def write_tum(path: Path, poses: Iterable[tuple[int, Array]]) -> None:
    """Write stamps (ns) and poses ``(4, 4)`` as lines ``stamp_s x y z qx qy qz qw``, metres, in the order of the stamps.

    The stamps keep all nine decimals. Of poses with the same stamp the first is written, because programs that read the
    format need increasing stamps; a warning says how many were left out.
    """
    lines, first = [], dict[int, Array]()
    repeated = sum(first.setdefault(stamp_ns, T) is not T for stamp_ns, T in poses)
    if repeated:
        logger.warning(
            "%s: %d poses have the stamp of another one and are not in the file",
            path.name,
            repeated,
        )
    for stamp_ns, T in sorted(first.items()):
        numbers = " ".join(f"{value:.9f}" for value in [*T[:3, 3], *quaternion_xyzw_of(T)])
        lines.append(f"{stamp_text(stamp_ns)} {numbers}\n")
    path.write_text("".join(lines))
