"""A recorded drive with true poses, as rosbag2 (or ROS 1) bag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rgsiam_ros.bags import BagTopics, RecordedImage, read_drive, require_truth
from rgsiam_ros.errors import DatasetError, ImageError
from rgsiam_ros.preprocessing import ImageBGR
from rgsiam_training.datasets.base import Frame


@dataclass(frozen=True)
class BagImage:
    """An encoded image of a bag."""

    bag: Path
    image: RecordedImage

    @property
    def content(self) -> bytes:
        """The stored bytes."""
        return self.image.message.data.tobytes()

    def decode(self) -> ImageBGR:
        """The picture, ``(H, W, 3)`` uint8 BGR. Raises DatasetError."""
        try:
            return self.image.decode()
        except ImageError as error:
            raise DatasetError(
                f"{self.bag}: image at stamp {self.image.stamp_ns} ns: {error}"
            ) from error


class RosbagDataset:
    """See `rgsiam_training.datasets.base.Dataset`. Images without a true pose are left out."""

    def __init__(self, path: Path, topics: BagTopics) -> None:
        self.path = path
        self._drive = drive = read_drive(path, topics)
        require_truth(drive, topics)
        assert drive.camera is not None
        assert drive.T_base_camera is not None
        self.camera, self.map_frame = drive.camera, drive.map_frame
        stamps = [image.stamp_ns for image in drive.read_images()]
        T_map_base, self._known = drive.true_base_poses(stamps)
        if not self._known.any():
            raise DatasetError(
                f"{path}: no image lies within the time span of {topics.truth}: check their stamps"
            )
        self.frames = [
            Frame(
                f"{path.name}/{stamps[i]}",
                path.name,
                stamps[i],
                T_map_base[i] @ drive.T_base_camera,
            )
            for i in np.flatnonzero(self._known)
        ]

    def read_images(self) -> Iterator[BagImage]:
        """The images of `frames`, in their order."""
        for known, image in zip(self._known, self._drive.read_images(), strict=True):
            if known:
                yield BagImage(self.path, image)
