"""Golden images: a few of the user's own, with the answers that torch gave in float32.

They let an engine prove, on the machine it runs on, that it computes what was trained.
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
    """N images at the network's input size, before normalisation, and what they must give."""

    image_NHW3: NDArray[np.uint8]
    """BGR."""
    absolute: dict[str, NDArray[np.float32]]
    """Outputs of ``absolute.onnx`` by name, see `rgsiam_ros.bundle.network_io`; ``(N, ...)`` each."""
    map_index_NK: NDArray[np.int64] | None = None
    """Map images for ``relative.onnx``: those that stand nearest to each image."""
    relative: dict[str, NDArray[np.float32]] | None = None
    """Outputs of ``relative.onnx`` for those; ``(N, K, ...)`` each."""

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray], preprocessing: Preprocessing
    ) -> GoldenImages:
        """From the arrays of ``golden_images.npz``. Raises ValueError, saying what is wrong."""
        missing = [
            n for n in (IMAGES, network_io.TRANSLATION, network_io.ROTATION) if n not in arrays
        ]
        if missing:
            raise ValueError(f"array {missing[0]!r} is missing")
        image = arrays[IMAGES]
        size = (preprocessing.input_height, preprocessing.input_width, 3)
        if image.dtype != np.uint8 or image.shape[1:] != size or not len(image):
            raise ValueError(f"images of {image.dtype} {image.shape} are not the network's input")
        absolute = {n: arrays[n].astype(np.float32) for n in ABSOLUTE_OUTPUTS if n in arrays}
        relative, map_index = None, arrays.get(MAP_INDEX)
        if map_index is not None:
            names = {n: RELATIVE_PREFIX + n for n in RELATIVE_OUTPUTS}
            missing = [name for name in names.values() if name not in arrays]
            indices = map_index.ndim == 2 and np.issubdtype(map_index.dtype, np.integer)
            if missing or not indices or map_index.min(initial=0) < 0:
                raise ValueError(f"{MAP_INDEX!r} has no answers, or is no table of indices")
            relative = {n: arrays[name].astype(np.float32) for n, name in names.items()}
            map_index = map_index.astype(np.int64)
        for name, values in {**absolute, **(relative or {}), MAP_INDEX: map_index}.items():
            if values is not None and len(values) != len(image):
                raise ValueError(f"array {name!r} holds {len(values)} for {len(image)} images")
        return cls(image, absolute, map_index, relative)

    def check(self, shapes: Mapping[str, tuple[int, ...]], neighbours: int, images: int) -> None:
        """Raises ValueError unless the answers are those of networks that give outputs of these shapes.

        shapes: of one image, of all that ``absolute.onnx`` gives; neighbours, images: of the map, 0
        without one.
        """
        if set(self.absolute) != set(shapes):
            raise ValueError(f"answers are of {', '.join(self.absolute)}, not {', '.join(shapes)}")
        N = len(self.image_NHW3)
        wanted = {name: (N, *shape) for name, shape in shapes.items()}
        found = {name: value.shape for name, value in self.absolute.items()}
        if neighbours:
            if self.map_index_NK is None or self.relative is None:
                raise ValueError("the relative unit's answers are missing")
            if self.map_index_NK.shape != (N, neighbours) or self.map_index_NK.max() >= images:
                raise ValueError("the indices are not of this map")
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
        """As they are stored."""
        arrays: dict[str, NDArray] = {IMAGES: self.image_NHW3, **self.absolute}
        if self.map_index_NK is not None and self.relative is not None:
            arrays[MAP_INDEX] = self.map_index_NK
            arrays |= {RELATIVE_PREFIX + name: value for name, value in self.relative.items()}
        return arrays
