"""The manifest of a bundle: one validated, typed description of everything in it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rgsiam_ros.bundle.precision import (
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

SCHEMA_VERSION = 1
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
"""Role of a file in a bundle: the names it may have (precision before the ending) and its largest
size in bytes. Every role but ``absolute`` is optional."""

FrameId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_/.-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Metres = Annotated[float, Field(ge=-1e7, le=1e7)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Target(_Part):
    """The network's translation ``x`` means ``origin_m + turn * (scale_m * x)`` metres in the map
    frame, and its rotation ``R`` means ``turn * R``.
    """

    origin_m: tuple[Metres, Metres, Metres]
    turn_wxyz: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Rotation of what the network learnt into the map's axes (`rgsiam georeference` sets it)."""
    scale_m: float = Field(gt=0.0, le=1e6)

    @field_validator("turn_wxyz")
    @classmethod
    def _unit(cls, turn_wxyz: tuple[float, ...]) -> tuple[float, ...]:
        pose_matrix(np.zeros(3), turn_wxyz)
        return turn_wxyz


class Network(_Part):
    """Where the weights come from, for people; and how the rotation output is to be read."""

    backbone: str
    rotation: Literal["quaternion_wxyz"] = "quaternion_wxyz"
    opset: int = Field(ge=11, le=64)
    exported_with: str


class TrainingData(_Part):
    """What the network was trained on."""

    fingerprint: Sha256
    """SHA-256 over the images and poses used, see ``rgsiam_ros.recordings``."""
    source: str
    frames: int = Field(ge=1)


class Validation(_Part):
    """Errors on the held-out stretches of the *training* sessions; not a test result."""

    frames: int = Field(ge=1)
    median_m: NotNegative
    mean_m: NotNegative
    p95_m: NotNegative
    median_deg: NotNegative
    mean_deg: NotNegative
    p95_deg: NotNegative
    export_difference_m: NotNegative
    """Largest difference of the exported network to torch in float32, over the validation frames."""
    export_difference_deg: NotNegative


MatrixRow = tuple[float, float, float, float, float, float]


class ResidualCovariance(_Part):
    """Constant uncertainty of the absolute branch, from the errors on the validation frames."""

    axes: Literal["camera"] = "camera"
    """Fixed axes of the camera's optical frame; turned into map axes with each estimate."""
    matrix: tuple[MatrixRow, MatrixRow, MatrixRow, MatrixRow, MatrixRow, MatrixRow]
    """Order x y z rotX rotY rotZ; metres and radians."""

    @field_validator("matrix")
    @classmethod
    def _positive_definite(cls, matrix: tuple[MatrixRow, ...]) -> tuple[MatrixRow, ...]:
        check_covariance(matrix)
        return matrix


class Refinement(_Part):
    """How the relative branch is used, and how well it did. Needs relative.onnx and map_features.npz."""

    neighbours: int = Field(ge=1, le=64)
    """Map images that each live image is aligned to."""
    reach_m: float = Field(gt=0.0, le=1e4)
    """Largest distance of two cameras that the relative unit learnt to bridge."""
    metres_per_radian: float = Field(gt=0.0, le=1e4)
    map_images: int = Field(ge=1)
    validation: Validation
    """Of the refined branch, over the same frames."""
    covariance: ResidualCovariance
    """Of the refined branch."""


class Differences(_Part):
    """How far a network's answers are from those of torch in float32, on the golden images.

    As a tolerance: how far they may be. None where the network has no such answer.
    """

    position_m: NotNegative
    rotation_deg: NotNegative
    sigma: NotNegative | None = None
    """Of the network's own uncertainty: largest relative difference of a standard deviation."""
    metric_feature: NotNegative | None = None
    """Length of the difference of the unit vectors."""
    local_map: NotNegative | None = None
    """Length of the difference, relative to the length of the local map."""
    relative_position_m: NotNegative | None = None
    """Of the relative unit, given torch's local map: the largest over the map images."""
    relative_rotation_deg: NotNegative | None = None
    relative_information: NotNegative | None = None
    """Norm of the difference, relative to the norm."""


