"""Reader for the cameras, images and points of COLMAP models, text and binary.

pycolmap is not used because its wheels contain parts of SuiteSparse under the GPL. Source of the format:
https://colmap.github.io/format.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.recordings.pose_labels import BadLabelError, numbers

MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
}
"""Number of a camera model in the binary files: its name and its number of parameters."""
NO_POINT = -1
"""Point id of an observation without a reconstructed point."""


@dataclass(frozen=True)
class ColmapCamera:
    """A camera in COLMAP's convention."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class ColmapImage:
    """An image in COLMAP's convention: the pose is world to camera."""

    where: str
    """``file:line``, or the file and the image's number."""
    name: str
    camera: int
    """Number of its camera."""
    quaternion_wxyz: Array
    """``(4,)`` rotation from world to camera, as the file has it."""
    translation: Array
    """``(3,)`` from world to camera, in the model's unit."""
    point_ids: NDArray[np.int64]
    """``(P,)`` numbers of the points that the image observes."""


def read_cameras(folder: Path) -> dict[int, ColmapCamera]:
    """Return the cameras by number. Raises DatasetError."""
    return dict(_cameras_text(folder) if _is_text(folder) else _cameras_binary(folder))


def read_images(folder: Path) -> Iterator[ColmapImage | tuple[str, str]]:
    """Yield the images, and ``(where, why)`` for each malformed one. Raises DatasetError."""
    return _images_text(folder) if _is_text(folder) else _images_binary(folder)


def count_images(folder: Path) -> int:
    """Return the number of images of a model. Raises DatasetError."""
    return sum(1 for _ in read_images(folder))


def refuse_two_models(folder: Path) -> None:
    """Raise DatasetError if a folder has a binary and a text model with different poses."""
    if not all((folder / f"images.{ending}").is_file() for ending in ("bin", "txt")):
        return
    poses = [
        {
            image.name: np.array([*image.quaternion_wxyz, *image.translation])
            for image in images
            if isinstance(image, ColmapImage)
        }
        for images in (_images_binary(folder), _images_text(folder))
    ]
    same = poses[0].keys() == poses[1].keys() and all(
        np.allclose(pose, poses[1][name], rtol=1e-6, atol=1e-6) for name, pose in poses[0].items()
    )
    if not same:
        raise DatasetError(
            f"{folder} holds a binary model of {len(poses[0])} images and a text model of {len(poses[1])} images "
            "whose poses differ: remove the .bin or the .txt files"
        )


def read_points(folder: Path) -> dict[int, Array]:
    """Return the points ``(3,)`` in the map frame by number. Raises DatasetError."""
    return dict(_points_text(folder) if _is_text(folder) else _points_binary(folder))


def _is_text(folder: Path) -> bool:
    return not (folder / "cameras.bin").is_file()


def _cameras_text(folder: Path) -> Iterator[tuple[int, ColmapCamera]]:
    for where, line in _lines(folder / "cameras.txt"):
        if not line:
            continue
        try:
            number, model, width, height, *rest = line.split()
            parameters = tuple(numbers(rest, len(rest)).tolist())
            yield int(number), ColmapCamera(model, int(width), int(height), parameters)
        except (ValueError, BadLabelError) as error:
            raise DatasetError(f"{where}: {line!r} is not a camera ({error})") from error


def _images_text(folder: Path) -> Iterator[ColmapImage | tuple[str, str]]:
    """Read two lines for each image. The second one lists its observations and may be empty."""
    lines = _lines(folder / "images.txt")
    for where, line in lines:
        if not line:
            continue
        observations = next(lines, (where, ""))[1].split()
        try:
            fields = line.split(None, 9)
            if len(fields) != 10:
                raise BadLabelError(f"{len(fields)} fields, not 10")
            pose = numbers(fields[1:8], 7)
            ids = np.array(observations[2::3], np.int64)
            ids = ids[ids != NO_POINT]
            yield ColmapImage(where, fields[9], int(fields[8]), pose[:4], pose[4:], ids)
        except (ValueError, BadLabelError) as error:
            yield where, str(error)


def _points_text(folder: Path) -> Iterator[tuple[int, Array]]:
    for where, line in _lines(folder / "points3D.txt"):
        if not line:
            continue
        try:
            fields = line.split(None, 4)
            yield int(fields[0]), numbers(fields[1:4], 3)
        except (ValueError, BadLabelError, IndexError) as error:
            raise DatasetError(f"{where}: not a point ({error})") from error


def _cameras_binary(folder: Path) -> Iterator[tuple[int, ColmapCamera]]:
    with _Binary(folder / "cameras.bin") as file:
        for _ in range(file.count()):
            number, model, width, height = file.take("iiQQ")
            if model not in MODELS:
                raise DatasetError(
                    f"{file.path}: camera model number {model} is not known: undistort the images "
                    "(colmap image_undistorter)"
                )
            name, count = MODELS[model]
            yield number, ColmapCamera(name, width, height, file.take(f"{count}d"))


def _images_binary(folder: Path) -> Iterator[ColmapImage]:
    with _Binary(folder / "images.bin") as file:
        for _ in range(file.count()):
            number, *pose, camera = file.take("i7di")
            name = file.text()
            (observed,) = file.take("Q")
            record = np.dtype([("xy", "<f8", 2), ("point", "<i8")])
            ids = np.frombuffer(file.bytes(observed * record.itemsize), record)["point"]
            where = f"{file.path}: image {number}"
            quaternion_wxyz, translation = np.array(pose[:4]), np.array(pose[4:])
            yield ColmapImage(
                where, name, camera, quaternion_wxyz, translation, ids[ids != NO_POINT]
            )


def _points_binary(folder: Path) -> Iterator[tuple[int, Array]]:
    with _Binary(folder / "points3D.bin") as file:
        for _ in range(file.count()):
            number, x, y, z, *_, length = file.take("Q3d3BdQ")
            file.bytes(length * 8)
            yield number, np.array([x, y, z])


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(where, line)`` without comments. Empty lines are kept because `_images_text` needs them."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.startswith("#"):
            yield f"{path}:{number}", line.strip()


class _Binary:
    """Reads little-endian records of a file. Every method raises DatasetError at an early end of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Binary:
        try:
            self._size = self.path.stat().st_size
            self._file: BinaryIO = self.path.open("rb")
        except OSError as error:
            raise DatasetError(f"{self.path} cannot be read: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def bytes(self, count: int) -> bytes:
        if count > self._size - self._file.tell():
            raise DatasetError(f"{self.path} is truncated or damaged: copy it again")
        return self._file.read(count)

    def take(self, kinds: str) -> tuple:
        return struct.unpack("<" + kinds, self.bytes(struct.calcsize("<" + kinds)))

    def count(self) -> int:
        return self.take("Q")[0]

    def text(self) -> str:
        name = b""
        while (byte := self.bytes(1)) != b"\0":
            name += byte
        return name.decode(errors="replace")
