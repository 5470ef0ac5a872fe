"""Find the local features of recorded images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import ImageBGR, Preprocessing, check_image, fit_image
from rgsiam_ros.engines import Engine
from rgsiam_ros.features.keypoints import IMAGE, Keypoints, extract
from rgsiam_ros.features.network import grey, network_input


class Extractor:
    """The local features' network with the preprocessing of one camera."""

    def __init__(
        self, engine: Engine, camera: Camera, preprocessing: Preprocessing, most: int
    ) -> None:
        """most: largest number of keypoints of an image."""
        self._engine, self.camera, self._preprocessing = engine, camera, preprocessing
        self._most = most

    def fit(self, image_HW3: ImageBGR) -> NDArray[np.uint8]:
        """The image in grey at the network's size. Raises ImageError."""
        return fit_image(grey(check_image(image_HW3)), self._preprocessing, self.camera)

    def keypoints(self, fitted_HW: NDArray[np.uint8]) -> Keypoints:
        """The keypoints of a grey image of the network's size. Raises EngineError."""
        return extract(self._engine.infer({IMAGE: network_input(fitted_HW)}), self._most)

    def each(self, images: Iterable[ImageBGR]) -> Iterator[tuple[NDArray[np.uint8], Keypoints]]:
        """Each image in grey at the network's size, and its keypoints."""
        for image in images:
            fitted = np.ascontiguousarray(self.fit(image))
            yield fitted, self.keypoints(fitted)
