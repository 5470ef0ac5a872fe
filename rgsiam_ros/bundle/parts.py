"""The absolute part of a manifest, and what both parts have. The geometric part: `geometric_part`."""

from __future__ import annotations

from collections.abc import Container
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rgsiam_ros.bundle.precision import PRECISIONS, Precision
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.geometry.poses import pose_matrix
from rgsiam_ros.geometry.units import length_text
from rgsiam_ros.uncertainty.covariance import check_covariance
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS, ErrorLimits, limits_for

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Metres = Annotated[float, Field(ge=-1e7, le=1e7)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StrictModel(BaseModel):
    """Data that cannot change, with no other fields than the declared ones, and with finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Placement(StrictModel):
    """Where the frame of training, or that of the map's points, lies in the map frame."""

    origin_m: tuple[Metres, Metres, Metres]
    turn_wxyz: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Unit quaternion: rotation from that frame to the map's axes. `rgsiam georeference` sets it."""

    @field_validator("turn_wxyz")
    @classmethod
    def _unit(cls, turn_wxyz: tuple[float, ...]) -> tuple[float, ...]:
        pose_matrix(np.zeros(3), turn_wxyz)
        return turn_wxyz


class Target(Placement):
    """What the network's outputs mean in the map frame.

    The position is ``origin_m + turn * (scale_m * x)`` metres for the translation output ``x``. The rotation
    is ``turn * R`` for the rotation output ``R``.
    """

    scale_m: float = Field(gt=0.0, le=1e6)


class Network(StrictModel):
    """The format of the rotation output, and how the network was made. The latter is only for people."""

    backbone: str
    rotation: Literal["quaternion_wxyz"] = "quaternion_wxyz"
    opset: int = Field(ge=11, le=64)
    exported_with: str


class RetrievalErrors(StrictModel):
    """Errors of the pose of the most similar map image, on the same held-out images. None: not measured."""

    retrieval_median_m: NotNegative | None = None
    retrieval_median_deg: NotNegative | None = None


class Validation(RetrievalErrors):
    """Errors on held-out stretches of the *training* sessions. This is no test result."""

    frames: int = Field(ge=1)
    median_m: NotNegative
    mean_m: NotNegative
    p95_m: NotNegative
    median_deg: NotNegative
    mean_deg: NotNegative
    p95_deg: NotNegative
    export_difference_m: NotNegative
    """Largest difference of the exported network from torch in float32, over the validation frames."""
    export_difference_deg: NotNegative


MatrixRow = tuple[float, float, float, float, float, float]


class ResidualCovariance(StrictModel):
    """Constant covariance, computed from the errors on the validation frames."""

    axes: Literal["camera"] = "camera"
    """The fixed axes of the camera's optical frame. Each estimate rotates the matrix into map axes."""
    matrix: tuple[MatrixRow, MatrixRow, MatrixRow, MatrixRow, MatrixRow, MatrixRow]
    """Order x y z rotX rotY rotZ; metres and radians."""

    @field_validator("matrix")
    @classmethod
    def _positive_definite(cls, matrix: tuple[MatrixRow, ...]) -> tuple[MatrixRow, ...]:
        check_covariance(matrix)
        return matrix


class Retrieval(StrictModel):
    """How the map images' metric features are used. It needs map features.

    The distances of a live image's metric feature to those of its *neighbours*, the most similar map images,
    tell how far an absolute pose can be trusted.
    """

    neighbours: int = Field(ge=1, le=64)
    """Number of map images that each live image is compared with."""
    reach_m: float = Field(gt=0.0, le=1e4)
    """Largest distance between two cameras whose views overlap."""
    metres_per_radian: float = Field(gt=0.0, le=1e4)
    """Metres that count as much as a rotation by one radian."""
    map_images: int = Field(ge=1)


class Differences(StrictModel):
    """Largest differences of what an engine gives for the golden images from what the bundle states.

    The same type holds the tolerances. None: the network has no such output.
    """

    position_m: NotNegative
    rotation_deg: NotNegative
    sigma: NotNegative | None = None
    """Relative difference of a standard deviation that the network predicts."""
    metric_feature: NotNegative | None = None
    """Length of the difference of two unit vectors."""


class Variant(StrictModel):
    """The absolute branch's network in one precision, as the export accepted it."""

    accepted_with: str
    """The engine that ran it at export."""
    tolerance: Differences
    """Differences from torch in float32 that an engine may have on the golden images."""
    kept_float32: tuple[str, ...] = ()
    """Convolutions that stay in float32, because accuracy required it."""
    validation: Validation
    covariance: ResidualCovariance


class LabelCorrection(StrictModel):
    """How the labels and the camera of the mapping sessions were corrected before they were used."""

    time_offset_s: float = Field(default=0.0, ge=-10.0, le=10.0)
    """The labels were moved by this: an image shows where the camera was this many seconds before its stamp."""
    time_offset_from: Literal["none", "given", "estimated"] = "none"
    """Who says so: the user, or the images."""
    time_offset_interval_s: tuple[float, float] | None = None
    """95 % interval that the images give; None if it was not estimated."""
    focal_scale: float = Field(default=1.0, gt=0.4, lt=2.5)
    """The focal length of `Manifest.camera` is this many times the stated one. The live camera's is multiplied
    by it too."""
    focal_scale_interval: tuple[float, float] | None = None
    """95 % interval that the images give; None if it was not estimated."""

    def offset_or(self, wanted: float | Literal["auto"]) -> float:
        """The wanted time offset, seconds; for auto, the one that the labels were moved by."""
        return self.time_offset_s if wanted == "auto" else wanted


class MapExtent(StrictModel):
    """How large the mapped place is, and which errors are right and wrong there."""

    map_scale_m: Positive | None = None
    """A camera that moves sideways by this still sees half of its points, see `rgsiam_ros.mapping.map_scale`.
    None if it is unknown."""
    right_m: Positive = OUTDOORS.right_m
    """Position error within which a pose counts as right, metres."""
    wrong_m: Positive = OUTDOORS.wrong_m
    """Position error beyond which a pose counts as wrong, metres."""

    @classmethod
    def of_scale(cls, map_scale_m: float | None) -> MapExtent:
        """The limits follow from the scale."""
        return cls(map_scale_m=map_scale_m, **vars(limits_for(map_scale_m)))

    @property
    def limits(self) -> ErrorLimits:
        """Which errors are right, and which are wrong."""
        return ErrorLimits(self.right_m, self.wrong_m)

    def describe(self) -> str:
        """The scale and the limits in words."""
        scale = "unknown" if self.map_scale_m is None else length_text(self.map_scale_m)
        return f"map scale {scale}: {self.limits.describe()}"


class AbsolutePart(MapExtent, LabelCorrection):
    """The absolute branch: the network's pose."""

    preprocessing: Preprocessing
    target: Target
    network: Network
    retrieval: Retrieval | None = None
    """None for a network without a metric feature."""
    variants: dict[Precision, Variant]
    """What the export accepted. ``float32`` is always there."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that it offers, float32 first."""
        return in_order(self.variants)

    @model_validator(mode="after")
    def _variants_are_whole(self) -> AbsolutePart:
        check_float32(self.variants)
        return self


def in_order(variants: Container[Precision]) -> tuple[Precision, ...]:
    """Precisions in the order of `PRECISIONS`."""
    return tuple(precision for precision in PRECISIONS if precision in variants)


def check_float32(variants: Container[Precision]) -> None:
    """Raises ValueError without float32."""
    if "float32" not in variants:
        raise ValueError("variants does not list float32, which every bundle needs")
