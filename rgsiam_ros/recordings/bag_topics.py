"""Find the topics of a bag. A topic that is missing or ambiguous is named with candidates and its option."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from rosbags.highlevel import AnyReader

from rgsiam_ros.camera.camera_info import beside
from rgsiam_ros.errors import BagError
from rgsiam_ros.recordings.bag_reading import messages_on, types_of

What = Literal["image", "depth", "camera info", "truth", "fix", "heading"]
POSES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
)

KINDS: dict[What, tuple[str, ...]] = {
    "image": ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"),
    "depth": ("sensor_msgs/msg/Image",),
    "camera info": ("sensor_msgs/msg/CameraInfo",),
    "truth": POSES,
    "fix": ("sensor_msgs/msg/NavSatFix",),
    "heading": ("sensor_msgs/msg/Imu", *POSES),
}
"""Message types of each topic."""
OPTIONS: dict[What, str] = {
    "image": "--image-topic",
    "depth": "--set topics.depth=TOPIC",
    "camera info": "--camera-info-topic (for train: --set topics.camera_info=TOPIC)",
    "truth": "--truth-topic",
    "fix": "--fix-topic",
    "heading": "--heading-topic",
}
DEPTH_ENCODINGS = ("16UC1", "32FC1")


def choose_topic(reader: AnyReader, bag: Path, wanted: str | None, what: What) -> str:
    """The wanted topic, or the only one of a fitting type. Raises BagError with the topics that would fit.

    An image is a depth image if its encoding says so. Its topic's name counts only if the encodings do not decide.
    """
    types = types_of(reader)
    if wanted is not None:
        if types.get(wanted) not in KINDS[what]:
            raise BagError(f"{bag} {missing_topic(types, wanted, what)}")
        return wanted
    fitting = _of_kind(types, what)
    if what in ("image", "depth") and len(fitting) + (what == "depth") > 1:
        every, depth = fitting, what == "depth"
        fitting = [name for name in every if _is_depth(reader, bag, name) == depth]
        if len(fitting) != 1:
            named = [name for name in fitting or every if ("depth" in name) == depth]
            fitting = named if len(named) == 1 else fitting
    if len(fitting) != 1:
        found = ", ".join(fitting) if fitting else f"none of {', '.join(KINDS[what])}"
        raise BagError(
            f"{bag}: cannot tell which topic is the {what}; found {found}. Name it with {OPTIONS[what]}, or "
            "record it"
        )
    return fitting[0]


def missing_topic(types: dict[str, str], wanted: str | None, what: What) -> str:
    """The reason why `wanted` cannot be used, with the topics that could and the option to name them.

    types: message types of the bag's topics, by name.
    """
    candidates = ", ".join(_of_kind(types, what)) or "none"
    if wanted in types:
        reason = f"has {wanted} with type {types[wanted]}, which cannot be the {what}"
    elif wanted is None:
        reason = f"has no {what} topic beside the images"
    else:
        reason = f"has no topic {wanted}"
    return (
        f"{reason}; topics of a fitting type ({', '.join(KINDS[what])}): {candidates}. Name the right one with "
        f"{OPTIONS[what]}, or record it"
    )


def camera_info_beside(image_topic: str, types: dict[str, str]) -> str | None:
    """``camera_info`` in the namespace of an image topic, or None if the bag lacks it."""
    sibling = beside(image_topic)
    return sibling if types.get(sibling) in KINDS["camera info"] else None


def _of_kind(types: dict[str, str], what: What) -> list[str]:
    return sorted(name for name, kind in types.items() if kind in KINDS[what])


def _is_depth(reader: AnyReader, bag: Path, topic: str) -> bool:
    first: Any = next(messages_on(reader, bag, topic), None)
    if first is None:
        return "depth" in topic
    form = str(getattr(first, "encoding", "") or getattr(first, "format", ""))
    return form.startswith(DEPTH_ENCODINGS) or "compressedDepth" in form
