"""Parts of ROS messages that the town's sessions and sensors share."""

from __future__ import annotations

from typing import Any

from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_JAZZY)


def new_message(kind: str, **fields: Any) -> Any:
    """Return a message of the type `kind`, for example ``std_msgs/msg/Header``."""
    return TYPES.types[kind](**fields)


def header(stamp_ns: int, frame_id: str) -> Any:
    """Return a ``std_msgs/Header``."""
    stamp = new_message(
        "builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
    )
    return new_message("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def vector(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Any:
    """Return a ``geometry_msgs/Vector3``."""
    return new_message("geometry_msgs/msg/Vector3", x=float(x), y=float(y), z=float(z))
