"""What every inference engine offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.errors import EngineError

Buffers = dict[str, NDArray[np.float32]]
Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class EngineInfo:
    """What runs, said plainly enough for a log and a results file."""

    name: str
    version: str
    device: str
    precision: str


@dataclass(frozen=True)
class EngineRequest:
    """A network and how it shall run."""

    onnx_bytes: bytes
    precision: Precision = "float32"
    """What the network was made for; an engine computes in exactly this, or refuses."""
    threads: int = 0
    """CPU threads for one inference; 0 lets the engine choose."""
    batch: int = 1
    """Images of one inference, where the network's batch is open."""
    cache: Path | None = None
    """Folder of built engines; None: the user's own, see `rgsiam_ros.engines.cache`."""


class Engine(Protocol):
    """A loaded network with fixed buffers."""

    def infer(self, inputs: Tensors) -> Buffers:
        """Named outputs for named inputs, all float32 and of fixed shapes.

        The arrays returned are the engine's own buffers: the next call overwrites them. Raises
        EngineError.
        """
        ...

    def describe(self) -> EngineInfo:
        """Engine, version, device and precision in use."""
        ...

    def close(self) -> None:
        """Release memory and threads; the engine must not be used afterwards."""
        ...


def fixed_shape(shape: Sequence[int | str | None], batch: int) -> tuple[int, ...]:
    """A network's shape with its open dimension, which is the batch, filled in."""
    return tuple(size if isinstance(size, int) and size > 0 else batch for size in shape)


def fill(buffers: Buffers, inputs: Tensors) -> None:
    """Copy inputs to an engine's buffers. EngineError for a missing, unknown or misshapen one."""
    if inputs.keys() != buffers.keys():
        raise EngineError(f"the network takes {', '.join(buffers)}, not {', '.join(inputs)}")
    for name, buffer in buffers.items():
        value = inputs[name]
        if value.shape != buffer.shape:
            raise EngineError(f"input {name} has shape {value.shape}, not {buffer.shape}")
        np.copyto(buffer, value)


def refuse_precision(name: str, precision: str, possible: Sequence[str]) -> None:
    """EngineError unless the engine can compute in this precision."""
    if precision not in possible:
        raise EngineError(
            f"engine {name} does not compute in {precision}, only in {', '.join(possible)}"
        )
