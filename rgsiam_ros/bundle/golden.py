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
MAP_INDEX = "map_index_NK"
RELATIVE_PREFIX = "relative_"
ABSOLUTE_OUTPUTS = (
    network_io.TRANSLATION,
    network_io.ROTATION,
    network_io.PRECISION_FACTOR,
    network_io.METRIC_FEATURE,
    network_io.LOCAL_MAP,
)
RELATIVE_OUTPUTS = (network_io.TRANSLATION, network_io.ROTATION, network_io.INFORMATION)


@dataclass(frozen=True)
class GoldenImages:
    """N images at the network's input size, before normalisation, and their expected outputs."""

    image_NHW3: NDArray[np.uint8]
    """``(N, H, W, 3)``, BGR."""
    absolute: dict[str, NDArray[np.float32]]
    """Outputs of ``absolute.onnx`` by name, see `rgsiam_ros.bundle.network_io`; ``(N, ...)`` each."""
    map_index_NK: NDArray[np.int64] | None = None
    """Indices ``(N, K)`` of the map images whose poses are nearest to each image, for ``relative.onnx``."""
    relative: dict[str, NDArray[np.float32]] | None = None
    """Outputs of ``relative.onnx`` for these map images, by name; ``(N, K, ...)`` each."""

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
        relative, map_index = None, arrays.get(MAP_INDEX)
        if map_index is not None:
            names = {n: RELATIVE_PREFIX + n for n in RELATIVE_OUTPUTS}
            missing = [name for name in names.values() if name not in arrays]
            if missing:
                raise ValueError(f"array {missing[0]!r} is missing")
            is_table = map_index.ndim == 2 and np.issubdtype(map_index.dtype, np.integer)
            if not is_table or map_index.min(initial=0) < 0:
                raise ValueError(f"array {MAP_INDEX!r} does not hold a table of indices")
            relative = {n: arrays[name].astype(np.float32) for n, name in names.items()}
            map_index = map_index.astype(np.int64)
        for name, values in {**absolute, **(relative or {}), MAP_INDEX: map_index}.items():
            if values is not None and len(values) != len(image):
                raise ValueError(f"array {name!r} holds {len(values)} rows for {len(image)} images")
        return cls(image, absolute, map_index, relative)

    def check(self, shapes: Mapping[str, tuple[int, ...]], neighbours: int, images: int) -> None:
        """Raise ValueError if the outputs do not fit the bundle's networks and map.

        shapes: shape of each output of ``absolute.onnx`` for one image; neighbours: number of map images that
        ``relative.onnx`` takes; images: number of map images. Both are 0 for a bundle without a map.
        """
        if set(self.absolute) != set(shapes):
            raise ValueError(
                f"it holds the outputs {', '.join(self.absolute)}, but absolute.onnx gives "
                f"{', '.join(shapes)}"
            )
        N = len(self.image_NHW3)
        wanted = {name: (N, *shape) for name, shape in shapes.items()}
        found = {name: value.shape for name, value in self.absolute.items()}
        if neighbours:
            if self.map_index_NK is None or self.relative is None:
                raise ValueError("the outputs of relative.onnx are missing")
            if self.map_index_NK.shape != (N, neighbours) or self.map_index_NK.max() >= images:
                raise ValueError(
                    f"array {MAP_INDEX!r} does not index {neighbours} of the map's {images} images"
                )
            tails = {
                network_io.TRANSLATION: (3,),
                network_io.ROTATION: (4,),
                network_io.INFORMATION: (6, 6),
            }
            wanted |= {RELATIVE_PREFIX + n: (N, neighbours, *tails[n]) for n in RELATIVE_OUTPUTS}
            found |= {RELATIVE_PREFIX + n: value.shape for n, value in self.relative.items()}
        for name, shape in wanted.items():
            if found[name] != shape:
                raise ValueError(f"array {name!r} has shape {found[name]}, not {shape}")

    def to_arrays(self) -> dict[str, NDArray]:
        """The arrays of ``golden_images.npz``, by name."""
        arrays: dict[str, NDArray] = {IMAGES: self.image_NHW3, **self.absolute}
        if self.map_index_NK is not None and self.relative is not None:
            arrays[MAP_INDEX] = self.map_index_NK
            arrays |= {RELATIVE_PREFIX + name: value for name, value in self.relative.items()}
        return arrays
