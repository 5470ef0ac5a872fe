"""Loader for a recorded drive with true poses in a rosbag2 or ROS 1 bag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rgsiam_ros.camera.levels import Levels
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import BagError, DatasetError, ImageError
from rgsiam_ros.geometry.conversions import stamp_to_ns
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.recordings.base import Dropped, Frame
from rgsiam_ros.recordings.depth_points import points_of_depth
from rgsiam_ros.recordings.rosbag import (
    Drive,
    RecordedImage,
    no_mount,
    read_drive,
    read_messages,
)
from rgsiam_ros.recordings.topics import BagTopics


@dataclass(frozen=True)
class BagImage:
    """An encoded image of a bag."""

    bag: Path
    image: RecordedImage

    @property
    def content(self) -> bytes:
        """The stored bytes."""
        return self.image.message.data.tobytes()

    def decode(
        self, enough: tuple[int, int] | None = None, levels: Levels | None = None
    ) -> ImageBGR:
        """Return the image as ``(H, W, 3)`` uint8 BGR. Raises DatasetError.

        enough, levels: see `rgsiam_ros.camera.decoding.decode_message`.
        """
        try:
            return self.image.decode(enough, levels)
        except ImageError as error:
            raise DatasetError(
                f"{self.bag}: image at stamp {self.image.stamp_ns} ns: {error}"
            ) from error


class RosbagDataset:
    """See `rgsiam_ros.recordings.base.Dataset`. Images without a true pose are left out, and those recorded twice."""

    def __init__(self, path: Path, topics: BagTopics, drive: Drive | None = None) -> None:
        """drive: with true poses from elsewhere, see `rgsiam_ros.recordings.pose_sources`; None: read it."""
        self.path = path
        self._depth_topic = topics.depth
        if drive is None:
            drive = read_drive(path, topics, labelled=True)
        self._drive = drive
        if drive.camera is None:
            raise BagError(f"{path}: has no camera_info: record it with the images")
        if drive.T_base_camera is None:
            raise BagError(f"{path}: {no_mount(drive.base_frame, drive.camera_frame)}")
        self.camera, self.map_frame = drive.camera, drive.map_frame
        stamps = np.unique(drive.image_stamps_ns).tolist()
        T_map_base, self._known = drive.true_base_poses(stamps)
        if not self._known.any():
            why = drive.truth.why_unknown(np.array(stamps, np.int64), str(topics.truth))
            raise DatasetError(f"{path}: {why}")
        self.frames = [
            Frame(
                f"{path.name}/{stamps[i]}",
                path.name,
                stamps[i],
                T_map_base[i] @ drive.T_base_camera,
            )
            for i in np.flatnonzero(self._known)
        ]
        missing = int(np.count_nonzero(~self._known))
        repeated = len(drive.image_stamps_ns) - len(stamps)
        counts = {
            f"{missing} images outside the time span of {topics.truth}, or in its gaps": missing,
            f"{repeated} images with the stamp of an earlier one": repeated,
        }
        self.dropped = [Dropped(str(path), why, count) for why, count in counts.items() if count]
        self.dropped += drive.truth.dropped

    @property
    def image_topic(self) -> str:
        """Topic of the images."""
        return self._drive.image_topic

    def read_images(self) -> Iterator[BagImage]:
        """Yield the image of each of `frames`, in order."""
        for known, image in zip(self._known, self._drive.read_images(), strict=True):
            if known:
                yield BagImage(self.path, image)

    def read_points(self) -> Iterator[Array]:
        """Yield scene points ``(M, 3)`` in the map frame, metres, for each of `frames`.

        They come from the bag's depth topic: 32FC1 in metres or 16UC1 in millimetres (REP 118). A depth
        image belongs to the colour image with the same stamp and must show the same view; a frame without
        one gets no points. Raises BagError without a depth topic, DatasetError for another encoding.
        """
        topic, messages = read_messages(self.path, self._depth_topic, "depth")
        by_stamp = {stamp_to_ns(message.header.stamp): message for message in messages}
        for frame in self.frames:
            message = by_stamp.get(frame.stamp_ns)
            if message is None:
                yield np.empty((0, 3))
            else:
                depth = _depth_m(message, f"{self.path}: {topic}")
                yield points_of_depth(depth, self.camera, frame.T_map_camera)


def _depth_m(message: Any, where: str) -> Array:
    encodings = {"32FC1": ("f4", 1.0), "16UC1": ("u2", 1e-3)}
    if message.encoding not in encodings:
        raise DatasetError(f"{where} has encoding {message.encoding}, not 32FC1 or 16UC1")
    dtype, metres_per_unit = encodings[message.encoding]
    order = ">" if message.is_bigendian else "<"
    rows = message.data.reshape(message.height, message.step)
    values = np.ascontiguousarray(rows[:, : message.width * int(dtype[1])]).view(order + dtype)
    return values.astype(np.float64) * metres_per_unit
