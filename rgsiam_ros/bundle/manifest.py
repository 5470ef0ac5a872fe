"""The manifest of a bundle: a validated, typed description of everything in it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rgsiam_ros.bundle.precision import (
    PRECISIONS,
    Precision,
    absolute_name,
    calibration_name,
    map_features_name,
)
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.geometry.geodesy import Datum
from rgsiam_ros.geometry.poses import pose_matrix
from rgsiam_ros.uncertainty.covariance import check_covariance

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.yaml"
ABSOLUTE_NAME = "absolute.onnx"
RELATIVE_NAME = "relative.onnx"
MAP_FEATURES_NAME = "map_features.npz"
GOLDEN_NAME = "golden_images.npz"

MEBIBYTE = 1024 * 1024
MOST_FILES = 32

PLACES: dict[str, tuple[str, int]] = {
    "absolute": (r"absolute(\.[a-z0-9_]+)?\.onnx", 512 * MEBIBYTE),
    "relative": (r"relative\.onnx", 512 * MEBIBYTE),
    "map_features": (r"map_features(\.[a-z0-9_]+)?\.npz", 2048 * MEBIBYTE),
    "calibration": (r"calibration\.[a-z0-9_]+\.npz", 16 * MEBIBYTE),
    "golden_images": (r"golden_images\.npz", 64 * MEBIBYTE),
    "mask": (r"mask\.png", 64 * MEBIBYTE),
}
"""For each role of a file: a regular expression for its name (with the precision before the ending), and its
largest size in bytes. Every bundle has files of the roles ``absolute`` and ``golden_images``."""

FrameId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_/.-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Metres = Annotated[float, Field(ge=-1e7, le=1e7)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Target(_Part):
    """What the network's outputs mean in the map frame.

    The position is ``origin_m + turn * (scale_m * x)`` metres for the translation output ``x``. The rotation
    is ``turn * R`` for the rotation output ``R``.
    """

    origin_m: tuple[Metres, Metres, Metres]
    turn_wxyz: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Unit quaternion: rotation from the frame of training to the map's axes. `rgsiam georeference` sets
    it."""
    scale_m: float = Field(gt=0.0, le=1e6)

    @field_validator("turn_wxyz")
    @classmethod
    def _unit(cls, turn_wxyz: tuple[float, ...]) -> tuple[float, ...]:
        pose_matrix(np.zeros(3), turn_wxyz)
        return turn_wxyz


class Network(_Part):
    """The format of the rotation output, and how the network was made. The latter is only for people."""

    backbone: str
    rotation: Literal["quaternion_wxyz"] = "quaternion_wxyz"
    opset: int = Field(ge=11, le=64)
    exported_with: str


class TrainingData(_Part):
    """What the network was trained on."""

    fingerprint: Sha256
    """SHA-256 over the stored images, stamps and poses, see `rgsiam_ros.recordings.base.fingerprint`."""
    source: str
    frames: int = Field(ge=1)


class Validation(_Part):
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


class ResidualCovariance(_Part):
    """Constant covariance of a branch, computed from its errors on the validation frames."""

    axes: Literal["camera"] = "camera"
    """The fixed axes of the camera's optical frame. Each estimate rotates the matrix into map axes."""
    matrix: tuple[MatrixRow, MatrixRow, MatrixRow, MatrixRow, MatrixRow, MatrixRow]
    """Order x y z rotX rotY rotZ; metres and radians."""

    @field_validator("matrix")
    @classmethod
    def _positive_definite(cls, matrix: tuple[MatrixRow, ...]) -> tuple[MatrixRow, ...]:
        check_covariance(matrix)
        return matrix


class Refinement(_Part):
    """How the relative branch is used. It needs ``relative.onnx`` and map features."""

    neighbours: int = Field(ge=1, le=64)
    """Number of map images that each live image is aligned to."""
    reach_m: float = Field(gt=0.0, le=1e4)
    """Largest distance between two cameras for which the relative unit was trained."""
    metres_per_radian: float = Field(gt=0.0, le=1e4)
    """Metres that count as much as a rotation by one radian."""
    map_images: int = Field(ge=1)


class Differences(_Part):
    """Largest differences of a network's outputs from torch's in float32, on the golden images.

    The same type holds the tolerances. None: the network has no such output.
    """

    position_m: NotNegative
    rotation_deg: NotNegative
    sigma: NotNegative | None = None
    """Relative difference of a standard deviation that the network predicts."""
    metric_feature: NotNegative | None = None
    """Length of the difference of two unit vectors."""
    local_map: NotNegative | None = None
    """Length of the difference, divided by the length of the local map."""
    relative_position_m: NotNegative | None = None
    """Position difference of the relative unit's poses, over all neighbours. The input is torch's
    local map."""
    relative_rotation_deg: NotNegative | None = None
    """Rotation difference of the same poses."""
    relative_information: NotNegative | None = None
    """Norm of the difference, divided by the norm."""


