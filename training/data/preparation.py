"""Preparation of datasets for training: images are decoded and resized once, then split into training and
validation images.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from rgsiam_ros.bundle.parts import LabelCorrection, MapExtent
from rgsiam_ros.camera.levels import FEWEST_LEVELS
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing, fit_image
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array, quaternion_wxyz
from rgsiam_ros.mapping.label_correction import correct_labels
from rgsiam_ros.mapping.map_scale import extent_of
from rgsiam_ros.recordings.base import (
    Dataset,
    Frame,
    PointDataset,
    common_camera,
    describe_dropped,
    describe_repeated,
    fingerprint,
    frames_of,
    poses_of,
    require_shape,
    session_fingerprints,
)
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.levels import levels_of
from rgsiam_training.config import LARGEST_SIDE, TrainingConfig
from rgsiam_training.data.splits import split_frames

logger = logging.getLogger(__name__)

HEIGHT_STEP = 8
"""The stride of the backbone's finest map that a neck uses. The input's default height is a multiple of it."""
LARGEST_BLANK_SHARE = 0.5
"""If a larger share of the images has no contrast, there is nothing to learn from."""
SMALLEST_SCALE_M = 0.1
"""Smallest length of a normalised unit, for sessions in which the camera hardly moves."""


@dataclass(frozen=True)
class PreparedImages:
    """Images at the network's input size with their true poses."""

    image_NHW3: NDArray[np.uint8]
    """BGR."""
    T_map_camera_N44: Array
    """True poses of the camera's optical frame."""
    session_N: NDArray[np.int64]
    """Number of the session that each image is from."""
    stamp_ns_N: NDArray[np.int64]
    """Time stamps, nanoseconds."""
    point_NP3: Array | None = None
    """Scene points that each image sees, metres in the map frame. Rows are NaN where an image sees fewer
    than P points. None unless the reprojection term is enabled."""


@dataclass(frozen=True)
class PreparedData:
    """The training and validation images, and the properties of the map that training and export need."""

    training: PreparedImages
    validation: PreparedImages
    camera: Camera
    map_frame: str
    preprocessing: Preprocessing
    origin_m: Array
    """Origin of the normalised coordinates ``(3,)``, metres in the map frame."""
    scale_m: float
    """Length of one normalised unit, metres."""
    anchors_K3: NDArray[np.float32]
    """Positions spread over the map, normalised units."""
    labels: LabelCorrection
    """How labels and camera were corrected."""
    extent: MapExtent
    """Scale of the map, and which errors are right and wrong in it."""
    fingerprint: str
    """Identifies the contents of the datasets, as recorded."""
    session_fingerprints: tuple[str, ...]
    """The same for each dataset alone."""
    source: str
    """Names of the datasets."""


def prepare(config: TrainingConfig) -> PreparedData:
    """Open the datasets of a run, decode their images and hold out the validation images.

    Logs which frames the datasets left out. Raises DatasetError when a dataset cannot be used, or when the
    datasets differ in camera or map frame.
    """
    recorded = [open_dataset(path, split="train", topics=config.topics) for path in config.datasets]
    common_camera(recorded)
    prints = session_fingerprints(recorded)
    datasets, labels = correct_labels(recorded, config.time_offset, config.refine_camera)
    for dataset in datasets:
        if left_out := describe_dropped(dataset):
            logger.warning(left_out)
    camera = common_camera(datasets)
    extent = extent_of(datasets)
    mean, std = normalisation_of(config.network.backbone)
    height = config.input_height or uncropped_height(config.input_width, camera)
    levels = levels_of(datasets)
    preprocessing = Preprocessing(
        input_width=config.input_width, input_height=height, levels=levels, mean=mean, std=std
    )
    frames = frames_of(datasets)
    training, validation = split_frames(frames, config.split, config.pairs.reach_m, config.seed)
    for dataset in datasets:
        if repeated := describe_repeated(dataset):
            logger.warning(repeated)
    fitted = np.stack(
        [
            fit_image(
                require_shape(image.decode(levels=levels), camera, frame.name),
                preprocessing,
                camera,
            )
            for dataset in datasets
            for frame, image in zip(dataset.frames, dataset.read_images(), strict=True)
        ]
    )
    _check_contrast(fitted, frames)
    poses = poses_of(frames)
    _, sessions = np.unique([frame.session for frame in frames], return_inverse=True)
    stamps_ns = np.array([frame.stamp_ns for frame in frames], np.int64)
    term = config.losses.reprojection
    points = _scene_points(datasets, term.points, config.seed) if term.enabled else None

    def subset(chosen: NDArray[np.int64]) -> PreparedImages:
        chosen_points = None if points is None else points[chosen]
        return PreparedImages(
            fitted[chosen], poses[chosen], sessions[chosen], stamps_ns[chosen], chosen_points
        )

    positions = poses[training, :3, 3]
    origin_m = positions.mean(axis=0)
    scale_m = max(SMALLEST_SCALE_M, float((positions - origin_m).std(axis=0).max()))
    return PreparedData(
        training=subset(training),
        validation=subset(validation),
        camera=camera,
        map_frame=datasets[0].map_frame,
        preprocessing=preprocessing,
        origin_m=origin_m,
        scale_m=scale_m,
        anchors_K3=spread_anchors(
            (positions - origin_m) / scale_m, config.network.anchors, config.seed
        ),
        labels=labels,
        extent=extent,
        fingerprint=fingerprint(recorded),
        session_fingerprints=prints,
        source=", ".join(Path(path).name for path in config.datasets),
    )


