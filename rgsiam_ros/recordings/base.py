"""The types that all dataset loaders return."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Protocol, runtime_checkable

import numpy as np

from rgsiam_ros.bundle.manifest import FRAME_ID
from rgsiam_ros.camera.levels import Levels
from rgsiam_ros.camera.model import Camera, match_view
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import CameraError, DatasetError
from rgsiam_ros.geometry.poses import Array

ASPECT_TOLERANCE = 0.02
"""Largest relative difference between the aspect ratios of an image and its camera."""


@dataclass(frozen=True)
class Frame:
    """One posed image."""

    name: str
    session: str
    """Name of the drive or sequence that the image is part of. Its frames are ordered by time."""
    stamp_ns: int
    T_map_camera: Array
    """``(4, 4)`` pose of the camera (OpenCV axes) in the map frame, metres."""
    nominal_stamp: bool = False
    """Whether the stamp was made from the order of the images, because the dataset has no stamps."""


@dataclass(frozen=True)
class Dropped:
    """A label or image that a loader left out."""

    where: str
    """The file, or ``file:line``."""
    why: str
    """The reason."""
    frames: int = 1
    """Number of images that were left out with it; 0 for a label that belongs to no single image."""


class SourceImage(Protocol):
    """An encoded image."""

    @property
    def content(self) -> bytes:
        """The stored bytes."""
        ...

    def decode(
        self, enough: tuple[int, int] | None = None, levels: Levels | None = None
    ) -> ImageBGR:
        """Return the image as ``(H, W, 3)`` uint8 BGR.

        enough, levels: see `rgsiam_ros.camera.decoding.decode_message`.
        """
        ...


class Dataset(Protocol):
    """Posed images of one camera in one map."""

    path: Path
    camera: Camera
    map_frame: str

    @property
    def frames(self) -> Sequence[Frame]:
        """All usable frames, session by session, each session in time order."""
        ...

    @property
    def dropped(self) -> Sequence[Dropped]:
        """The labels and images that were left out, with reasons."""
        ...

    def read_images(self) -> Iterator[SourceImage]:
        """Yield the image of each of `frames`, in order."""
        ...


@runtime_checkable
class PointDataset(Dataset, Protocol):
    """A dataset that also has 3D points of the scene."""

    def read_points(self) -> Iterator[Array]:
        """Yield for each of `frames`, in order, the visible scene points ``(M, 3)`` in the map frame, metres.

        M may be 0. Raises DatasetError when the dataset has no depth at all.
        """
        ...


def poses_of(frames: Sequence[Frame]) -> Array:
    """Return the camera poses ``T_map_camera`` of frames, ``(N, 4, 4)``."""
    return np.stack([frame.T_map_camera for frame in frames])


def frames_of(datasets: Sequence[Dataset]) -> list[Frame]:
    """The frames of datasets. Sessions of two datasets get different names, also if they have the same."""
    if len(datasets) == 1:
        return list(datasets[0].frames)
    return [
        replace(frame, session=f"{dataset.path} ({i + 1}): {frame.session}")
        for i, dataset in enumerate(datasets)
        for frame in dataset.frames
    ]


def require_shape(image_HW3: ImageBGR, camera: Camera, name: str) -> ImageBGR:
    """Return the image unchanged. Raises DatasetError if its shape is not that of the camera, at any resolution.

    name: of the frame.
    """
    height, width = image_HW3.shape[:2]
    if abs(width * camera.height / (height * camera.width) - 1.0) > ASPECT_TOLERANCE:
        raise DatasetError(
            f"{name} has {width}x{height} pixels, but the camera {camera.width}x{camera.height}: it was rotated, cropped or "
            "taken by another camera; leave it out, or correct the camera. `rgsiam inspect` lists all such images"
        )
    return image_HW3


def common_camera(datasets: Sequence[Dataset]) -> Camera:
    """The camera of the datasets.

    Raises DatasetError if they differ in camera or map frame, if no bundle can have their map frame, or if one is given
    twice.
    """
    first = datasets[0]
    if not re.match(FRAME_ID, first.map_frame):
        raise DatasetError(
            f"{first.path}: {first.map_frame!r} cannot be the name of a map frame: take letters, digits, '_', '/', '.' and "
            "'-', and record the true poses in a frame of that name"
        )
    for other in datasets[1:]:
        if other.map_frame != first.map_frame:
            raise DatasetError(
                f"{other.path} has the map frame {other.map_frame}, but {first.path} has "
                f"{first.map_frame}: use sessions of one map"
            )
        try:
            identical = match_view(other.camera, first.camera).identical
        except CameraError as error:
            raise DatasetError(f"{other.path} and {first.path}: {error}") from error
        if not identical:
            raise DatasetError(
                f"{other.path} and {first.path} were recorded with different cameras: use sessions "
                "of one camera"
            )
    paths = [dataset.path.resolve() for dataset in datasets]
    if repeated := [path for path, count in Counter(paths).items() if count > 1]:
        raise DatasetError(
            f"{repeated[0]} is given twice: give each session once, or it would be measured on itself"
        )
    return first.camera


def describe_dropped(dataset: Dataset) -> str | None:
    """Return one line for a log that says how many frames were left out; None when nothing was."""
    if not dataset.dropped:
        return None
    left_out = sum(dropped.frames for dropped in dataset.dropped)
    all_frames = len(dataset.frames) + left_out
    summary = f"{left_out} of {all_frames} frames left out"
    if not left_out:
        summary = f"{len(dataset.dropped)} unusable labels, no frame left out"
    return f"{dataset.path}: {summary}, see `rgsiam inspect {quote(str(dataset.path))}`"


def describe_repeated(dataset: Dataset) -> str | None:
    """Return one line for a log that says how many images of the dataset occur more than once; None if none does."""
    counts = Counter(hashlib.sha256(image.content).digest() for image in dataset.read_images())
    repeated = sum(count for count in counts.values() if count > 1)
    if not repeated:
        return None
    return (
        f"{dataset.path}: {repeated} of {len(dataset.frames)} images repeat another one byte for byte, though their "
        f"labels differ in time: see `rgsiam inspect {quote(str(dataset.path))}`"
    )


def session_fingerprints(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """The `fingerprint` of each dataset alone. Raises DatasetError if two hold the same frames."""
    prints = tuple(fingerprint([dataset]) for dataset in datasets)
    for i, print_of_data in enumerate(prints):
        if (first := prints.index(print_of_data)) < i:
            raise DatasetError(
                f"{datasets[i].path} holds the same images and poses as {datasets[first].path}: give each session "
                "once, or it would be measured on itself"
            )
    return prints


def fingerprint(datasets: Sequence[Dataset]) -> str:
    """Return the SHA-256, in hex, of the sessions, stamps, poses and stored images of datasets, in order."""
    digest = hashlib.sha256()
    for dataset in datasets:
        for frame, image in zip(dataset.frames, dataset.read_images(), strict=True):
            digest.update(frame.session.encode())
            digest.update(np.int64(frame.stamp_ns).tobytes())
            digest.update(np.ascontiguousarray(frame.T_map_camera).tobytes())
            digest.update(image.content)
    return digest.hexdigest()
