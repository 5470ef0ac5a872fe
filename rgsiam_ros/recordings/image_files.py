"""What the loaders of image files share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml
from pydantic import ValidationError

from rgsiam_ros.camera.decoding import decode_compressed
from rgsiam_ros.camera.model import Camera, match_view
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import CameraError, DatasetError, ImageError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.recordings.base import Dropped, Frame
from rgsiam_ros.recordings.pose_labels import BadLabelError

FRAME_PERIOD_NS = 33_333_333
"""Between made-up stamps, where a dataset has none."""


class NoSplitError(DatasetError):
    """A dataset without the split that was asked for."""


@dataclass(frozen=True)
class ImageFile:
    """An encoded image on disk."""

    path: Path

    @property
    def content(self) -> bytes:
        """The stored bytes. Raises DatasetError."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DatasetError(f"{self.path} cannot be read: {error}") from error

    def decode(self) -> ImageBGR:
        """The picture, ``(H, W, 3)`` uint8 BGR. Raises DatasetError."""
        try:
            return decode_compressed(self.content)
        except ImageError as error:
            raise DatasetError(f"{self.path}: {error}") from error


class FileDataset:
    """Frames with an image file each; see `rgsiam_ros.recordings.base.Dataset`."""

    camera: Camera
    map_frame = "map"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames: list[Frame] = []
        self.dropped: list[Dropped] = []
        self._files: list[ImageFile] = []

    def read_images(self) -> Iterator[ImageFile]:
        """The images of `frames`, in their order."""
        return iter(self._files)

    @contextmanager
    def _dropping(self, where: Path | str, frames: int = 1) -> Iterator[None]:
        """What turns out to be a bad label inside is left out, with its reason."""
        try:
            yield
        except BadLabelError as error:
            self.dropped.append(Dropped(str(where), str(error), frames))

    def _add(self, frame: Frame, image: Path) -> None:
        if not image.is_file():
            raise BadLabelError(f"image {image} is missing")
        self.frames.append(frame)
        self._files.append(ImageFile(image))

    def _finish(self) -> None:
        """Bring the sessions together, each in time order. Raises DatasetError if none is left."""
        if not self.frames:
            reasons = "; ".join(f"{d.where}: {d.why}" for d in self.dropped[:3])
            raise DatasetError(f"{self.path}: no usable frame ({reasons or 'it lists none'})")
        place = {name: i for i, name in enumerate(dict.fromkeys(f.session for f in self.frames))}
        order = sorted(
            range(len(self.frames)),
            key=lambda i: (place[self.frames[i].session], self.frames[i].stamp_ns),
        )
        self.frames = [self.frames[i] for i in order]
        self._files = [self._files[i] for i in order]

    def _image_size(self) -> tuple[int, int]:
        """Width and height of the first image that can be read. Raises DatasetError."""
        problem = None
        for file in self._files:
            try:
                height, width = file.decode().shape[:2]
            except DatasetError as error:
                problem = problem or error
            else:
                return width, height
        raise DatasetError(f"{self.path}: no image can be read: {problem}")


def read_lines(path: Path) -> list[tuple[str, str]]:
    """``(where, line)`` of a text file without blank lines and ``#`` comments. Raises DatasetError."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return [
        (f"{path}:{number}", line.strip())
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def read_camera(path: Path) -> Camera:
    """A ``camera.yaml`` with the fields of `Camera`. Raises DatasetError."""
    if not path.is_file():
        raise DatasetError(
            f"{path} is missing: write the camera there, as YAML: width, height, fx, fy, cx, cy, "
            "distortion_model, distortion"
        )
    try:
        return Camera.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise DatasetError(f"{path} is not a camera: {error}") from error


def same_camera(one: Camera, other: Camera) -> bool:
    """Whether two cameras are one, within the tolerances of `match_view`, at one resolution."""
    try:
        identical = match_view(one, other).identical
    except CameraError:
        return False
    return identical and (one.width, one.height) == (other.width, other.height)


def read_depth(path: Path, units_per_metre: float) -> Array:
    """A 16-bit depth PNG, ``(H, W)`` metres; 0 and 65535 (no depth) are NaN. Raises DatasetError."""
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        depth = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    except (OSError, cv2.error) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
        raise DatasetError(f"{path} is not a 16-bit depth image")
    metres = depth.astype(np.float64) / units_per_metre
    metres[(depth == 0) | (depth == 65535)] = np.nan
    return metres


def by_number(name: str) -> list[tuple[int, str]]:
    """Sort key that puts ``frame2`` before ``frame10``."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]


def folder_of(name: str, otherwise: str) -> str:
    """The session of an image: its folder, or `otherwise` where the name has none."""
    folder = Path(name).parent.as_posix()
    return otherwise if folder in (".", "") else folder