def uncropped_height(width: int, camera: Camera) -> int:
    """The height of a network's input that shows the whole image of a camera, pixels: a multiple of 8, at least 32.

    Of an image of another aspect than the rounded one, a few rows or columns are cropped. Raises DatasetError if the
    height is too large.
    """
    height = max(32, HEIGHT_STEP * round(width * camera.height / camera.width / HEIGHT_STEP))
    if height > LARGEST_SIDE:
        raise DatasetError(
            f"an input of {width} pixels width would be {height} high for images of {camera.width}x{camera.height}: "
            "give a smaller --width, or a --height"
        )
    return height


def normalisation_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation per RGB channel that a backbone's weights expect.

    name: of a timm model. Both are for pixel values in 0..1; a model without stored values gets 0.5.
    """
    configuration = timm.get_pretrained_cfg(name)
    if configuration is None:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return tuple(configuration.mean), tuple(configuration.std)


def _check_contrast(image_NHW3: NDArray[np.uint8], frames: Sequence[Frame]) -> None:
    """Warn of images that show nothing. Raises DatasetError if these are most of them."""
    blank = [i for i, image in enumerate(image_NHW3) if np.ptp(image) < FEWEST_LEVELS]
    if not blank:
        return
    text = (
        f"{len(blank)} of {len(frames)} images have no contrast ({frames[blank[0]].name}, ...): a covered lens, a wrong "
        "exposure or a wrong encoding"
    )
    if len(blank) > LARGEST_BLANK_SHARE * len(frames):
        raise DatasetError(f"{text}: look at them with `rgsiam inspect`, and record again")
    logger.warning("%s", text)


class PairImages(TorchDataset):
    """Images and normalised true poses as a torch dataset.

    `rgsiam_training.data.pairs.PairSampler` draws the indices of each batch.
    """

    def __init__(self, images: PreparedImages, origin_m: Array, scale_m: float) -> None:
        self.image_NHW3 = torch.from_numpy(images.image_NHW3)
        translation = (images.T_map_camera_N44[:, :3, 3] - origin_m) / scale_m
        self.translation_N3 = torch.from_numpy(translation.astype(np.float32))
        quaternions_wxyz = quaternion_wxyz(images.T_map_camera_N44).astype(np.float32)
        self.quaternion_wxyz_N4 = torch.from_numpy(quaternions_wxyz)
        points = images.point_NP3
        if points is None:
            points = np.empty((len(quaternions_wxyz), 0, 3), np.float32)
        self.point_NP3 = torch.from_numpy(((points - origin_m) / scale_m).astype(np.float32))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_NHW3)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return a batch: indices ``(B,)``, BGR images ``(B, H, W, 3)`` uint8, normalised translations
        ``(B, 3)``, quaternions wxyz ``(B, 4)``, normalised scene points ``(B, P, 3)``.
        """
        return (
            torch.tensor(indices),
            self.image_NHW3[indices],
            self.translation_N3[indices],
            self.quaternion_wxyz_N4[indices],
            self.point_NP3[indices],
        )


def spread_anchors(positions_N3: Array, count: int, seed: int) -> NDArray[np.float32]:
    """Return at most `count` anchors ``(K, 3)`` that represent the positions, in the unit of the positions.

    They are the cluster centres of seeded k-means. If there are no more than `count` distinct positions, they
    are these positions.
    """
    distinct = np.unique(positions_N3, axis=0)
    if len(distinct) <= count:
        return distinct.astype(np.float32)
    centres, _ = kmeans2(distinct, count, minit="++", seed=seed, missing="raise")
    return centres.astype(np.float32)


def _scene_points(datasets: Sequence[Dataset], count: int, seed: int) -> Array:
    """Draw at most `count` of the points that each frame sees: ``(N, count, 3)``, padded with NaN."""
    random = np.random.default_rng(seed)
    rows = []
    for dataset in datasets:
        if not isinstance(dataset, PointDataset):
            raise DatasetError(
                f"{dataset.path} has no depth or scene points, which losses.reprojection needs: use "
                "a COLMAP or TUM RGB-D dataset or a bag with a depth topic, or set "
                "losses.reprojection.enabled to false"
            )
        for points in dataset.read_points():
            row = np.full((count, 3), np.nan)
            chosen = random.permutation(len(points))[:count]
            row[: len(chosen)] = points[chosen]
            rows.append(row)
    return np.stack(rows)
