"""Loader for CSV files with the columns ``image,x,y,z,qw,qx,qy,qz``.

The columns ``stamp_s``, ``session`` and ``split`` are optional. Poses are camera to map, metres, OpenCV axes.
Image paths are relative to the folder of the CSV file. ``camera.yaml`` must lie in the same folder.
"""

from __future__ import annotations

import csv
from pathlib import Path

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.recordings.base import Frame
from rgsiam_ros.recordings.image_files import (
    FRAME_PERIOD_NS,
    FileDataset,
    NoSplitError,
    folder_of,
    read_camera,
)
from rgsiam_ros.recordings.pose_labels import BadLabelError, numbers, pose_from_quaternion, stamp_ns

POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
REQUIRED = ("image", *POSE)
OPTIONAL = ("stamp_s", "session", "split")


class CsvDataset(FileDataset):
    """See `rgsiam_ros.recordings.base.Dataset`. `path` is the CSV file."""

    def __init__(self, path: Path, split: str) -> None:
        super().__init__(path)
        self.camera = read_camera(path.parent / "camera.yaml")
        rows = _read(path)
        splits = {row["split"] for _, row in rows} if rows and "split" in rows[0][1] else None
        if splits is None and split != "train":
            raise NoSplitError(
                f"{path} has no column split: give another session for testing, or use the split train"
            )
        if splits is not None and split not in splits:
            raise NoSplitError(
                f"{path} has no row of split {split}: use one of the splits {sorted(splits)}",
                has_others=True,
            )
        for order, (line, row) in enumerate(rows):
            if row.get("split") not in (None, "", split):
                continue
            with self._dropping(f"{path}:{line}"):
                if row.get("split") == "":
                    raise BadLabelError("split is empty")
                self._add(_frame(row, order, path.stem), path.parent / row["image"])
        self._finish()


def _read(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line numbers and rows. Raises DatasetError for missing or unknown columns."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", skipinitialspace=True)
            names = list(reader.fieldnames or ())
            if absent := [name for name in REQUIRED if name not in names]:
                raise DatasetError(f"{path}:1: the header lacks {', '.join(absent)}: add it")
            if unknown := [name for name in names if name not in REQUIRED + OPTIONAL]:
                raise DatasetError(
                    f"{path}:1: column {unknown[0]!r} is none of {', '.join(REQUIRED + OPTIONAL)}: "
                    "remove or rename it"
                )
            return [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def _frame(row: dict[str, str], order: int, default_session: str) -> Frame:
    if None in row:
        raise BadLabelError("more fields than the header has")
    name = row["image"]
    if not name:
        raise BadLabelError("no image")
    if absent := [column for column in POSE if not row[column]]:
        raise BadLabelError(f"no {', '.join(absent)}")
    values = numbers([row[column] for column in POSE], 7)
    T = pose_from_quaternion(values[:3], values[3:])
    stamp = stamp_ns(row["stamp_s"]) if "stamp_s" in row else order * FRAME_PERIOD_NS
    session = row.get("session") or folder_of(name, default_session)
    return Frame(name, session, stamp, T, "stamp_s" not in row)
