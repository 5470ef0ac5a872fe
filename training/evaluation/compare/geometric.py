"""The preset `geometric`: this package's geometric branch, on a map of the training images."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.mapping.build import MapOptions, build_bundle
from rgsiam_training.config import TrainingConfig
from rgsiam_training.evaluation.compare.training_images import training_images


class GeometricBranchEstimator:
    """Localizes each image alone, as the vehicle does without an earlier pose."""

    parameters = 0
    """Nothing is trained on the scene."""

    def __init__(self, config: TrainingConfig, camera: Camera) -> None:
        """Build the map from the images that the other methods train on.

        camera: of the images to localize. Raises what `rgsiam_ros.mapping.build.build_bundle` raises.
        """
        with tempfile.TemporaryDirectory() as folder:
            bundle = build_bundle(
                training_images(config), Path(folder) / "map", MapOptions(seed=config.seed)
            )
        self._relocalizer = Relocalizer.from_bundle(
            bundle, EngineOptions(fallback="none"), frozen_images=0
        )
        self._relocalizer.use_camera(camera)

    def estimate(self, image_HW3: NDArray[np.uint8]) -> Array | None:
        """See `rgsiam_training.evaluation.compare.estimators.PoseEstimator`; None for a lost pose."""
        self._relocalizer.forget()
        estimate = self._relocalizer.estimate(image_HW3)
        return None if estimate.lost else estimate.T_map_camera
