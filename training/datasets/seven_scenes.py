"""7-Scenes layout: ``seq-NN/frame-NNNNNN.color.{png,jpg}`` and ``.pose.txt``.

Poses are 4x4 camera to world, metres, OpenCV axes: ``T_map_camera`` as it stands. The scenes have no
calibration file; the Kinect's nominal focal length is 585 px at 640x480 (the dataset's own page).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rgsiam_ros.camera import Camera
from rgsiam_ros.errors import DatasetError, ImageError
from rgsiam_ros.geometry import Array, check_pose
from rgsiam_ros.images import decode_compressed
from rgsiam_ros.preprocessing import ImageBGR
from rgsiam_training.datasets.base import Frame

NOMINAL_FOCAL_PX, NOMINAL_HEIGHT_PX = 585.0, 480
FRAME_PERIOD_NS = 33_333_333
SEQUENCE_SPACING_NS = 100_000_000_000
"""Keeps the made-up stamps of the sequences (of at most 1000 frames) apart."""
ROTATION_TOLERANCE = 5e-3


@dataclass(frozen=True)
class ImageFile:
    """An encoded image on disk."""

    path: Path

    @property
    def content(self) -> bytes:
        """The stored bytes."""
        return self.path.read_bytes()

    def decode(self) -> ImageBGR:
        """The picture, ``(H, W, 3)`` uint8 BGR. Raises DatasetError."""
        try:
            return decode_compressed(self.content)
        except ImageError as error:
            raise DatasetError(f"{self.path}: {error}") from error


class SevenScenesDataset:
    """See `rgsiam_training.datasets.base.Dataset`."""

    map_frame = "map"

    def __init__(self, path: Path, split: str) -> None:
        self.path = path
        self._files: list[ImageFile] = []
        self.frames: list[Frame] = []
        for folder in _sequences(path, split):
            images = sorted(p for e in ("png", "jpg") for p in folder.glob(f"frame-*.color.{e}"))
            if not images:
                raise DatasetError(f"{folder} holds no frame-NNNNNN.color.png or .jpg")
            for image in images:
                self._add(folder, image)
        height, width = self._files[0].decode().shape[:2]
        focal = NOMINAL_FOCAL_PX * height / NOMINAL_HEIGHT_PX
        self.camera = Camera(
            width=width, height=height, fx=focal, fy=focal, cx=width / 2, cy=height / 2
        )

    def read_images(self) -> Iterator[ImageFile]:
        """The images of `frames`, in their order."""
        return iter(self._files)

    def _add(self, folder: Path, image: Path) -> None:
        name = image.name.split(".")[0]
        number = int(name.removeprefix("frame-"))
        T_map_camera = _read_pose(folder / f"{name}.pose.txt")
        sequence = int(folder.name.removeprefix("seq-"))
        stamp_ns = sequence * SEQUENCE_SPACING_NS + number * FRAME_PERIOD_NS
        self.frames.append(Frame(f"{folder.name}/{name}", folder.name, stamp_ns, T_map_camera))
        self._files.append(ImageFile(image))


def _sequences(path: Path, split: str) -> list[Path]:
    if split not in ("train", "test"):
        raise DatasetError(f"split {split!r} is neither train nor test")
    listing = path / f"{split.capitalize()}Split.txt"
    if not listing.is_file():
        raise DatasetError(f"{listing} is missing: {path} is not a complete 7-Scenes folder")
    folders = []
    for line_number, line in enumerate(listing.read_text().splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"sequence\s*(\d+)", line.strip())
        if not match:
            raise DatasetError(f"{listing}:{line_number}: {line!r} is not 'sequenceN'")
        folder = path / f"seq-{int(match[1]):02d}"
        if not folder.is_dir():
            raise DatasetError(f"{listing}:{line_number}: {folder} does not exist: unzip it")
        folders.append(folder)
    if not folders:
        raise DatasetError(f"{listing} names no sequence")
    return folders


def _read_pose(path: Path) -> Array:
    try:
        return check_pose(np.loadtxt(path, dtype=np.float64), tolerance=ROTATION_TOLERANCE)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: {error}: remove the frame or its sequence") from error
