"""Base class and helpers for loaders of datasets whose images are files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import yaml
from pydantic import ValidationError

from rgsiam_ros.camera.decoding import decode_compressed
from rgsiam_ros.camera.levels import Levels
from rgsiam_ros.camera.model import Camera, match_view
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import CameraError, DatasetError, ImageError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.recordings.base import Dropped, Frame
from rgsiam_ros.recordings.pose_labels import BadLabelError

T = TypeVar("T")
MOST_CANDIDATES = 8
"""Cameras that are tried as the one of a dataset."""
SIZED_IMAGES = 9
"""About so many images tell the size of a dataset's images."""
FRAME_PERIOD_NS = 33_333_333
"""Distance between the artificial stamps of frames in datasets without stamps."""


class NoSplitError(DatasetError):
    """A dataset does not have the wanted split."""

    def __init__(self, message: str, *, has_others: bool = False) -> None:
        """has_others: the dataset has other splits."""
        super().__init__(message)
        self.has_others = has_others


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

    def decode(
        self, enough: tuple[int, int] | None = None, levels: Levels | None = None
    ) -> ImageBGR:
        """Return the image as ``(H, W, 3)`` uint8 BGR. Raises DatasetError.

        enough, levels: see `rgsiam_ros.camera.decoding.decode_message`.
        """
        try:
            return decode_compressed(self.content, enough=enough, levels=levels)
        except ImageError as error:
            raise DatasetError(f"{self.path}: {error}") from error


class FileDataset:
    """A dataset in which each frame has an image file; see `rgsiam_ros.recordings.base.Dataset`.

    A subclass calls `_add` for each frame inside `_dropping`, then `_finish`, and sets `camera`.
    """

    camera: Camera
    map_frame = "map"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames: list[Frame] = []
        self.dropped: list[Dropped] = []
        self._files: list[ImageFile] = []

    def read_images(self) -> Iterator[ImageFile]:
        """Yield the image of each of `frames`, in order."""
        return iter(self._files)

    @contextmanager
    def _dropping(self, where: Path | str, frames: int = 1) -> Iterator[None]:
        """Turn a BadLabelError inside the context into an entry of `dropped`."""
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
        """Sort the frames by session, then by time. Raises DatasetError when there is no frame."""
        if not self.frames:
            reasons = "; ".join(f"{d.where}: {d.why}" for d in self.dropped[:3])
            raise DatasetError(f"{self.path}: no usable frame ({reasons or 'it lists none'})")
        sessions = dict.fromkeys(frame.session for frame in self.frames)
        session_index = {name: i for i, name in enumerate(sessions)}
        order = sorted(
            range(len(self.frames)),
            key=lambda i: (session_index[self.frames[i].session], self.frames[i].stamp_ns),
        )
        self.frames = [self.frames[i] for i in order]
        self._files = [self._files[i] for i in order]

    def _image_size(self) -> tuple[int, int]:
        """Width and height that most of some images have. Raises DatasetError if none can be read."""
        sizes, problem = Counter[tuple[int, int]](), None
        step = max(1, len(self._files) // SIZED_IMAGES)
        for i, file in enumerate(self._files):
            if sizes and i % step:
                continue
            try:
                height, width = file.decode().shape[:2]
            except DatasetError as error:
                problem = problem or error
            else:
                sizes[width, height] += 1
        if not sizes:
            raise DatasetError(f"{self.path}: no image can be read: {problem}")
        return sizes.most_common(1)[0][0]


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Return ``(where, line)`` of a text file without blank lines and ``#`` comments. Raises DatasetError."""
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
    """Read a ``camera.yaml`` with the fields of `Camera`. Raises DatasetError."""
    if not path.is_file():
        raise DatasetError(
            f"{path} is missing: write it with the fields width, height, fx, fy, cx, cy, "
            "distortion_model and distortion"
        )
    try:
        return Camera.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise DatasetError(f"{path} is not a valid camera: {error}") from error


def same_camera(first: Camera, second: Camera) -> bool:
    """Return whether two cameras have the same resolution and view, within the tolerances of `match_view`."""
    try:
        identical = match_view(first, second).identical
    except CameraError:
        return False
    return identical and (first.width, first.height) == (second.width, second.height)


def one_camera(cameras: Mapping[T, Camera], images: Mapping[T, int]) -> tuple[Camera, list[T]]:
    """The camera with which most images agree, and the keys of those that do not agree with it.

    cameras: by key; images: number of images of each. Cameras agree as in `same_camera`.
    """
    order = sorted(cameras, key=lambda key: cameras[key].fx)
    middle = order[
        int(np.searchsorted(np.cumsum([images[k] for k in order]), 0.5 * sum(images.values())))
    ]
    candidates = [middle, *sorted(cameras, key=lambda key: -images[key])[:MOST_CANDIDATES]]
    best, left = cameras[middle], list(cameras)
    for candidate in candidates:
        others = [key for key in cameras if not same_camera(cameras[key], cameras[candidate])]
        if sum(images[key] for key in others) < sum(images[key] for key in left):
            best, left = cameras[candidate], others
        if not left:
            break
    return best, left


def read_depth(path: Path, units_per_metre: float) -> Array:
    """Read a 16-bit depth PNG as ``(H, W)`` metres. The values 0 and 65535 (no depth) become NaN.

    Raises DatasetError.
    """
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
    """Return a sort key that puts ``frame2`` before ``frame10``."""
    text_and_numbers = re.split(r"(\d+)", name)
    return [(int(piece), "") if i % 2 else (-1, piece) for i, piece in enumerate(text_and_numbers)]


def folder_of(name: str, default: str) -> str:
    """Return the session of an image: the folder in its name, or `default` when there is none.

    A folder that is itself called `default` gets another name.
    """
    folder = Path(name).parent.as_posix()
    if folder in (".", ""):
        return default
    return f"./{folder}" if folder == default else folder
