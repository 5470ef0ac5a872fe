"""A folder of posed images that `rgsiam dataset from-bag` writes. docs/datasets.md describes its files.

::

    dataset.yaml            version, map_frame, camera, sessions
    SESSION/frames.csv      stamp_ns,image and `POSE`: the pose of the camera in the map
    SESSION/images/...      one file for each row
    SESSION/session.yaml    where the session comes from
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rgsiam_ros.bundle.manifest import FRAME_ID
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.geodesy import Datum
from rgsiam_ros.recordings.base import Frame
from rgsiam_ros.recordings.image_files import FileDataset
from rgsiam_ros.recordings.pose_labels import BadLabelError, numbers, pose_from_matrix

DATASET_NAME, FRAMES_NAME, SESSION_NAME = "dataset.yaml", "frames.csv", "session.yaml"
POSE = ("r00", "r01", "r02", "tx", "r10", "r11", "r12", "ty", "r20", "r21", "r22", "tz")
"""Columns of ``T_map_camera[:3]``, row by row: a rotation matrix, and metres."""
COLUMNS = ("stamp_ns", "image", *POSE)


class Description(BaseModel):
    """The content of ``dataset.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[1] = 1
    map_frame: str = Field(pattern=FRAME_ID)
    camera: Camera
    """Of the images as they are stored."""
    undistorted_from: Camera | None = None
    """The camera before the lens distortion was removed; None if the images are as they were recorded."""
    datum: Datum | None = None
    """The map's origin, if the poses are from GPS fixes."""
    sessions: tuple[str, ...] = Field(min_length=1)
    """Their folders, in order."""


class PosedFolderDataset(FileDataset):
    """See `rgsiam_ros.recordings.base.Dataset`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        description = read_description(path / DATASET_NAME)
        self.camera, self.map_frame = description.camera, description.map_frame
        for session in description.sessions:
            if Path(session).name != session:
                raise DatasetError(f"{path / DATASET_NAME}: {session!r} is no name of a folder")
            self._read(path / session, session)
        self._finish()

    def _read(self, folder: Path, session: str) -> None:
        table = folder / FRAMES_NAME
        try:
            with table.open(newline="") as file:
                rows = list(csv.reader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DatasetError(f"{table} cannot be read: {error}") from error
        if not rows or tuple(rows[0]) != COLUMNS:
            raise DatasetError(f"{table}:1: the header is not {','.join(COLUMNS)}")
        for line, row in enumerate(rows[1:], 2):
            with self._dropping(f"{table}:{line}"):
                if len(row) != len(COLUMNS):
                    raise BadLabelError(f"{len(row)} fields, not {len(COLUMNS)}")
                if not row[0].isdecimal() or len(row[0]) > 18 + 1:
                    raise BadLabelError(f"stamp {row[0]!r:.40} is no number of nanoseconds")
                if Path(row[1]).name != row[1]:
                    raise BadLabelError(f"{row[1]!r:.80} is no name of a file")
                stored = np.vstack([numbers(row[2:], 12).reshape(3, 4), [0.0, 0.0, 0.0, 1.0]])
                checked = pose_from_matrix(stored)
                # a pose that was written here is taken bit for bit, so that it has the same fingerprint as in its bag
                T = stored if np.allclose(checked, stored, rtol=0.0, atol=1e-12) else checked
                frame = Frame(f"{session}/{row[0]}", session, int(row[0]), T)
                self._add(frame, folder / "images" / row[1])


def read_description(path: Path) -> Description:
    """Read a ``dataset.yaml``. Raises DatasetError."""
    try:
        return Description.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{path} is not a description of version 1: {reason:.300}") from error
