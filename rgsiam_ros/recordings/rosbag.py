"""Read a recorded drive from a rosbag2 or ROS 1 bag, without ROS."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader

from rgsiam_ros.camera.camera_info import (
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
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.recordings.bag_reading import messages_on, open_bag, types_of
from rgsiam_ros.recordings.bag_topics import (
    KINDS,
    OPTIONS,
    What,
    camera_info_beside,
    choose_topic,
    missing_topic,
)
from rgsiam_ros.recordings.bag_truth import TruthTrack, read_track
from rgsiam_ros.recordings.topics import IDENTITY, BagTopics

DEFAULT_MAP_FRAME = "map"

logger = logging.getLogger(__name__)


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
    truth: TruthTrack
    images: int
    """Number of image messages."""

    @property
    def truth_stamps_ns(self) -> np.ndarray:
        """Stamps of the true poses, ``(N,)``, increasing; empty without true poses."""
        return self.truth.stamps_ns

    @property
    def truth_T_map_base_N44(self) -> Array:
        """The true poses."""
        return self.truth.T_map_base_N44

    @cached_property
    def image_stamps_ns(self) -> np.ndarray:
        """Stamps of the image messages, ``(images,)``, in recorded order. Raises BagError for a damaged bag."""
        return np.array([image.stamp_ns for image in self._recorded_images()], np.int64)

    def read_images(self) -> Iterator[RecordedImage]:
        """Yield the images in the order of their stamps. Raises BagError when the bag is damaged.

        An image with the stamp of an earlier message is left out: it is the same image, recorded twice.
        """
        _, first = np.unique(self.image_stamps_ns, return_index=True)
        place = {int(message): order for order, message in enumerate(first)}
        early: dict[int, RecordedImage] = {}
        due = 0
        for message, image in enumerate(self._recorded_images()):
            if message in place:
                early[place[message]] = image
            while due in early:
                yield early.pop(due)
                due += 1

    def true_base_poses(self, stamps_ns: Any) -> tuple[Array, np.ndarray]:
        """The true poses ``T_map_base`` at stamps and a mask of known poses, see `TruthTrack.at`."""
        return self.truth.at(stamps_ns)

    def turned(self, T: Array) -> Drive:
        """The drive with its true poses multiplied by `T` ``(4, 4)`` from the left."""
        truth = replace(self.truth, T_map_base_N44=T @ self.truth.T_map_base_N44)
        return replace(self, truth=truth)

    def _recorded_images(self) -> Iterator[RecordedImage]:
        with open_bag(self.path) as reader:
            for message in messages_on(reader, self.path, self.image_topic):
                header = message.header
                yield RecordedImage(stamp_to_ns(header.stamp), header.frame_id, message)


def read_drive(
    path: str | Path, topics: BagTopics | None = None, *, labelled: bool = False
) -> Drive:
    """Read the camera, the mount and the true poses of a bag.

    labelled: camera, mount and true poses are required too, not only images. Raises BagError, which names all
    that is missing or ambiguous, with candidates, or when the bag is damaged.
    """
    wanted, bag = topics or BagTopics(), Path(path)
    problems: list[str] = []
    with open_bag(bag) as reader:
        types = types_of(reader)
        image_topic = _found(reader, bag, wanted.image, "image", problems)
        first_image = next(messages_on(reader, bag, image_topic), None)
        if image_topic is not None and first_image is None:
            problems.append(f"topic {image_topic} holds no message: record the drive again")
        info_topic = wanted.camera_info
        if info_topic is not None:
            info_topic = _found(reader, bag, info_topic, "camera info", problems)
        elif image_topic is not None:
            info_topic = camera_info_beside(image_topic, types)
        info = next(messages_on(reader, bag, info_topic), None)
        tree = _static_tree(reader, bag)
        truth_topic = wanted.truth if types.get(wanted.truth or "") in KINDS["truth"] else None
        poses = messages_on(reader, bag, truth_topic)
        truth = next(poses, None)
        track = read_track(bag, truth_topic, chain([] if truth is None else [truth], poses))
        if labelled:
            problems += _unlabelled(types, wanted, truth_topic, info, info_topic, image_topic)
        images = 0 if image_topic is None else _count(reader, bag, image_topic)
    if problems:
        raise BagError(f"{bag}: " + "; ".join(p.removeprefix(f"{bag}: ") for p in problems))
    assert first_image is not None
    assert image_topic is not None
    camera_frame = first_image.header.frame_id
    base_frame = getattr(truth, "child_frame_id", "") or wanted.base_frame
    drive = Drive(
        path=bag,
        image_topic=image_topic,
        image_type=types[image_topic],
        camera_info_topic=info_topic,
        camera=None if info is None else _camera(bag, info, first_image, image_topic, wanted),
        camera_frame=camera_frame,
        base_frame=base_frame,
        map_frame=_map_frame(bag, truth_topic, truth),
        T_base_camera=_mount(tree, base_frame, camera_frame, wanted),
        truth=track,
        images=images,
    )
    if labelled:
        _require_labels(drive, wanted)
    return drive


def read_messages(path: str | Path, topic: str | None, what: What) -> tuple[str, list[Any]]:
    """Return a topic and its messages in recorded order.

    topic: None means the only topic of the message types of `what`, see `KINDS`. Raises BagError with the topics
    that would fit.
    """
    bag = Path(path)
    with open_bag(bag) as reader:
        chosen = choose_topic(reader, bag, topic, what)
        return chosen, list(messages_on(reader, bag, chosen))


def static_tree(path: str | Path) -> TransformTree:
    """Return the transforms on a bag's ``/tf_static``. Raises BagError."""
    bag = Path(path)
    with open_bag(bag) as reader:
        return _static_tree(reader, bag)


