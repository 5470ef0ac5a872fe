"""What every inference engine offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Outputs = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class EngineInfo:
    """What runs, said plainly enough for a log and a results file."""

    name: str
    version: str
    device: str
    precision: str


class Engine(Protocol):
    """A loaded network with one image input."""

    def infer(self, image_13HW: NDArray[np.float32]) -> Outputs:
        """Named outputs for one preprocessed image. Raises EngineError."""
        ...

    def describe(self) -> EngineInfo:
        """Engine, version, device and precision in use."""
        ...

    def close(self) -> None:
        """Release memory and threads; the engine must not be used afterwards."""
        ...
