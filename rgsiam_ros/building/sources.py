"""The recordings of a build, and what is refused before the long work."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rgsiam_ros.camera.camera_info import COMPRESSED
from rgsiam_ros.camera.model import Camera, match_view
from rgsiam_ros.errors import BagError, BuildError, CameraError, DatasetError
from rgsiam_ros.geometry.poses import Array, angles_between
from rgsiam_ros.mapping.checks import LARGEST_DISTANCE_M, check_neighbours
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.recordings.base import Dataset, common_camera, poses_of
from rgsiam_ros.recordings.formats import find_format, open_dataset, open_test_side
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_ros.recordings.rosbag_dataset import RosbagDataset
from rgsiam_ros.recordings.topics import BagTopics

logger = logging.getLogger(__name__)

LARGEST_TURN_DEG = 60.0
"""Cameras that are turned against each other by more than this share nothing that can be matched."""


LAUNCH_TOPIC = "/camera/image_raw"
"""Where the launch file expects the images."""


@dataclass(frozen=True)
class Source:
    """A recording."""

    path: Path
    images: int
    """Number of images that are used."""
    is_bag: bool
    has_truth: bool = True
    image_topic: str = ""
    """Of a bag with true poses."""


@dataclass(frozen=True)
class Sources:
    """The recordings of a build."""

    mapping: tuple[Source, ...]
    tests: tuple[Source, ...]
    input_pixels: int
    """Pixels of a recorded image."""

    @property
    def launch_arguments(self) -> tuple[str, ...]:
        """What `relocalize.launch.py` needs for the camera of the first bag."""
        topic = next((s.image_topic for s in self.mapping if s.image_topic), LAUNCH_TOPIC)
        base = topic.removesuffix(COMPRESSED)
        return (
            *(() if base == LAUNCH_TOPIC else (f"image_topic:={base}",)),
            *(() if base == topic else ("image_transport:=compressed",)),
        )

    @property
    def images(self) -> int:
        """Number of images for the map."""
        return sum(source.images for source in self.mapping)


def open_sources(mapping: Sequence[Path], tests: Sequence[Path], topics: BagTopics) -> Sources:
    """Open the recordings, and check that a map can be built and tested with them. Reads no image's content.

    Logs a warning if the images of a test are cropped to the map's view, and if a test has no true poses.
    Raises BagError or DatasetError if a recording cannot be used, if there are too few images, if most have no
    neighbour, if a mapping recording is given as a test too, if the camera of a test does not show the map's view, and if
    no image of a test was taken near one of the map.
    """
    repeated = {path.resolve() for path in mapping} & {path.resolve() for path in tests}
    if repeated:
        raise BuildError(
            f"{repeated.pop()} is given for the map and as a test: it would be measured on itself"
        )
    opened = [open_dataset(path, "train", topics) for path in mapping]
    camera = common_camera(opened)
    check_neighbours(read_labels(opened))
    T_map_N44 = np.concatenate([poses_of(dataset.frames) for dataset in opened])
    return Sources(
        tuple(_source(path, dataset) for path, dataset in zip(mapping, opened, strict=True)),
        tuple(_test(path, topics, camera, opened[0].map_frame, T_map_N44) for path in tests),
        camera.width * camera.height,
    )


def _source(path: Path, dataset: Dataset) -> Source:
    topic = dataset.image_topic if isinstance(dataset, RosbagDataset) else ""
    return Source(path, len(dataset.frames), find_format(path).name == "bag", image_topic=topic)


def _test(
    path: Path, topics: BagTopics, camera: Camera, map_frame: str, T_map_N44: Array
) -> Source:
    """Open and check a recording to test with."""
    try:
        dataset = open_test_side(path, topics)
    except (BagError, DatasetError) as error:
        if find_format(path).name != "bag":
            raise
        drive = read_drive(path, topics)  # refuses what a replay refuses
        logger.warning(
            "%s: its replay will show no errors, because there are no true poses: %s", path, error
        )
        if drive.camera is not None:
            _check_camera(path, drive.camera, camera)
        return Source(path, drive.images, is_bag=True, has_truth=False)
    _check_camera(path, dataset.camera, camera)
    if dataset.map_frame != map_frame:
        logger.warning(
            "%s: its poses are in the frame %s, those of the map in %s: errors are wrong unless both are the same",
            *(path, dataset.map_frame, map_frame),
        )
    _check_overlap(path, poses_of(dataset.frames), T_map_N44)
    return _source(path, dataset)


def _check_camera(path: Path, live: Camera, camera: Camera) -> None:
    try:
        view = match_view(live, camera)
    except CameraError as error:
        raise CameraError(f"{path}: {error}") from error
    if not view.identical:
        _, _, width, height = view.crop_xywh
        logger.warning(
            "%s: its images are cropped to %dx%d of %dx%d pixels, the view of the map's camera",
            *(path, width, height, live.width, live.height),
        )


def _check_overlap(path: Path, T_test_M44: Array, T_map_N44: Array) -> None:
    """Raise BuildError if no image of a test can share anything with one of the map."""
    nearest_m = np.inf
    for T in T_test_M44:
        metres = np.linalg.norm(T_map_N44[:, :3, 3] - T[:3, 3], axis=1)
        turned_deg = np.degrees(angles_between(T_map_N44[:, :3, :3], T[:3, :3]))
        if (metres[turned_deg <= LARGEST_TURN_DEG] <= LARGEST_DISTANCE_M).any():
            return
        nearest_m = min(nearest_m, float(metres.min()))
    raise BuildError(
        f"{path} does not overlap with the map: none of its {len(T_test_M44)} images is within "
        f"{LARGEST_DISTANCE_M:.0f} m of a mapping image that looks the same way (the nearest of any direction is "
        f"{nearest_m:.0f} m away): test with a drive of the same route, with true poses in the same frame"
    )


def files_of(path: Path) -> list[Path]:
    """The files of a recording."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())
