"""Read a recorded drive from a rosbag2 or ROS 1 bag, without ROS."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

from rgsiam_ros.camera.camera_info import (
    beside,
    calibrated_camera,
    contradicts_rectified,
    frames_differ,
    part_of_image,
)
from rgsiam_ros.camera.decoding import decode_message
from rgsiam_ros.camera.levels import Levels
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import BagError, CameraError, ImageError, TransformUnavailableError
from rgsiam_ros.geometry.conversions import pose_from_message, stamp_to_ns
from rgsiam_ros.geometry.frame_tree import TransformTree
from rgsiam_ros.geometry.poses import (
    Array,
    interpolate_poses,
    pose_matrix,
    quaternion_wxyz_from_xyzw,
)
from rgsiam_ros.recordings.bag_unpacking import UnpackingLimit
from rgsiam_ros.recordings.topics import BagTopics

logger = logging.getLogger(__name__)

IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
TRUTH_TYPES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
)
FIX_TYPES = ("sensor_msgs/msg/NavSatFix",)
LONGEST_TRUTH_GAP_NS = 1_000_000_000
"""Largest time between two true poses between which poses are interpolated."""


@dataclass(frozen=True)
class RecordedImage:
    """One image message of a bag, not yet decoded."""

    stamp_ns: int
    frame_id: str
    message: Any

    def decode(
        self, enough: tuple[int, int] | None = None, levels: Levels | None = None
    ) -> ImageBGR:
        """Return the image as ``(H, W, 3)`` uint8 BGR. Raises ImageError.

        enough, levels: see `rgsiam_ros.camera.decoding.decode_message`.
        """
        return decode_message(self.message, enough, levels)


@dataclass(frozen=True)
class Drive:
    """The camera, the camera's mount and the true poses of a bag."""

    path: Path
    image_topic: str
    image_type: str
    camera_info_topic: str | None
    camera: Camera | None
    camera_frame: str
    base_frame: str
    map_frame: str
    T_base_camera: Array | None
    """``(4, 4)``, from the bag's static transforms; None when they do not join the two frames."""
    truth_stamps_ns: np.ndarray
    """Stamps of the true poses, ``(N,)``, increasing; empty without true poses."""
    truth_T_map_base_N44: Array
    images: int
    """Number of image messages."""

    def read_images(self) -> Iterator[RecordedImage]:
        """Yield the images in recorded order. Raises BagError when the bag is damaged."""
        with open_bag(self.path) as reader:
            chosen = [c for c in reader.connections if c.topic == self.image_topic]
            for connection, _, raw in recorded(reader, chosen, self.path):
                message = _deserialize(reader, raw, connection, self.path)
                yield RecordedImage(
                    stamp_to_ns(message.header.stamp), message.header.frame_id, message
                )

    def true_base_poses(self, stamps_ns: Any) -> tuple[Array, np.ndarray]:
        """Return the true poses ``T_map_base`` ``(N, 4, 4)`` at stamps, and a mask ``(N,)`` of known poses.

        Poses are interpolated between two recorded ones. A pose is unknown outside the recorded time span
        and between two poses that are more than ``LONGEST_TRUTH_GAP_NS`` apart. The array then holds the
        identity.
        """
        stamps = np.asarray(stamps_ns, np.int64)
        poses, known = np.tile(np.eye(4), (len(stamps), 1, 1)), np.zeros(len(stamps), bool)
        truth = self.truth_stamps_ns
        if len(truth) < 2 or not len(stamps):
            return poses, known
        after = np.clip(np.searchsorted(truth, stamps), 1, len(truth) - 1)
        gap = truth[after] - truth[after - 1]
        known = (stamps >= truth[0]) & (stamps <= truth[-1])
        known &= (gap <= LONGEST_TRUTH_GAP_NS) | np.isin(stamps, truth)
        poses[known] = interpolate_poses(truth, self.truth_T_map_base_N44, stamps[known])
        return poses, known


@contextmanager
def open_bag(path: str | Path) -> Iterator[AnyReader]:
    """Open a reader for a bag. Raises BagError when the bag is missing, damaged, or unpacks to far too much."""
    bag = Path(path)
    if not bag.exists():
        raise BagError(f"{bag} does not exist: give the folder of a rosbag2 recording")
    try:
        reader = AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        with UnpackingLimit(bag).active():
            reader.open()
    except BagError:
        raise
    except Exception as error:  # rosbags raises many kinds for damaged files
        raise BagError(
            f"{bag} cannot be read as a bag ({error}): try `ros2 bag info` and `ros2 bag reindex`"
        ) from error
    try:
        for connection in reader.connections:
            if not isinstance(connection.topic, str) or not isinstance(connection.msgtype, str):
                raise BagError(
                    f"{bag}: its metadata are damaged (a topic {connection.topic!r} of type "
                    f"{connection.msgtype!r}): try `ros2 bag reindex`"
                )
        yield reader
    except AnyReaderError as error:
        raise BagError(f"{bag} is damaged ({error}): try `ros2 bag reindex`") from error
    finally:
        reader.close()


