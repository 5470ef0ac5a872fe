"""What an engine must run to serve a branch of a bundle, and how its outputs are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.parts import Differences
from rgsiam_ros.bundle.precision import Precision, absolute_name
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines.base import Engine, Tensors
from rgsiam_ros.engines.self_test import measure_golden_images


@dataclass(frozen=True)
class ServedNetwork:
    """The network of the branch in use."""

    offered: tuple[Precision, ...]
    """The bundle's precisions of the network."""
    file: Callable[[Precision], str]
    """The bundle's file with the network in a precision."""
    measure: Callable[[Engine], Differences]
    """Differences of the engine's outputs for the golden images. Raises EngineError."""
    tolerance: Mapping[Precision, Differences]
    example: Callable[[], Tensors]
    """Inputs for one image, to measure the network's time."""


def absolute_network(bundle: Bundle, batch: int = 1) -> ServedNetwork:
    """The network of the absolute branch. Raises BundleError."""
    part = bundle.manifest.absolute_part

    def example() -> Tensors:
        image = normalise(bundle.golden.image_NHW3[0], part.preprocessing)
        return {network_io.IMAGE: image[None]}

    return ServedNetwork(
        offered=part.precisions,
        file=absolute_name,
        measure=lambda engine: measure_golden_images(engine, bundle, batch),
        tolerance={precision: variant.tolerance for precision, variant in part.variants.items()},
        example=example,
    )
