"""The topics of a bag. This module imports nothing else, so that the command line can show the defaults."""

from __future__ import annotations

from dataclasses import dataclass

IDENTITY = "identity"
MOUNTS = ("tf_static", IDENTITY)


@dataclass(frozen=True)
class BagTopics:
    """The topics to read from a bag, and the vehicle frame."""

    image: str | None = None
    """Colour images. None: the only topic of an image type that is not depth."""
    camera_info: str | None = None
    """None: ``camera_info`` in the namespace of the images, if the bag has it."""
    truth: str | None = "/ground_truth/odometry"
    """True poses of the vehicle. None, or a topic that the bag lacks: no true poses."""
    base_frame: str = "base_link"
    """Vehicle frame. It is used if the true poses name no child frame."""
    depth: str | None = None
    """Depth images. None: the only ``sensor_msgs/Image`` topic with a depth encoding."""
    rectified: bool = False
    """The images are rectified: P of camera_info holds, without distortion."""
    mount: str = MOUNTS[0]
    """The camera's pose in the vehicle frame. ``tf_static``: from the bag. ``identity``: the true poses are those of
    the camera's optical frame (x right, y down, z forward)."""

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown mount."""
        if self.mount not in MOUNTS:
            raise ValueError(f"mount {self.mount!r} is none of {', '.join(MOUNTS)}")
