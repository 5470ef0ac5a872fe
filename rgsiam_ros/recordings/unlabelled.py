"""A recorded drive without true poses, for what needs only its images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rgsiam_ros.errors import BagError
from rgsiam_ros.recordings.base import Dataset, Dropped, Frame
from rgsiam_ros.recordings.formats import find_format, open_dataset
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_ros.recordings.rosbag_dataset import BagImage
from rgsiam_ros.recordings.topics import BagTopics


class UnlabelledBag:
    """All images of a bag, as `rgsiam_ros.recordings.base.Dataset` has them. No pose is finite."""

    def __init__(self, path: Path, topics: BagTopics) -> None:
        """Raises BagError without images or camera_info, and for a damaged bag."""
        self._drive = read_drive(path, topics)
        if self._drive.camera is None:
            raise BagError(
                f"{path} has no camera_info: record it with the images, or name it with --camera-info-topic"
            )
        self.path, self.camera, self.map_frame = path, self._drive.camera, self._drive.map_frame
        stamps = np.unique(self._drive.image_stamps_ns).tolist()
        self.frames = [
            Frame(f"{path.name}/{stamp}", path.name, stamp, np.full((4, 4), np.nan))
            for stamp in stamps
        ]
        self.dropped: list[Dropped] = []

    def read_images(self) -> Iterator[BagImage]:
        """Yield the image of each of `frames`, in order."""
        return (BagImage(self.path, image) for image in self._drive.read_images())


def open_drive(path: Path, topics: BagTopics) -> Dataset:
    """Open a dataset of any format; a bag without true poses as `UnlabelledBag`. Raises DatasetError or BagError."""
    if find_format(path).name == "bag" and not len(read_drive(path, topics).truth_stamps_ns):
        return UnlabelledBag(path, topics)
    return open_dataset(path, "train", topics)
