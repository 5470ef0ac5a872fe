"""The images that a map was built from. A bundle does not hold them, but the data may still be there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.geometry.poses import Array, angles_between
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.recordings.base import Dataset, poses_of
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.ground_truth import truth_turn
from rgsiam_ros.recordings.seen_data import seen_in_training
from rgsiam_ros.recordings.subset import Subset
from rgsiam_ros.recordings.time_offset import with_time_offset
from rgsiam_ros.recordings.topics import BagTopics
from rgsiam_ros.uncertainty.geometric_trust import RIGHT_DEG

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapData:
    """What a map was built from, as far as the user says."""

    datasets: Sequence[Dataset] = ()
    """With their poses moved in time as for the map."""
    doubt: str = ""
    """What to say if the bundle does not know them by their fingerprint."""


def open_map_data(paths: Sequence[Path], topics: BagTopics | None, manifest: Manifest) -> MapData:
    """Open recordings. Warns of those that the bundle was not built from. Raises BagError, DatasetError."""
    datasets = [open_dataset(path, "train", topics) for path in paths]
    others = [str(data.path) for data in datasets if not seen_in_training(manifest, data)]
    doubt = ""
    if others:
        doubt = (
            f"{', '.join(others)}: by fingerprint this is not what bundle {manifest.name} was built from "
            f"({manifest.mapping_data.source}): the map images beside the live ones may be others"
        )
        logger.warning(doubt)
    offset_s = manifest.labels.time_offset_s
    return MapData([with_time_offset(dataset, offset_s) for dataset in datasets], doubt)


def images_near(
    datasets: Sequence[Dataset], manifest: Manifest, view: LiveView, T_wanted_M44: Array
) -> list[tuple[str, ImageBGR]]:
    """Name and image of the frame nearest to each wanted pose ``(M, 4, 4)`` of a map image.

    view: brings the images to the size of the network's input; of the datasets' camera from then on. Both may be a
    little apart: the poses of a map may have been refined.
    """
    right_m = manifest.limits.right_m
    cost_KM = []
    for dataset in datasets:
        turn = truth_turn(manifest, dataset.map_frame, dataset.path)
        T_K44 = turn @ poses_of(dataset.frames)
        metres_KM = np.linalg.norm(T_K44[:, None, :3, 3] - T_wanted_M44[:, :3, 3], axis=2)
        radians_KM = angles_between(T_K44[:, None, :3, :3], T_wanted_M44[:, :3, :3])
        cost_KM.append(metres_KM / right_m + np.degrees(radians_KM) / RIGHT_DEG)
    best_M = np.argmin(np.concatenate(cost_KM), axis=0)
    first, images = 0, {}
    for dataset in datasets:
        count = len(dataset.frames)
        own = np.unique(best_M[(best_M >= first) & (best_M < first + count)]) - first
        chosen = Subset(dataset, own.tolist())
        if len(own):
            view.use_camera(dataset.camera)
        for index, frame, image in zip(
            own.tolist(), chosen.frames, chosen.read_images(), strict=True
        ):
            images[first + index] = (frame.name, view.fit(image.decode(levels=view.levels)))
        first += count
    return [images[int(best)] for best in best_M]
