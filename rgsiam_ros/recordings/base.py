"""The type that every dataset loader yields."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.geometry.poses import Array


@dataclass(frozen=True)
class Frame:
    """One posed image."""

    name: str
    session: str
    """Frames of one session follow each other in time."""
    stamp_ns: int
    T_map_camera: Array
    """``(4, 4)`` pose of the camera (OpenCV axes) in the map frame, metres."""


@dataclass(frozen=True)
class Dropped:
    """Something that a loader left out."""

    where: str
    """``file:line``, or a file."""
    why: str
    frames: int = 1
    """How many images went with it; 0 where it was a label between images."""


class SourceImage(Protocol):
    """An image that is still encoded."""

    @property
    def content(self) -> bytes:
        """The stored bytes."""
        ...

    def decode(self) -> ImageBGR:
        """The picture, ``(H, W, 3)`` uint8 BGR."""
        ...


class Dataset(Protocol):
    """Posed images of one camera in one map."""

    path: Path
    camera: Camera
    map_frame: str

    @property
    def frames(self) -> Sequence[Frame]:
        """Sessions one after another, each in time order."""
        ...

    @property
    def dropped(self) -> Sequence[Dropped]:
        """What was left out, with reasons."""
        ...

    def read_images(self) -> Iterator[SourceImage]:
        """The images of `frames`, in their order."""
        ...


@runtime_checkable
class PointDataset(Dataset, Protocol):
    """A dataset that also knows where the scene is."""

    def read_points(self) -> Iterator[Array]:
        """For each of `frames`, in order: points ``(M, 3)`` in the map, metres, that it sees.

        M may be 0. Raises DatasetError where the recording has no depth at all.
        """
        ...


def poses_of(frames: Sequence[Frame]) -> Array:
    """``(N, 4, 4)`` camera poses of frames."""
    return np.stack([frame.T_map_camera for frame in frames])


def describe_dropped(dataset: Dataset) -> str | None:
    """One line for a log that says how many frames were left out; None if none."""
    if not dataset.dropped:
        return None
    left_out = sum(dropped.frames for dropped in dataset.dropped)
    all_frames = len(dataset.frames) + left_out
    what = f"{left_out} of {all_frames} frames left out"
    if not left_out:
        what = f"{len(dataset.dropped)} unusable labels, no frame left out"
    return f"{dataset.path}: {what}, see `rgsiam inspect {dataset.path}`"


def fingerprint(datasets: Sequence[Dataset]) -> str:
    """SHA-256 over the stored images, stamps and poses, in order."""
    digest = hashlib.sha256()
    for dataset in datasets:
        for frame, image in zip(dataset.frames, dataset.read_images(), strict=True):
            digest.update(frame.session.encode())
            digest.update(np.int64(frame.stamp_ns).tobytes())
            digest.update(np.ascontiguousarray(frame.T_map_camera).tobytes())
            digest.update(image.content)
    return digest.hexdigest()
