"""The topics of a bag. This module imports nothing else, so that the command line can show the defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BagTopics:
    """The topics to read from a bag, and the vehicle frame."""

    image: str | None = None
    """Colour images. None: the only topic of an image type without ``depth`` in its name."""
    camera_info: str | None = None
    """None: ``camera_info`` in the namespace of the images, if the bag has it."""
    truth: str | None = "/ground_truth/odometry"
    """True poses of the vehicle. None, or a topic that the bag lacks: no true poses."""
    base_frame: str = "base_link"
    """Vehicle frame. It is used if the true poses name no child frame."""
    depth: str | None = None
    """Depth images. None: the only ``sensor_msgs/Image`` topic with ``depth`` in its name."""
    rectified: bool = False
    """The images are rectified: P of camera_info holds, without distortion."""
