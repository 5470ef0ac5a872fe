"""Loader for COLMAP: a text or binary model in the folder, ``sparse`` or ``sparse/0``; images in ``images``.

Poses are world to camera, quaternion wxyz, OpenCV axes. The centre of the first pixel is (0.5, 0.5) in COLMAP
and (0, 0) in OpenCV, so half a pixel is subtracted from the principal point. The scale of a COLMAP model is
arbitrary: it must be aligned to metres first (``colmap model_aligner``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array, invert
from rgsiam_ros.recordings.base import Dropped, Frame
from rgsiam_ros.recordings.colmap_model import (
    ColmapCamera,
    ColmapImage,
    count_images,
    read_cameras,
    read_images,
    read_points,
    refuse_two_models,
)
from rgsiam_ros.recordings.image_files import (
    FRAME_PERIOD_NS,
    FileDataset,
    NoSplitError,
    by_number,
    folder_of,
    one_camera,
)
from rgsiam_ros.recordings.pose_labels import pose_from_quaternion

logger = logging.getLogger(__name__)


class ColmapDataset(FileDataset):
    """See `rgsiam_ros.recordings.base.PointDataset`. Frames are ordered by name; each folder is a session."""

    def __init__(self, path: Path, split: str) -> None:
        super().__init__(path)
        if split != "train":
            raise NoSplitError(
                f"{path}: a COLMAP model has no split {split}: give another model for testing, or use "
                "the split train"
            )
        model = find_model(path)
        if model is None:
            raise DatasetError(f"{path} holds no cameras.txt or cameras.bin")
        self._model = model
        if len(models := models_in(path)) > 1:
            sizes = ", ".join(f"{folder}: {count} images" for folder, count in models.items())
            logger.warning(
                "%s holds several reconstructions, which have no common frame (%s): %s is taken. Name another by "
                "its folder",
                path,
                sizes,
                model,
            )
        refuse_two_models(model)
        images = _image_folder(path)
        entries: list[ColmapImage] = []
        for entry in read_images(model):
            if isinstance(entry, ColmapImage):
                entries.append(entry)
            else:
                self.dropped.append(Dropped(*entry))
        entries.sort(key=lambda image: by_number(image.name))
        self._points_of: dict[str, NDArray[np.int64]] = {}
        used: dict[int, list[str]] = {}
        for order, image in enumerate(entries):
            with self._dropping(image.where):
                T_map_camera = invert(
                    pose_from_quaternion(image.translation, image.quaternion_wxyz)
                )
                session = folder_of(image.name, path.resolve().name)
                frame = Frame(image.name, session, order * FRAME_PERIOD_NS, T_map_camera, True)
                self._add(frame, images / image.name)
                self._points_of[image.name] = image.point_ids
                used.setdefault(image.camera, []).append(image.name)
        self._finish()
        self.camera = _common_camera(model, used)

    def read_points(self) -> Iterator[Array]:
        """Yield the reconstructed points that each image observes, see `PointDataset`."""
        points = read_points(self._model)
        for frame in self.frames:
            observed = sorted(set(self._points_of[frame.name].tolist()))
            if missing := [number for number in observed if number not in points]:
                raise DatasetError(
                    f"{self._model}: {frame.name} observes point {missing[0]}, which is missing in "
                    "points3D: export the model again"
                )
            yield np.array([points[number] for number in observed]).reshape(-1, 3)


def find_model(path: Path) -> Path | None:
    """Return the folder of the COLMAP model in a dataset's folder; None when there is none.

    Of several, one in the folder itself is taken, else one in ``sparse``, else the one with most images.
    """
    models = models_in(path)
    for folder in (path, path / "sparse"):
        if folder in models:
            return folder
    return max(models, key=lambda folder: models[folder]) if models else None


def models_in(path: Path) -> dict[Path, int]:
    """The models in a dataset's folder, with their numbers of images; 0 for a single one, which is not counted.

    They are in the folder itself, in ``sparse``, in the folders of ``sparse``, or in numbered folders.
    """
    sparse = path / "sparse"
    places = [path, sparse, *_folders(sparse), *(f for f in _folders(path) if f.name.isdecimal())]
    found = [folder for folder in places if _holds_model(folder)]
    return {found[0]: 0} if len(found) == 1 else {folder: count_images(folder) for folder in found}


def _folders(path: Path) -> list[Path]:
    entries = path.iterdir() if path.is_dir() else ()
    return sorted((e for e in entries if e.is_dir()), key=lambda entry: by_number(entry.name))


def _holds_model(folder: Path) -> bool:
    return any((folder / f"cameras.{ending}").is_file() for ending in ("bin", "txt"))


def _image_folder(path: Path) -> Path:
    for folder in (path, path.resolve().parent, path.resolve().parent.parent):
        if (folder / "images").is_dir():
            return folder / "images"
    raise DatasetError(f"{path / 'images'} is missing: put the images, or a link to them, there")


def _common_camera(model: Path, used: dict[int, list[str]]) -> Camera:
    """The camera of all images. Raises DatasetError when the cameras differ.

    used: for each camera number, the names of its images.
    """
    stored = read_cameras(model)
    if unknown := [number for number in used if number not in stored]:
        raise DatasetError(
            f"{model}: {used[unknown[0]][0]} has camera {unknown[0]}, which is missing in cameras: "
            "export the model again"
        )
    cameras = {number: _camera(model, number, stored[number]) for number in used}
    images = {number: len(names) for number, names in used.items()}
    camera, others = one_camera(cameras, images)
    if others:
        other = max(others, key=lambda number: images[number])
        rest = sum(images[number] for number in others)
        raise DatasetError(
            f"{model}: {len(cameras)} cameras that differ: {sum(images.values()) - rest} images have one like "
            f"{camera.describe()}, and {rest} do not (camera {other}, {used[other][0]}: {cameras[other].describe()}). If one "
            "camera took all, reconstruct with `colmap feature_extractor --ImageReader.single_camera 1`, or undistort the "
            "images to one; else make a dataset of the images of each camera"
        )
    if len(cameras) > 1:
        logger.info("%s: %d cameras whose intrinsics agree count as one", model, len(cameras))
    return camera


def _camera(model: Path, number: int, stored: ColmapCamera) -> Camera:
    p, name = stored.parameters, stored.model
    no_distortion = ("none", ())
    # number of parameters; places of fx, fy, cx, cy; distortion
    layouts = {
        "SIMPLE_PINHOLE": (3, (0, 0, 1, 2), lambda: no_distortion),
        "PINHOLE": (4, (0, 1, 2, 3), lambda: no_distortion),
        "SIMPLE_RADIAL": (4, (0, 0, 1, 2), lambda: ("plumb_bob", (p[3], 0.0, 0.0, 0.0))),
        "RADIAL": (5, (0, 0, 1, 2), lambda: ("plumb_bob", (p[3], p[4], 0.0, 0.0))),
        "OPENCV": (8, (0, 1, 2, 3), lambda: ("plumb_bob", p[4:])),
        "OPENCV_FISHEYE": (8, (0, 1, 2, 3), lambda: ("equidistant", p[4:])),
        "FULL_OPENCV": (12, (0, 1, 2, 3), lambda: ("rational_polynomial", p[4:])),
    }
    if name not in layouts:
        raise DatasetError(
            f"{model}: camera {number} has the model {name}, which is not supported; supported are "
            f"{', '.join(layouts)}: undistort the images (colmap image_undistorter)"
        )
    count, places, distortion_of = layouts[name]
    if len(p) != count:
        raise DatasetError(f"{model}: camera {number}: {name} has {count} numbers, not {len(p)}")
    fx, fy, cx, cy = (p[place] for place in places)
    distortion_model, distortion = distortion_of()
    try:
        return Camera.model_validate(
            {"width": stored.width, "height": stored.height, "fx": fx, "fy": fy}
            | {"cx": cx - 0.5, "cy": cy - 0.5}
            | {"distortion_model": distortion_model, "distortion": distortion}
        )
    except ValidationError as error:
        raise DatasetError(f"{model}: camera {number} cannot be used: {error}") from error
