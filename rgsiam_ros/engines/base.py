"""The interface of all inference engines, and helpers that they share."""

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
    """The engine in use, for logs and results files."""

    name: str
    version: str
    device: str
    precision: str


@dataclass(frozen=True)
class EngineRequest:
    """A network and the settings to run it with."""

    onnx_bytes: bytes
    precision: Precision = "float32"
    """Precision that the network was made for. An engine computes in exactly this precision, or refuses."""
    threads: int = 0
    """Number of CPU threads for one inference; 0 lets the engine choose."""
    batch: int = 1
    """Number of images in one inference, for networks with an open batch dimension."""
    cache: Path | None = None
    """Folder of built engines; None: the user's cache folder, see `rgsiam_ros.engines.cache`."""


class Engine(Protocol):
    """A loaded network with fixed buffers."""

    def infer(self, inputs: Tensors) -> Buffers:
        """Run the network: named outputs for named inputs, all float32 and of fixed shapes.

        The returned arrays are the engine's buffers, which the next call overwrites. Raises EngineError.
        """
        ...

    def describe(self) -> EngineInfo:
        """Return engine, version, device and precision in use."""
        ...

    def close(self) -> None:
        """Release memory and threads. The engine must not be used afterwards."""
        ...


def fixed_shape(shape: Sequence[int | str | None], batch: int) -> tuple[int, ...]:
    """Return a tensor's shape with `batch` in place of the open dimension."""
    return tuple(size if isinstance(size, int) and size > 0 else batch for size in shape)


def fill(buffers: Buffers, inputs: Tensors) -> None:
    """Copy inputs to an engine's buffers. Raises EngineError when names or shapes differ."""
    if inputs.keys() != buffers.keys():
        raise EngineError(f"the network takes {', '.join(buffers)}, not {', '.join(inputs)}")
    for name, buffer in buffers.items():
        value = inputs[name]
        if value.shape != buffer.shape:
            raise EngineError(f"input {name} has shape {value.shape}, not {buffer.shape}")
        np.copyto(buffer, value)


def refuse_precision(name: str, precision: str, possible: Sequence[str]) -> None:
    """Raise EngineError unless the engine can compute in this precision."""
    if precision not in possible:
        raise EngineError(
            f"engine {name} does not compute in {precision}, only in {', '.join(possible)}: choose one "
            "of these, or another engine"
        )