class BranchFigures(_Part):
    """Errors of a branch on the held-out stretches, and its residual covariance."""

    validation: Validation
    covariance: ResidualCovariance


class Variant(_Part):
    """The networks in one precision, as the export accepted them."""

    accepted_with: str
    """The engine that ran them at export."""
    tolerance: Differences
    """Differences from torch in float32 that an engine may have on the golden images."""
    kept_float32: tuple[str, ...] = ()
    """Convolutions that stay in float32, because accuracy required it."""
    absolute: BranchFigures
    refined: BranchFigures | None = None
    """None for a bundle without a relative branch."""


class CalibrationSummary(_Part):
    """How a precision was calibrated, for people. The numbers are in ``calibration.PRECISION.npz``."""

    source: str
    """The recording or run that it was fitted on."""
    frames: int = Field(ge=1)
    """Number of poses, right and wrong, that it was fitted on."""
    false_accept_rate: float = Field(gt=0.0, lt=1.0)
    """Share of the wrong poses that is trusted. The threshold was chosen for this share."""
    accepted: Fraction
    """Share of the right poses that is trusted, in the branch that the vehicle uses by default."""
    wrong_m: float = Field(gt=0.0)
    """Smallest error of a wrong pose: metres, plus `Refinement.metres_per_radian` times the angle."""


class FileEntry(_Part):
    """One file beside the manifest."""

    role: str
    size: int = Field(ge=1)
    sha256: Sha256

    @field_validator("role")
    @classmethod
    def _known_role(cls, role: str) -> str:
        if role not in PLACES:
            raise ValueError(f"role {role!r} is none of {', '.join(PLACES)}")
        return role


class Manifest(_Part):
    """Everything that the vehicle must know about a bundle. See docs/bundle.md."""

    schema_version: Literal[2] = 2
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    created: str
    map_frame: FrameId = "map"
    datum: Datum | None = None
    preprocessing: Preprocessing
    camera: Camera
    target: Target
    network: Network
    training_data: TrainingData
    refinement: Refinement | None = None
    variants: dict[Precision, Variant]
    """What the export accepted. Every bundle has ``float32``."""
    calibrations: dict[Precision, CalibrationSummary] = Field(default_factory=dict)
    """Written by `rgsiam calibrate`. Without one the node publishes the residual covariance and is never
    lost."""
    files: dict[str, FileEntry] = Field(max_length=MOST_FILES)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that the bundle offers, float32 first."""
        return tuple(precision for precision in PRECISIONS if precision in self.variants)

    @model_validator(mode="after")
    def _files_are_in_their_places(self) -> Manifest:
        for name, entry in self.files.items():
            if name != name.split("/")[-1].split("\\")[-1] or name in (".", ".."):
                raise ValueError(f"file {name!r} has a path: only plain names are allowed")
            pattern, largest = PLACES[entry.role]
            if not re.fullmatch(pattern, name):
                raise ValueError(f"file {name!r} is not a name for the role {entry.role}")
            if entry.size > largest:
                raise ValueError(
                    f"file {name!r} claims {entry.size} bytes; the largest allowed for "
                    f"{entry.role} is {largest}"
                )
        for name in (ABSOLUTE_NAME, GOLDEN_NAME):
            if name not in self.files:
                raise ValueError(f"files does not list {name}, which every bundle needs")
        for name in (RELATIVE_NAME, MAP_FEATURES_NAME):
            if self.refinement is not None and name not in self.files:
                raise ValueError(f"refinement needs {name}, which files does not list")
        if self.preprocessing.mask is not None and self.preprocessing.mask not in self.files:
            raise ValueError(f"preprocessing names a mask {self.preprocessing.mask!r} not in files")
        return self

    @model_validator(mode="after")
    def _calibrations_are_there(self) -> Manifest:
        listed = {name for name, entry in self.files.items() if entry.role == "calibration"}
        for precision in self.calibrations:
            if precision not in self.precisions:
                raise ValueError(
                    f"calibrations lists {precision}, but the bundle has no {precision} network"
                )
        if listed != {calibration_name(precision) for precision in self.calibrations}:
            raise ValueError(
                "calibrations and the files with the role calibration do not fit together"
            )
        return self

    @model_validator(mode="after")
    def _variants_are_whole(self) -> Manifest:
        if "float32" not in self.variants:
            raise ValueError("variants does not list float32, which every bundle needs")
        for precision, variant in self.variants.items():
            if (variant.refined is None) != (self.refinement is None):
                raise ValueError(f"variant {precision} needs the figures of each branch")
            needed = [absolute_name(precision)]
            needed += [map_features_name(precision)] if self.refinement is not None else []
            for name in needed:
                if name not in self.files:
                    raise ValueError(f"variant {precision} needs {name}, which files does not list")
        return self
