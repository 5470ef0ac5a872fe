"""A dataset whose poses are moved in time, because its images show an earlier moment than their stamps say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

import numpy as np

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array, interpolate_poses, invert
from rgsiam_ros.recordings.bag_truth import LONGEST_TRUTH_GAP_NS
from rgsiam_ros.recordings.base import (
    Dataset,
    Dropped,
    Frame,
    PointDataset,
    SourceImage,
    poses_of,
)


class MovedDataset:
    """See `rgsiam_ros.recordings.base.Dataset`. Poses are interpolated between the labels of a session.

    Frames without labels near the wanted time are left out.
    """

    def __init__(self, dataset: Dataset, offset_s: float) -> None:
        """offset_s: an image shows where the camera was this many seconds before its stamp.

        Raises DatasetError if no frame is left.
        """
        self.path, self.camera, self.map_frame = dataset.path, dataset.camera, dataset.map_frame
        self._dataset = dataset
        self.frames: list[Frame] = []
        self._kept: list[bool] = []
        for _, group in groupby(dataset.frames, key=lambda frame: frame.session):
            moved = moved_labels(list(group), offset_s)
            self._kept += [frame is not None for frame in moved]
            self.frames += [frame for frame in moved if frame is not None]
        missing = len(self._kept) - len(self.frames)
        if not self.frames:
            raise DatasetError(
                f"{self.path}: no frame has a pose {offset_s:g} s before its stamp: give a smaller offset"
            )
        why = f"{missing} frames without a pose {offset_s:g} s before their stamp"
        self.dropped = [
            *dataset.dropped,
            *([Dropped(str(self.path), why, missing)] if missing else []),
        ]

    def read_images(self) -> Iterator[SourceImage]:
        """Yield the image of each of `frames`, in order."""
        for kept, image in zip(self._kept, self._dataset.read_images(), strict=True):
            if kept:
                yield image


class MovedPointDataset(MovedDataset):
    """See `rgsiam_ros.recordings.base.PointDataset`. The scene points move with their camera."""

    def __init__(self, dataset: PointDataset, offset_s: float) -> None:
        super().__init__(dataset, offset_s)
        self._points = dataset

    def read_points(self) -> Iterator[Array]:
        """Yield the scene points of each of `frames`, in order."""
        moved = iter(self.frames)
        for kept, frame, points in zip(
            self._kept, self._points.frames, self._points.read_points(), strict=True
        ):
            if kept:
                T = next(moved).T_map_camera @ invert(frame.T_map_camera)
                yield points @ T[:3, :3].T + T[:3, 3]


def with_time_offset(dataset: Dataset, offset_s: float) -> Dataset:
    """The dataset with its poses moved, or unchanged if the offset is 0. Raises DatasetError."""
    if offset_s == 0.0:
        return dataset
    if isinstance(dataset, PointDataset):
        return MovedPointDataset(dataset, offset_s)
    return MovedDataset(dataset, offset_s)


def moved_labels(session: list[Frame], offset_s: float) -> list[Frame | None]:
    """The frames of one session with the poses of an earlier time; None where no label is near that time."""
    stamps = np.array([frame.stamp_ns for frame in session], np.int64)
    known, first = np.unique(stamps, return_index=True)
    if len(known) < 2:
        return [None] * len(session)
    wanted = stamps - round(offset_s * 1e9)
    after = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
    near = known[after] - known[after - 1] <= LONGEST_TRUTH_GAP_NS
    inside = (wanted >= known[0]) & (wanted <= known[-1]) & (near | np.isin(wanted, known))
    T = interpolate_poses(known, poses_of(session)[first], wanted[inside])
    poses = iter(T)
    return [
        replace(frame, T_map_camera=next(poses)) if usable else None
        for frame, usable in zip(session, inside, strict=True)
    ]
