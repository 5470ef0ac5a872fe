"""The local features of some frames of a recording, for what is estimated before a map is built."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.features.keypoints import Keypoints
from rgsiam_ros.features.network import feature_preprocessing, intrinsics, network_for
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.mapping.extraction import Extractor
from rgsiam_ros.mapping.precisions import REFERENCE_ENGINE
from rgsiam_ros.mapping.progress import Advance
from rgsiam_ros.recordings.base import Dataset, common_camera
from rgsiam_ros.recordings.levels import levels_of, with_levels
from rgsiam_ros.recordings.subset import Subset

KEYPOINTS = 600
"""Most keypoints of an image."""


def sample_features(
    datasets: Sequence[Dataset], chosen_F: NDArray[np.int64], advance: Advance
) -> tuple[list[Keypoints], Array, tuple[int, int]]:
    """The local features of F frames, and the intrinsic matrix and the size of the image that has their pixels.

    chosen_F: rising indices of frames of all datasets, one after the other; advance: called for each. The datasets are of
    one camera, see `common_camera`. Raises DatasetError if an image cannot be read.
    """
    camera, levels = common_camera(datasets), levels_of(datasets)
    preprocessing = feature_preprocessing(camera, levels=levels)
    engine = create_engine(REFERENCE_ENGINE, EngineRequest(network_for(preprocessing)))
    keypoints, start = [], 0
    try:
        extractor = Extractor(engine, camera, preprocessing, KEYPOINTS)
        for dataset in datasets:
            own_F = chosen_F[(chosen_F >= start) & (chosen_F < start + len(dataset.frames))]
            images = Subset(with_levels(dataset, levels), own_F - start).read_images()
            for _, found in extractor.each(image.decode() for image in images):
                keypoints.append(found)
                advance(1)
            start += len(dataset.frames)
    finally:
        engine.close()
    size_wh = preprocessing.input_width, preprocessing.input_height
    return keypoints, intrinsics(camera, preprocessing), size_wh