def no_mount(base_frame: str, camera_frame: str) -> str:
    """The reason why a bag without a camera mount cannot be used, and what to do."""
    return (
        f"/tf_static has no chain from {base_frame} to {camera_frame}: record /tf_static with the drive; if the poses "
        "are those of another frame, name it with --base-frame; if they are those of the camera itself (optical axes: x "
        f"right, y down, z forward), give --mount {IDENTITY}"
    )


def _found(
    reader: AnyReader, bag: Path, wanted: str | None, what: What, problems: list[str]
) -> str | None:
    try:
        return choose_topic(reader, bag, wanted, what)
    except BagError as error:
        problems.append(str(error).removeprefix(f"{bag} "))
        return None


def _unlabelled(
    types: dict[str, str],
    wanted: BagTopics,
    truth_topic: str | None,
    info: Any,
    info_topic: str | None,
    image_topic: str | None,
) -> list[str]:
    """What is missing beside the images."""
    problems = []
    if truth_topic is None:
        problems.append(missing_topic(types, wanted.truth or "(none given)", "truth"))
    if info is None and wanted.camera_info is None and image_topic is not None:
        if info_topic is None:
            problems.append(missing_topic(types, None, "camera info"))
        else:
            problems.append(
                f"topic {info_topic} holds no message: name another with {OPTIONS['camera info']}, or record it"
            )
    return problems


def _require_labels(drive: Drive, wanted: BagTopics) -> None:
    problems = []
    if why := drive.truth.why_too_few(wanted.truth or ""):
        problems.append(why)
    if drive.camera is None:
        problems.append(f"has no message on {wanted.camera_info}: record it with the images")
    if drive.T_base_camera is None:
        problems.append(no_mount(drive.base_frame, drive.camera_frame))
    if problems:
        raise BagError(f"{drive.path}: " + "; ".join(problems))


def _count(reader: AnyReader, bag: Path, topic: str) -> int:
    try:
        return int(reader.topics[topic].msgcount)
    except Exception as error:  # metadata that contradict the recording
        raise BagError(
            f"{bag}: its metadata are damaged ({error}): try `ros2 bag reindex`"
        ) from error


def _map_frame(bag: Path, topic: str | None, truth: Any) -> str:
    """The frame of the true poses. truth: the first message, or None."""
    if truth is None:
        return DEFAULT_MAP_FRAME
    name = truth.header.frame_id.strip("/ ")
    if not name:
        logger.warning(
            "%s: the poses on %s name no frame: %s is taken", bag, topic, DEFAULT_MAP_FRAME
        )
    return name or DEFAULT_MAP_FRAME


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
    for message in messages_on(reader, bag, "/tf_static"):
        for item in message.transforms:
            try:
                matrix = pose_from_message(item.transform.translation, item.transform.rotation)
                tree.update(item.header.frame_id, item.child_frame_id, matrix, 0, static=True)
            except ValueError as error:
                raise BagError(
                    f"{bag}: /tf_static {item.header.frame_id} -> {item.child_frame_id}: {error}"
                ) from error
    return tree


def _mount(
    tree: TransformTree, base_frame: str, camera_frame: str, wanted: BagTopics
) -> Array | None:
    if wanted.mount == IDENTITY:
        return np.eye(4)
    try:
        return tree.lookup(base_frame, camera_frame)
    except TransformUnavailableError:
        return None
