"""What every inference engine offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class EngineInfo:
    """What runs, said plainly enough for a log and a results file."""

    name: str
    version: str
    device: str
    precision: str


class Engine(Protocol):
    """A loaded network."""

    def infer(self, inputs: Tensors) -> dict[str, NDArray[np.float32]]:
        """Named outputs for named inputs. Raises EngineError."""
        ...

    def describe(self) -> EngineInfo:
        """Engine, version, device and precision in use."""
        ...

    def close(self) -> None:
        """Release memory and threads; the engine must not be used afterwards."""
        ...