def read_drive(path: str | Path, topics: BagTopics | None = None) -> Drive:
    """Read the camera, the mount and the true poses of a bag.

    Only the images are required here; see `require_truth` for the rest. Raises BagError when a topic is
    missing or ambiguous, or the bag is damaged.
    """
    wanted, bag = topics or BagTopics(), Path(path)
    with open_bag(bag) as reader:
        types = {c.topic: c.msgtype for c in reader.connections}
        image_topic = _choose(bag, types, wanted.image, IMAGE_TYPES, "image")
        info_topic = wanted.camera_info
        if info_topic is None:
            info_topic = _sibling_camera_info(image_topic, types)
        elif info_topic not in types:
            raise BagError(_missing(bag, types, info_topic, ("sensor_msgs/msg/CameraInfo",)))
        first_image = _messages(reader, bag, image_topic, first_only=True)
        if not first_image:
            raise BagError(f"{bag}: topic {image_topic} holds no message: record the drive again")
        info = _messages(reader, bag, info_topic, first_only=True) if info_topic else []
        tree = _static_tree(reader, bag)
        truth_topic = wanted.truth if wanted.truth in types else None
        truth = _messages(reader, bag, truth_topic) if truth_topic else []
        images = _count(reader, bag, image_topic)
    camera_frame = first_image[0].header.frame_id
    base_frame = (getattr(truth[0], "child_frame_id", "") if truth else "") or wanted.base_frame
    stamps, poses = _truth_track(bag, truth_topic, truth)
    return Drive(
        path=bag,
        image_topic=image_topic,
        image_type=types[image_topic],
        camera_info_topic=info_topic,
        camera=_camera(bag, info[0], first_image[0], image_topic, wanted) if info else None,
        camera_frame=camera_frame,
        base_frame=base_frame,
        map_frame=truth[0].header.frame_id if truth else "map",
        T_base_camera=_mount(tree, base_frame, camera_frame),
        truth_stamps_ns=stamps,
        truth_T_map_base_N44=poses,
        images=images,
    )


def read_messages(
    path: str | Path, topic: str | None, kinds: tuple[str, ...], what: str
) -> tuple[str, list[Any]]:
    """Return a topic and its messages in recorded order.

    topic: None means the only topic of one of the message types `kinds`; what: ``image``, ``depth`` or
    ``fix``, the name of the topic in error messages. Raises BagError with the topics that would fit.
    """
    bag = Path(path)
    with open_bag(bag) as reader:
        types = {c.topic: c.msgtype for c in reader.connections}
        chosen = _choose(bag, types, topic, kinds, what)
        return chosen, _messages(reader, bag, chosen)


def static_tree(path: str | Path) -> TransformTree:
    """Return the transforms on a bag's ``/tf_static``. Raises BagError."""
    bag = Path(path)
    with open_bag(bag) as reader:
        return _static_tree(reader, bag)


def require_truth(drive: Drive, wanted: BagTopics) -> None:
    """Raise BagError unless the drive has what training needs: a camera, a mount and true poses."""
    with open_bag(drive.path) as reader:
        types = {c.topic: c.msgtype for c in reader.connections}
    if len(drive.truth_stamps_ns) < 2:
        topic = wanted.truth or "(none given)"
        raise BagError(_missing(drive.path, types, topic, TRUTH_TYPES))
    if drive.camera is None:
        kinds = ("sensor_msgs/msg/CameraInfo",)
        raise BagError(_missing(drive.path, types, wanted.camera_info or "camera_info", kinds))
    if drive.T_base_camera is None:
        raise BagError(
            f"{drive.path}: /tf_static has no chain from {drive.base_frame} to "
            f"{drive.camera_frame}: record /tf_static with the drive"
        )


def recorded(
    reader: AnyReader, connections: list[Any], bag: Path
) -> Iterator[tuple[Any, int, bytes]]:
    """Yield connection, receipt time (ns) and bytes of each message.

    Raises BagError for a damaged file, or one that unpacks to far too much.
    """
    messages, limit = reader.messages(connections), UnpackingLimit(bag)
    while True:
        try:
            with limit.active():
                item = next(messages)
        except StopIteration:
            return
        except BagError:
            raise
        except Exception as error:  # rosbags raises many kinds for damaged files
            raise BagError(f"{bag} is damaged ({error}): try `ros2 bag reindex`") from error
        yield item


def _deserialize(reader: AnyReader, raw: bytes, connection: Any, bag: Path) -> Any:
    try:
        return reader.deserialize(raw, connection.msgtype)
    except Exception as error:  # malformed CDR can raise any exception
        raise BagError(
            f"{bag}: a message on {connection.topic} is damaged ({error}): record it again, or cut "
            "it out with `ros2 bag convert`"
        ) from error


