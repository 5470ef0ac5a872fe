"""Loader for 7-Scenes: ``seq-NN/frame-NNNNNN.color.{png,jpg}``, ``.pose.txt`` and ``.depth.png``.

Poses are 4x4 camera to world, metres, OpenCV axes, which is ``T_map_camera``. The scenes have no calibration
file. The Kinect's nominal focal length is 585 px at 640x480, according to the dataset's web page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.recordings.base import Frame
from rgsiam_ros.recordings.depth_points import points_of_depth
from rgsiam_ros.recordings.image_files import FRAME_PERIOD_NS, FileDataset, read_depth, read_lines
from rgsiam_ros.recordings.pose_labels import BadLabelError, pose_from_matrix

NOMINAL_FOCAL_PX, NOMINAL_HEIGHT_PX = 585.0, 480
SEQUENCE_SPACING_NS = 100_000_000_000
"""Distance between the artificial stamps of two sequences; longer than a sequence of at most 1000 frames."""
DEPTH_UNITS_PER_METRE = 1000.0


class SevenScenesDataset(FileDataset):
    """See `rgsiam_ros.recordings.base.PointDataset`."""

    def __init__(self, path: Path, split: str) -> None:
        super().__init__(path)
        for folder in _sequences(path, split):
            images = sorted(p for e in ("png", "jpg") for p in folder.glob(f"frame-*.color.{e}"))
            if not images:
                raise DatasetError(f"{folder} holds no frame-NNNNNN.color.png or .jpg")
            for image in images:
                self._add_image(folder, image)
        self._finish()
        width, height = self._image_size()
        focal = NOMINAL_FOCAL_PX * height / NOMINAL_HEIGHT_PX
        self.camera = Camera(
            width=width, height=height, fx=focal, fy=focal, cx=width / 2, cy=height / 2
        )

    def read_points(self) -> Iterator[Array]:
        """See `PointDataset`. The depth camera is assumed to coincide with the colour camera."""
        depths = [_sibling(file.path, "depth.png") for file in self._files]
        if not any(depth.is_file() for depth in depths):
            raise DatasetError(f"{self.path} has no frame-NNNNNN.depth.png: unzip the depth too")
        for frame, path in zip(self.frames, depths, strict=True):
            if path.is_file():
                depth_m = read_depth(path, DEPTH_UNITS_PER_METRE)
                yield points_of_depth(depth_m, self.camera, frame.T_map_camera)
            else:
                yield np.empty((0, 3))

    def _add_image(self, folder: Path, image: Path) -> None:
        label = _sibling(image, "pose.txt")
        with self._dropping(label):
            name = image.name.split(".")[0]
            digits = name.removeprefix("frame-")
            if not digits.isdecimal():
                raise BadLabelError(f"the name of image {image.name} is not frame-NNNNNN")
            sequence = int(folder.name.removeprefix("seq-"))
            stamp_ns = sequence * SEQUENCE_SPACING_NS + int(digits) * FRAME_PERIOD_NS
            frame = Frame(f"{folder.name}/{name}", folder.name, stamp_ns, _read_pose(label), True)
            self._add(frame, image)


def _sibling(image: Path, ending: str) -> Path:
    return image.with_name(f"{image.name.split('.')[0]}.{ending}")


def _sequences(path: Path, split: str) -> list[Path]:
    if split not in ("train", "test"):
        raise DatasetError(f"split {split!r} is neither train nor test")
    listing = path / f"{split.capitalize()}Split.txt"
    if not listing.is_file():
        raise DatasetError(f"{listing} is missing: {path} is not a complete 7-Scenes folder")
    folders = []
    for where, line in read_lines(listing):
        match = re.fullmatch(r"sequence\s*(\d+)", line)
        if not match:
            raise DatasetError(f"{where}: {line!r} is not 'sequenceN'")
        folder = path / f"seq-{int(match[1]):02d}"
        if not folder.is_dir():
            raise DatasetError(f"{where}: {folder} does not exist: unzip it")
        folders.append(folder)
    if not folders:
        raise DatasetError(f"{listing} lists no sequence")
    return folders


def _read_pose(path: Path) -> Array:
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except FileNotFoundError as error:
        raise BadLabelError("the pose file is missing") from error
    except (OSError, ValueError) as error:
        raise BadLabelError(f"the pose file cannot be read ({error})") from error
    return pose_from_matrix(matrix)
