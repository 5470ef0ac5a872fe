"""What an engine must run to serve a branch of a bundle, and how its outputs are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.manifest import RELATIVE_NAME
from rgsiam_ros.bundle.parts import Differences
from rgsiam_ros.bundle.precision import Precision, absolute_name
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines.base import Engine, Tensors
from rgsiam_ros.engines.self_test import measure_golden_images


@dataclass(frozen=True)
class ServedNetworks:
    """The networks of the branch in use. The *main* network takes the image."""

    offered: tuple[Precision, ...]
    """The precisions of the main network."""
    file: Callable[[Precision], str]
    """The bundle's file with the main network in a precision."""
    relative_file: str | None
    """The bundle's file with the relative unit, which is run in float32; None if it is not in use."""
    measure: Callable[[Engine, Engine | None], Differences]
    """Differences of the poses that the engines give for the golden images. Raises EngineError."""
    tolerance: Mapping[Precision, Differences]
    example: Callable[[], Tensors]
    """Inputs of the main network for one image, to measure its time."""


def absolute_networks(bundle: Bundle, *, refine: bool, batch: int = 1) -> ServedNetworks:
    """The networks of the absolute branch, and with `refine` the relative unit. Raises BundleError."""
    part = bundle.manifest.absolute_part

    def example() -> Tensors:
        image = normalise(bundle.golden.image_NHW3[0], part.preprocessing)
        return {network_io.IMAGE: image[None]}

    return ServedNetworks(
        offered=part.precisions,
        file=absolute_name,
        relative_file=RELATIVE_NAME if refine else None,
        measure=lambda main, relative: measure_golden_images(main, relative, bundle, batch),
        tolerance={precision: variant.tolerance for precision, variant in part.variants.items()},
        example=example,
    )
