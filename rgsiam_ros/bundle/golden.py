"""Golden images: a few of the user's images, with the network outputs that torch computed in float32.

An engine is tested on them, on the machine that it runs on, see `rgsiam_ros.engines.self_test`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import network_io
from rgsiam_ros.camera.preprocessing import Preprocessing

IMAGES = "image_NHW3"
ABSOLUTE_OUTPUTS = (
    network_io.TRANSLATION,
    network_io.ROTATION,
    network_io.PRECISION_FACTOR,
    network_io.METRIC_FEATURE,
)


@dataclass(frozen=True)
class GoldenImages:
    """N images at the network's input size, before normalisation, and their expected outputs."""

    image_NHW3: NDArray[np.uint8]
    """``(N, H, W, 3)``, BGR."""
    absolute: dict[str, NDArray[np.float32]]
    """Outputs of ``absolute.onnx`` by name, see `rgsiam_ros.bundle.network_io`; ``(N, ...)`` each."""

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray], preprocessing: Preprocessing
    ) -> GoldenImages:
        """Read the arrays of ``golden_images.npz``. Raises ValueError, which says what is wrong."""
        missing = [
            n for n in (IMAGES, network_io.TRANSLATION, network_io.ROTATION) if n not in arrays
        ]
        if missing:
            raise ValueError(f"array {missing[0]!r} is missing")
        image = arrays[IMAGES]
        size = (preprocessing.input_height, preprocessing.input_width, 3)
        if image.dtype != np.uint8 or image.shape[1:] != size or not len(image):
            raise ValueError(
                f"images of shape {image.shape} and type {image.dtype} do not fit the network's input"
            )
        absolute = {n: arrays[n].astype(np.float32) for n in ABSOLUTE_OUTPUTS if n in arrays}
        for name, values in absolute.items():
            if len(values) != len(image):
                raise ValueError(f"array {name!r} holds {len(values)} rows for {len(image)} images")
        return cls(image, absolute)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise ValueError if the outputs do not fit the network.

        shapes: shape of each output of ``absolute.onnx`` for one image.
        """
        if set(self.absolute) != set(shapes):
            raise ValueError(
                f"it holds the outputs {', '.join(self.absolute)}, but absolute.onnx gives "
                f"{', '.join(shapes)}"
            )
        for name, shape in shapes.items():
            found = self.absolute[name].shape[1:]
            if found != shape:
                raise ValueError(f"array {name!r} has rows of shape {found}, not {shape}")

    def to_arrays(self) -> dict[str, NDArray]:
        """The arrays of ``golden_images.npz``, by name."""
        return {IMAGES: self.image_NHW3, **self.absolute}
