"""Images of a mapping session that show the same points, for the fine-tuning of the local features' network.

The session's known poses say which keypoints of two images are the same point: they are the observations of a
point that the map's own triangulation accepts.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rgsiam_ros.camera.preprocessing import check_image, fit_image
from rgsiam_ros.features.keypoints import DESCRIPTORS, HEAT, RELIABILITY, extract
from rgsiam_ros.features.network import (
    DEFAULT_WIDTH,
    feature_preprocessing,
    grey,
    intrinsics,
    network_input,
)
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.mapping.build import MAP_KEYPOINTS
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.mapping.matching import MapImage
from rgsiam_ros.mapping.points import make_points
from rgsiam_ros.mapping.progress import Progress, Silent
from rgsiam_ros.recordings.base import Dataset
from rgsiam_ros.recordings.subset import Subset
from rgsiam_training.features.network import LocalFeatureNetwork, ServedNetwork

ALL_POINTS = 100_000
"""Points for each image: more than any image has keypoints."""


def tuning_parts(datasets: Sequence[Dataset]) -> list[Dataset]:
    """The frames of each dataset that a map of all of them does not hold out. Raises DatasetError."""
    held_out = read_labels(datasets).held_out_N
    edges = np.cumsum([len(dataset.frames) for dataset in datasets])[:-1]
    parts = zip(datasets, np.split(held_out, edges), strict=True)
    return [Subset(dataset, np.flatnonzero(~held)) for dataset, held in parts]


class Scene:
    """The images of one session, and what they see."""

    def __init__(
        self,
        dataset: Dataset,
        official: LocalFeatureNetwork,
        width: int = DEFAULT_WIDTH,
        progress: Progress | None = None,
    ) -> None:
        """official: the network whose keypoints are matched; width: of the network's image, pixels."""
        preprocessing = feature_preprocessing(dataset.camera, width)
        self._preprocessing, self._camera = preprocessing, dataset.camera
        self.size_wh = preprocessing.input_width, preprocessing.input_height
        self._encoded: list[NDArray[np.uint8]] = []
        advance = (progress or Silent()).start("local features", len(dataset.frames))
        found = []
        for source in dataset.read_images():
            image = grey(check_image(source.decode()))
            self._encoded.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
            fitted = network_input(fit_image(image, preprocessing, dataset.camera))
            with torch.no_grad():
                values = ServedNetwork(official)(torch.from_numpy(fitted))
            named = zip((DESCRIPTORS, RELIABILITY, HEAT), values, strict=True)
            keypoints = extract({name: value.numpy() for name, value in named}, MAP_KEYPOINTS)
            found.append(MapImage.of(keypoints))
            advance(1)
        cloud = make_points(
            found,
            np.stack([frame.T_map_camera for frame in dataset.frames]),
            intrinsics(dataset.camera, preprocessing),
            self.size_wh,
            ALL_POINTS,
            progress or Silent(),
        )
        edges = np.searchsorted(cloud.image_V, np.arange(1, len(found)))
        self._point = np.split(cloud.point_V, edges)
        self._pixel = np.split(cloud.pixel_V2, edges)
        order = np.argsort(cloud.point_V, kind="stable")
        self._seen_by = np.split(
            cloud.image_V[order],
            np.searchsorted(cloud.point_V[order], np.arange(1, len(cloud.position_P3))),
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self._encoded)

    def image(self, index: int) -> NDArray[np.uint8]:
        """An image in grey, at the camera's resolution. Images are kept compressed, to save memory."""
        return cv2.imdecode(self._encoded[index], cv2.IMREAD_GRAYSCALE)  # type: ignore[return-value]

    def fitted(self, grey_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """An image of the camera's resolution at the network's size, without lens distortion."""
        return fit_image(grey_HW, self._preprocessing, self._camera).astype(np.float32)

    def partner(self, image: int, random: np.random.Generator) -> int:
        """An image that sees a random point of `image`; `image` itself if it sees none."""
        points = self._point[image]
        if not len(points):
            return image
        return int(random.choice(self._seen_by[int(random.choice(points))]))

    def shared(self, first: int, second: int) -> tuple[Array, Array]:
        """Pixels ``(M, 2)`` of the M points that both images see, of the network's size."""
        _, a, b = np.intersect1d(self._point[first], self._point[second], return_indices=True)
        return self._pixel[first][a], self._pixel[second][b]
