"""Run the absolute branch over any number of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import network_io
from rgsiam_ros.engines.base import Engine


def infer_all(
    engine: Engine, image_N3HW: NDArray[np.float32], batch: int = 1
) -> dict[str, NDArray[np.float32]]:
    """Outputs of an engine for N images, by name, ``(N, ...)`` each.

    image_N3HW: normalised images; batch: the batch size that the engine was started with. An incomplete
    last batch is filled with copies of its last image. Raises EngineError.
    """
    batches: list[dict[str, NDArray[np.float32]]] = []
    for first in range(0, len(image_N3HW), batch):
        images = image_N3HW[first : first + batch]
        count = len(images)
        if count < batch:
            images = np.concatenate([images, np.repeat(images[-1:], batch - count, axis=0)])
        outputs = engine.infer({network_io.IMAGE: images})
        batches.append({name: value[:count].copy() for name, value in outputs.items()})
    return {name: np.concatenate([part[name] for part in batches]) for name in batches[0]}
