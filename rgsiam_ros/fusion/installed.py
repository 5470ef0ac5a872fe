"""Find robot_localization on this machine, and its version. This module imports nothing else of the package."""

from __future__ import annotations

import os
import re
from pathlib import Path

LOCAL_CARTESIAN_SINCE = (3, 8, 1)
"""First version of robot_localization whose ``use_local_cartesian`` works: earlier ones mix it with UTM."""


def find_robot_localization() -> Path | None:
    """The installation prefix of robot_localization, or None if it is not installed."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix and (Path(prefix) / "lib/robot_localization/ekf_node").is_file():
            return Path(prefix)
    return None


def version_of(prefix: Path) -> tuple[int, ...]:
    """The version of the robot_localization below `prefix`; empty if its package.xml does not say."""
    path = prefix / "share/robot_localization/package.xml"
    found = re.search(r"<version>([\d.]+)</version>", path.read_text()) if path.is_file() else None
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def why_gps_fails() -> str:
    """Why GPS cannot be fused with the robot_localization that is installed. Empty if it can, or if none is."""
    prefix = find_robot_localization()
    if prefix is None or version_of(prefix) >= LOCAL_CARTESIAN_SINCE:
        return ""
    wanted, found = (
        ".".join(map(str, version)) for version in (LOCAL_CARTESIAN_SINCE, version_of(prefix))
    )
    return (
        f"robot_localization in {prefix} is {found or 'of an unknown version'}, and before {wanted} fixes "
        "come out thousands of kilometres off: install a newer one, or write fusion_config with "
        "`rgsiam fusion-config --without gps`"
    )
