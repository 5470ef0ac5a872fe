"""Camera relocalization for ROS 2: one image in, one pose in the map frame out.

The names below are imported when they are first used, so that ``import rgsiam_ros`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rgsiam_ros.bundle import Bundle
    from rgsiam_ros.camera.model import Camera
    from rgsiam_ros.engines.options import EngineOptions
    from rgsiam_ros.errors import RgsiamError
    from rgsiam_ros.localization.pose_estimate import PoseEstimate
    from rgsiam_ros.localization.relocalizer import Relocalizer

__version__ = "0.1.0"
__all__ = ["Bundle", "Camera", "EngineOptions", "PoseEstimate", "Relocalizer", "RgsiamError"]

_MODULES = {
    "Bundle": "rgsiam_ros.bundle",
    "Camera": "rgsiam_ros.camera.model",
    "EngineOptions": "rgsiam_ros.engines.options",
    "PoseEstimate": "rgsiam_ros.localization.pose_estimate",
    "Relocalizer": "rgsiam_ros.localization.relocalizer",
    "RgsiamError": "rgsiam_ros.errors",
}


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """The names that this package offers."""
    return sorted([*globals(), *__all__])
