"""Loader for Cambridge Landmarks: ``dataset_train.txt``, ``dataset_test.txt`` and the ``seqN`` folders.

After three header lines, each line is ``path x y z qw qx qy qz``: the camera centre in the world, metres, and
the rotation from the world to the camera (OpenCV axes). The lists have no intrinsics. The focal length is the
median in ``reconstruction.nvm`` if that file exists, otherwise 1670 px at 1920x1080, the usual value for this
dataset. The slight radial distortion in ``reconstruction.nvm`` is not used.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import invert
from rgsiam_ros.recordings.base import Frame
from rgsiam_ros.recordings.image_files import FileDataset, folder_of
from rgsiam_ros.recordings.pose_labels import BadLabelError, numbers, pose_from_quaternion

NOMINAL_FOCAL_PX, NOMINAL_HEIGHT_PX = 1670.0, 1080
HEADER_LINES = 3
FRAME_PERIOD_NS = 500_000_000
SESSION_SPACING_NS = 100_000 * 1_000_000_000
"""Distance between the artificial stamps of two sessions, so that they never overlap."""


class CambridgeDataset(FileDataset):
    """See `rgsiam_ros.recordings.base.Dataset`."""

    def __init__(self, path: Path, split: str) -> None:
        super().__init__(path)
        sessions: dict[str, int] = {}
        for number, line in _labels(path, split):
            with self._dropping(f"{path / f'dataset_{split}.txt'}:{number}"):
                name, *fields = line.split()
                values = numbers(fields, 7)
                T_camera_map = pose_from_quaternion(np.zeros(3), values[3:])
                T_map_camera = pose_from_quaternion(values[:3], [1.0, 0.0, 0.0, 0.0])
                T_map_camera[:3, :3] = invert(T_camera_map)[:3, :3]
                session = folder_of(name, path.name)
                session_index = sessions.setdefault(session, len(sessions))
                digits = re.findall(r"\d+", Path(name).stem)
                frame_index = int(digits[-1]) if digits else number
                stamp_ns = session_index * SESSION_SPACING_NS + frame_index * FRAME_PERIOD_NS
                self._add(Frame(name, session, stamp_ns, T_map_camera, True), path / name)
        self._finish()
        width, height = self._image_size()
        focal = _focal_px(path / "reconstruction.nvm") * height / NOMINAL_HEIGHT_PX
        self.camera = Camera(
            width=width, height=height, fx=focal, fy=focal, cx=width / 2, cy=height / 2
        )


def _labels(path: Path, split: str) -> list[tuple[int, str]]:
    if split not in ("train", "test"):
        raise DatasetError(f"split {split!r} is neither train nor test")
    listing = path / f"dataset_{split}.txt"
    try:
        lines = listing.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{listing} cannot be read: {error}") from error
    for number, line in enumerate(lines[:HEADER_LINES], 1):
        if _is_label(line):
            raise DatasetError(
                f"{listing}:{number} is a label, not one of the {HEADER_LINES} header lines: restore "
                "the header"
            )
    return [(n, line) for n, line in enumerate(lines, 1) if n > HEADER_LINES and line.strip()]


def _is_label(line: str) -> bool:
    try:
        numbers(line.split()[1:], 7)
    except BadLabelError:
        return False
    return True


def _focal_px(model: Path) -> float:
    """Median focal length of a VisualSFM model, pixels at 1920x1080; the nominal one without a model."""
    if not model.is_file():
        return NOMINAL_FOCAL_PX
    lines = [line.split() for line in model.read_text(errors="replace").splitlines()]
    filled = [fields for fields in lines if fields]
    try:
        if filled[0][0] != "NVM_V3":
            raise ValueError(f"it begins with {filled[0][0]}, not NVM_V3")
        count = int(filled[1][0])
        focal = np.array([float(fields[1]) for fields in filled[2 : 2 + count]])
        median = float(np.median(focal))
        if count < 1 or len(focal) < count or not 0.0 < median < 1e5:
            raise ValueError(f"{len(focal)} of {count} cameras, median focal length {median}")
    except (IndexError, ValueError) as error:
        raise DatasetError(
            f"{model}: {error}: remove it to use the nominal {NOMINAL_FOCAL_PX:.0f} px"
        ) from error
    return median