class BranchFigures(_Part):
    """How well a branch did on the held-out stretches, and its residual covariance."""

    validation: Validation
    covariance: ResidualCovariance


class Variant(_Part):
    """The absolute branch in a reduced precision, as it was accepted at export."""

    accepted_with: str
    """The engine that ran it then."""
    tolerance: Differences
    kept_float32: tuple[str, ...] = ()
    """Convolutions that were not quantised, because accuracy asked for it."""
    absolute: BranchFigures
    refined: BranchFigures | None = None


class CalibrationSummary(_Part):
    """How a precision was calibrated, for people; the numbers are in ``calibration.PRECISION.npz``."""

    source: str
    """What it was fitted on."""
    frames: int = Field(ge=1)
    """Poses, right and wrong, that it was fitted to."""
    false_accept_rate: float = Field(gt=0.0, lt=1.0)
    """Share of wrong poses that are believed, which the threshold was chosen for."""
    accepted: Fraction
    """Share of the right poses that are believed, of the branch that answers by default."""
    wrong_m: float = Field(gt=0.0)
    """From this error on a pose counts as wrong, rotation counted in with metres per radian."""


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
    """Everything the vehicle must know about a bundle. See docs/bundle.md."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    created: str
    map_frame: FrameId = "map"
    datum: Datum | None = None
    preprocessing: Preprocessing
    camera: Camera
    target: Target
    network: Network
    training_data: TrainingData
    validation: Validation
    covariance: ResidualCovariance
    refinement: Refinement | None = None
    tolerance: Differences | None = None
    """For float32. Every tolerance comes with the golden images; without them no engine is tested."""
    variants: dict[Precision, Variant] = Field(default_factory=dict)
    """What was accepted at export beside float32."""
    calibrations: dict[Precision, CalibrationSummary] = Field(default_factory=dict)
    """By `rgsiam calibrate`; without them the residual covariances are published, and nothing is held
    back."""
    files: dict[str, FileEntry] = Field(max_length=MOST_FILES)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """All that the bundle offers."""
        return ("float32", *self.variants)

    def tolerance_of(self, precision: Precision) -> Differences | None:
        """How far this precision may be from torch in float32; None in bundles of before."""
        return self.tolerance if precision == "float32" else self.variants[precision].tolerance

    def absolute_figures(self, precision: Precision) -> BranchFigures:
        """Of the absolute branch in this precision."""
        if precision == "float32":
            return BranchFigures(validation=self.validation, covariance=self.covariance)
        return self.variants[precision].absolute

    def refined_figures(self, precision: Precision) -> BranchFigures | None:
        """Of the refined branch in this precision, where there is one."""
        if self.refinement is None:
            return None
        if precision == "float32":
            part = self.refinement
            return BranchFigures(validation=part.validation, covariance=part.covariance)
        return self.variants[precision].refined

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
        if ABSOLUTE_NAME not in self.files:
            raise ValueError(f"files does not list {ABSOLUTE_NAME}, which every bundle needs")
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
                raise ValueError(f"there is a calibration of {precision}, but no such network")
        if listed != {calibration_name(precision) for precision in self.calibrations}:
            raise ValueError("calibrations and the files of that role do not fit together")
        return self

    @model_validator(mode="after")
    def _variants_are_whole(self) -> Manifest:
        if (self.tolerance is None) != (GOLDEN_NAME not in self.files):
            raise ValueError(f"tolerance and {GOLDEN_NAME} come together, or not at all")
        for precision, variant in self.variants.items():
            if precision == "float32":
                raise ValueError(
                    "float32 is not a variant: it is what the others are compared with"
                )
            if self.tolerance is None or (variant.refined is None) != (self.refinement is None):
                raise ValueError(
                    f"variant {precision} needs a tolerance, and both branches' figures"
                )
            needed = [absolute_name(precision)]
            needed += [map_features_name(precision)] if self.refinement is not None else []
            for name in needed:
                if name not in self.files:
                    raise ValueError(f"variant {precision} needs {name}, which files does not list")
        return self
