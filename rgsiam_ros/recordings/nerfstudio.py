"""Loader for nerfstudio's ``transforms.json``.

``transform_matrix`` is camera to world with OpenGL axes (x right, y up, z backwards):
``T_map_camera = transform_matrix @ diag(1, -1, -1, 1)``. The centre of the first pixel is (0.5, 0.5) in
nerfstudio and (0, 0) in OpenCV, so half a pixel is subtracted from the principal point. The format does not
fix the unit of length: the file must have been made in metres.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.recordings.base import Frame
from rgsiam_ros.recordings.image_files import (
    FRAME_PERIOD_NS,
    FileDataset,
    NoSplitError,
    by_number,
    folder_of,
    same_camera,
)
from rgsiam_ros.recordings.pose_labels import BadLabelError, pose_from_matrix

logger = logging.getLogger(__name__)

INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")
COEFFICIENTS = ("k1", "k2", "k3", "k4", "p1", "p2")
KNOWN = (
    "frames",
    "file_path",
    "transform_matrix",
    "camera_model",
    "is_fisheye",
    "camera_angle_x",
    "camera_angle_y",
    "depth_file_path",
    "mask_path",
    "colmap_im_id",
    "sharpness",
    "ply_file_path",
    "applied_transform",
    "applied_scale",
    "aabb_scale",
    "scale",
    "offset",
    "orientation_override",
)
"""Further fields that are used, or that change neither poses nor lens."""
PERSPECTIVE = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV")
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


class NerfstudioDataset(FileDataset):
    """See `rgsiam_ros.recordings.base.Dataset`. Frames are ordered by name; each folder is a session."""

    def __init__(self, path: Path, split: str) -> None:
        super().__init__(path)
        self._file = path if path.suffix == ".json" else path / "transforms.json"
        folder = self._file.parent
        others = [file.name for file in sorted(folder.glob("transforms*.json"))]
        if path != self._file and len(others) > 1:
            logger.warning(
                "%s holds %s: transforms.json is read. Name another by its file",
                path,
                ", ".join(others),
            )
        content = self._read()
        chosen = self._split(content, split)
        self._name_unknown(content)
        first: tuple[Camera, str] | None = None
        entries = sorted(enumerate(content["frames"]), key=lambda entry: by_number(_name(entry[1])))
        for order, (index, entry) in enumerate(entries):
            where, name = f"{self._file}: frames[{index}]", _name(entry)
            if chosen is not None and name not in chosen:
                continue
            with self._dropping(where):
                T = _matrix(entry) @ OPENCV_FROM_OPENGL
                session = folder_of(name, folder.resolve().name)
                self._add(Frame(name, session, order * FRAME_PERIOD_NS, T, True), folder / name)
                camera = _camera(content | entry, where)
                first = first or (camera, name)
                if not same_camera(camera, first[0]):
                    raise DatasetError(
                        f"{self._file}: the cameras of {first[1]} ({first[0].describe()}) and {name} "
                        f"({camera.describe()}) differ: use only images of one camera"
                    )
        self._finish()
        assert first is not None
        self.camera = first[0]

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._file.read_text())
        except (OSError, ValueError) as error:
            raise DatasetError(f"{self._file} cannot be read: {error}") from error
        frames = content.get("frames") if isinstance(content, dict) else None
        if not isinstance(frames, list) or not all(isinstance(entry, dict) for entry in frames):
            raise DatasetError(f"{self._file} has no list 'frames' of objects")
        return content

    def _name_unknown(self, content: dict[str, Any]) -> None:
        """Warn of fields that could change what the poses or the lens mean and that are not known here."""
        known = {*INTRINSICS, *COEFFICIENTS, *KNOWN}
        entries = [content, *content["frames"]]
        unknown = {key for entry in entries for key in entry if not key.endswith("_filenames")}
        if unknown := unknown - known:
            logger.warning(
                "%s: fields that are not known and not used: %s",
                self._file,
                ", ".join(sorted(unknown)),
            )
        if (scale := content.get("applied_scale", 1.0)) != 1.0:
            logger.warning(
                "%s: its poses were scaled by %s (applied_scale): they are not in metres, unless the capture was not",
                self._file,
                scale,
            )

    def _split(self, content: dict[str, Any], split: str) -> set[str] | None:
        """Names of the images in the split; None means all images."""
        names = {
            key.removesuffix("_filenames"): value
            for key, value in content.items()
            if key.endswith("_filenames")
        }
        if not names and split == "train":
            return None
        if split not in names:
            raise NoSplitError(
                f"{self._file} has no {split}_filenames: give another session for testing, or use the "
                "split train",
                has_others=bool(names),
            )
        if not isinstance(names[split], list):
            raise DatasetError(f"{self._file}: {split}_filenames is not a list")
        listed = {str(name) for name in names[split]}
        if missing := listed - {_name(entry) for entry in content["frames"]}:
            raise DatasetError(
                f"{self._file}: {split}_filenames lists {min(missing)}, which is missing in frames"
            )
        return listed


def _name(entry: dict[str, Any]) -> str:
    return str(entry.get("file_path", ""))


def _matrix(entry: dict[str, Any]) -> Array:
    if not entry.get("file_path"):
        raise BadLabelError("no file_path")
    try:
        matrix = np.array(entry.get("transform_matrix"), np.float64)
    except (TypeError, ValueError) as error:
        raise BadLabelError("transform_matrix is not a matrix of numbers") from error
    return pose_from_matrix(matrix)


def _camera(fields: dict[str, Any], where: str) -> Camera:
    if absent := [key for key in INTRINSICS if key not in fields]:
        raise DatasetError(
            f"{where} has no {', '.join(absent)}: add it to the frame, or to the top of the file"
        )
    model = fields.get("camera_model", "OPENCV")
    flag = fields.get("is_fisheye", False)  # of instant-ngp
    if flag not in (True, False):
        raise DatasetError(f"{where}: is_fisheye is {flag!r}: write true or false")
    if flag:
        model = "OPENCV_FISHEYE"
    if (says := _names_a_fisheye(fields)) and model != "OPENCV_FISHEYE":
        raise DatasetError(
            f"{where}: {says} names a fisheye, but the camera is read as {model}: write camera_model OPENCV_FISHEYE with "
            "its k1 to k4, or undistort the images"
        )
    try:
        lens, distortion = "none", tuple[float, ...]()
        k1, k2, k3, k4, p1, p2 = (float(fields.get(key, 0.0)) for key in COEFFICIENTS)
        if model == "OPENCV_FISHEYE":
            lens, distortion = "equidistant", (k1, k2, k3, k4)
        elif model not in PERSPECTIVE or k4 != 0.0:
            raise DatasetError(
                f"{where}: camera_model {model} (k4 {k4}) is not supported: undistort the images"
            )
        elif any((k1, k2, p1, p2, k3)):
            lens, distortion = "plumb_bob", (k1, k2, p1, p2, k3)
        return Camera.model_validate(
            {"width": fields["w"], "height": fields["h"]}
            | {"fx": fields["fl_x"], "fy": fields["fl_y"]}
            | {"cx": float(fields["cx"]) - 0.5, "cy": float(fields["cy"]) - 0.5}
            | {"distortion_model": lens, "distortion": distortion}
        )
    except (TypeError, ValueError, ValidationError) as error:
        raise DatasetError(f"{where}: the camera cannot be used: {error}") from error


def _names_a_fisheye(fields: dict[str, Any]) -> str | None:
    """The first unknown field whose name or value speaks of a fisheye."""
    known = (*INTRINSICS, *COEFFICIENTS, *KNOWN)
    for name, value in fields.items():
        unknown = name not in known and not name.endswith("_filenames")
        if unknown and value and "fisheye" in f"{name} {value}".lower():
            return name
    return None