def _messages(reader: AnyReader, bag: Path, topic: str | None, *, first_only: bool = False) -> list:
    messages = []
    connections = [c for c in reader.connections if c.topic == topic]
    for connection, _, raw in recorded(reader, connections, bag) if connections else ():
        messages.append(_deserialize(reader, raw, connection, bag))
        if first_only:
            break
    return messages


def _count(reader: AnyReader, bag: Path, topic: str) -> int:
    try:
        return int(reader.topics[topic].msgcount)
    except Exception as error:  # metadata that contradict the recording
        raise BagError(
            f"{bag}: its metadata are damaged ({error}): try `ros2 bag reindex`"
        ) from error


def _missing(bag: Path, types: dict[str, str], topic: str, kinds: tuple[str, ...]) -> str:
    fitting = sorted(name for name, kind in types.items() if kind in kinds)
    available = ", ".join(fitting) if fitting else "none"
    return (
        f"{bag} has no topic {topic}; topics of a fitting type ({', '.join(kinds)}): {available}. "
        "Name the right one with its option, or record it"
    )


def _choose(
    bag: Path, types: dict[str, str], wanted: str | None, kinds: tuple[str, ...], what: str
) -> str:
    fitting = sorted(name for name, kind in types.items() if kind in kinds)
    if wanted is None and "sensor_msgs/msg/Image" in kinds:
        fitting = [name for name in fitting if ("depth" in name) == (what == "depth")]
    if wanted is not None:
        if wanted not in fitting:
            raise BagError(_missing(bag, types, wanted, kinds))
        return wanted
    if len(fitting) != 1:
        available = ", ".join(fitting) if fitting else f"none of {', '.join(kinds)}"
        option = "--set topics.depth=TOPIC" if what == "depth" else f"--{what}-topic"
        raise BagError(
            f"{bag}: cannot tell which topic is the {what}; found {available}. "
            f"Name it with {option}, or record it"
        )
    return fitting[0]


def _sibling_camera_info(image_topic: str, types: dict[str, str]) -> str | None:
    sibling = beside(image_topic)
    return sibling if types.get(sibling) == "sensor_msgs/msg/CameraInfo" else None


def _camera(bag: Path, info: Any, image: Any, image_topic: str, wanted: BagTopics) -> Camera:
    """The camera of the images. image: the first one."""
    if frames_differ(image.header.frame_id, info.header.frame_id):
        logger.warning(
            "%s: the images are of the frame %s, the camera_info of %s: if that is another camera, name the "
            "right topic with --camera-info-topic",
            bag,
            image.header.frame_id,
            info.header.frame_id,
        )
    if not wanted.rectified and contradicts_rectified(info, image_topic):
        logger.warning(
            "%s: %s is rectified by its name, but K and D of its camera_info are those of raw images: if the "
            "images are rectified, give --rectified, so that P is used",
            bag,
            image_topic,
        )
    try:
        part = part_of_image(info)
        if not part.whole:
            height, width = decode_message(image).shape[:2]
            part.check_size(width, height)
        return part.of(calibrated_camera(info, rectified=wanted.rectified))
    except (CameraError, ImageError) as error:
        raise BagError(f"{bag}: {error}") from error


def _static_tree(reader: AnyReader, bag: Path) -> TransformTree:
    tree = TransformTree()
    for message in _messages(reader, bag, "/tf_static"):
        for item in message.transforms:
            try:
                matrix = pose_from_message(item.transform.translation, item.transform.rotation)
                tree.update(item.header.frame_id, item.child_frame_id, matrix, 0, static=True)
            except ValueError as error:
                raise BagError(
                    f"{bag}: /tf_static {item.header.frame_id} -> {item.child_frame_id}: {error}"
                ) from error
    return tree


def _mount(tree: TransformTree, base_frame: str, camera_frame: str) -> Array | None:
    try:
        return tree.lookup(base_frame, camera_frame)
    except TransformUnavailableError:
        return None


def _truth_track(bag: Path, topic: str | None, messages: list) -> tuple[np.ndarray, Array]:
    if not messages:
        return np.zeros(0, np.int64), np.zeros((0, 4, 4))
    poses = [m.pose.pose if hasattr(m.pose, "pose") else m.pose for m in messages]
    translations = np.array([[p.position.x, p.position.y, p.position.z] for p in poses])
    quaternions_xyzw = np.array([[getattr(p.orientation, a) for a in "xyzw"] for p in poses])
    stamps, first = np.unique([stamp_to_ns(m.header.stamp) for m in messages], return_index=True)
    try:
        track = pose_matrix(translations, quaternion_wxyz_from_xyzw(quaternions_xyzw))
    except ValueError as error:
        raise BagError(f"{bag}: {topic}: {error}: correct or cut the recording") from error
    return stamps.astype(np.int64), track[first]
