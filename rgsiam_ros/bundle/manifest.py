"""The manifest of a bundle: a validated, typed description of everything in it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from rgsiam_ros.bundle.geometric_part import GeometricPart
from rgsiam_ros.bundle.parts import (
    AbsolutePart,
    Fraction,
    LabelCorrection,
    Sha256,
    StrictModel,
)
from rgsiam_ros.bundle.precision import (
    Precision,
    absolute_name,
    calibration_name,
    local_features_name,
    map_features_name,
)
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import BundleError
from rgsiam_ros.geometry.geodesy import Datum
from rgsiam_ros.geometry.poses import pose_matrix
from rgsiam_ros.uncertainty.geometric_trust import ErrorLimits

SCHEMA_VERSION = 4
MANIFEST_NAME = "manifest.yaml"
ABSOLUTE_NAME = "absolute.onnx"
MAP_FEATURES_NAME = "map_features.npz"
GOLDEN_NAME = "golden_images.npz"
MAP_POINTS_NAME = "map_points.npz"
GOLDEN_VIEWS_NAME = "golden_views.npz"

MEBIBYTE = 1024 * 1024
MOST_FILES = 32

PLACES: dict[str, tuple[str, int]] = {
    "absolute": (r"absolute(\.[a-z0-9_]+)?\.onnx", 512 * MEBIBYTE),
    "map_features": (r"map_features(\.[a-z0-9_]+)?\.npz", 2048 * MEBIBYTE),
    "calibration": (r"calibration\.[a-z0-9_]+\.npz", 16 * MEBIBYTE),
    "golden_images": (r"golden_images\.npz", 64 * MEBIBYTE),
    "local_features": (r"local_features(\.[a-z0-9_]+)?\.onnx", 64 * MEBIBYTE),
    "map_points": (r"map_points\.npz", 2048 * MEBIBYTE),
    "golden_views": (r"golden_views\.npz", 64 * MEBIBYTE),
    "mask": (r"mask\.png", 64 * MEBIBYTE),
}
"""For each role of a file: a regular expression for its name (with the precision before the ending), and its
largest size in bytes."""
ROLES_OF_PARTS = {
    "absolute": ("absolute", "map_features", "calibration", "golden_images"),
    "geometry": ("local_features", "map_points", "golden_views"),
}
"""For each part of the manifest: the roles of files that only a bundle with this part has."""
LARGEST_TURN_DIFFERENCE = 1e-9
"""Largest difference of two turns that agree, in the elements of the rotation matrix."""

BUNDLE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""What the name of a bundle, and of its folder, looks like."""
FRAME_ID = r"^[A-Za-z0-9][A-Za-z0-9_/.-]{0,127}$"
FrameId = Annotated[str, Field(pattern=FRAME_ID)]


class MappingData(StrictModel):
    """What the map was built from."""

    fingerprint: Sha256
    """SHA-256 over the stored images, stamps and poses, see `rgsiam_ros.recordings.base.fingerprint`."""
    source: str
    frames: int = Field(ge=1)
    sessions: tuple[Sha256, ...] = ()
    """The same for each dataset alone; empty in older bundles."""


class CalibrationSummary(StrictModel):
    """How a precision was calibrated, for people. The numbers are in ``calibration.PRECISION.npz``."""

    source: str
    """The recording or run that it was fitted on."""
    frames: int = Field(ge=1)
    """Number of poses, right and wrong, that it was fitted on."""
    false_accept_rate: float = Field(gt=0.0, lt=1.0)
    """Share of the wrong poses that is trusted. The threshold was chosen for this share."""
    accepted: Fraction
    """Share of the right poses that is trusted."""
    wrong_m: float = Field(gt=0.0)
    """Smallest error of a wrong pose: metres, plus `Retrieval.metres_per_radian` times the angle."""


class FileEntry(StrictModel):
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


class Manifest(StrictModel):
    """Everything that the vehicle must know about a bundle. See docs/bundle.md."""

    schema_version: Literal[4] = 4
    name: str = Field(pattern=BUNDLE_NAME)
    created: str
    map_frame: FrameId = "map"
    datum: Datum | None = None
    camera: Camera
    mapping_data: MappingData
    absolute: AbsolutePart | None = None
    """None for a bundle without an absolute branch."""
    geometry: GeometricPart | None = None
    """None for a bundle without a geometric branch."""
    calibrations: dict[Precision, CalibrationSummary] = Field(default_factory=dict)
    """Of the absolute branch, written by `rgsiam calibrate`. Without one the node publishes its residual
    covariance and is never lost."""
    files: dict[str, FileEntry] = Field(max_length=MOST_FILES)

    @property
    def absolute_part(self) -> AbsolutePart:
        """The absolute part. Raises BundleError for a bundle without one."""
        if self.absolute is None:
            raise BundleError(
                f"bundle {self.name} has no absolute branch: export a run of `rgsiam train`"
            )
        return self.absolute

    @property
    def geometric_part(self) -> GeometricPart:
        """The geometric part. Raises BundleError for a bundle without one."""
        if self.geometry is None:
            raise BundleError(
                f"bundle {self.name} has no geometric branch: use a bundle whose manifest has `geometry`"
            )
        return self.geometry

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions of the absolute branch, else those of the geometric branch; float32 first."""
        return (self.absolute or self.geometric_part).precisions

    @property
    def labels(self) -> LabelCorrection:
        """How the labels were corrected; those of the map if the bundle has both parts."""
        return self.geometry or self.absolute_part

    @property
    def limits(self) -> ErrorLimits:
        """Which errors are right and wrong in this map; the map's own limits if the bundle has both parts."""
        return (self.geometry or self.absolute_part).limits

    @property
    def turn_wxyz(self) -> tuple[float, float, float, float]:
        """Unit quaternion: rotation from the frame of training to the map's axes."""
        if self.absolute is not None:
            return self.absolute.target.turn_wxyz
        return self.geometric_part.placement.turn_wxyz

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
        return self

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Manifest:
        if self.absolute is None and self.geometry is None:
            raise ValueError("the manifest has neither absolute nor geometry: a bundle needs one")
        if self.absolute is None or self.geometry is None:
            return self
        if self.absolute.preprocessing.levels != self.geometry.preprocessing.levels:
            raise ValueError("preprocessing.levels of absolute and geometry differ")
        turns = (self.absolute.target.turn_wxyz, self.geometry.placement.turn_wxyz)
        R, R_geometry = (pose_matrix(np.zeros(3), turn)[:3, :3] for turn in turns)
        if np.abs(R - R_geometry).max() > LARGEST_TURN_DIFFERENCE:
            raise ValueError("turn_wxyz of absolute.target and geometry.placement differ")
        return self

    @model_validator(mode="after")
    def _focal_scales_agree(self) -> Manifest:
        scales = {part.focal_scale for part in (self.absolute, self.geometry) if part is not None}
        if len(scales) > 1:
            raise ValueError("focal_scale of absolute and geometry differ: both are of one camera")
        return self

    @model_validator(mode="after")
    def _files_of_the_parts_are_there(self) -> Manifest:
        for part, needed in (
            ("absolute", _files_of_absolute(self.absolute)),
            ("geometry", _files_of_geometry(self.geometry)),
        ):
            for reason, name in needed:
                if name not in self.files:
                    raise ValueError(f"{reason} needs {name}, which files does not list")
            for name, entry in self.files.items():
                if not needed and entry.role in ROLES_OF_PARTS[part]:
                    raise ValueError(f"files lists {name}, but the manifest has no {part}")
        for described in (self.absolute, self.geometry):
            mask = None if described is None else described.preprocessing.mask
            if mask is not None and mask not in self.files:
                raise ValueError(f"preprocessing names a mask {mask!r} not in files")
        return self

    @model_validator(mode="after")
    def _calibrations_are_there(self) -> Manifest:
        listed = {name for name, entry in self.files.items() if entry.role == "calibration"}
        if self.calibrations and self.absolute is None:
            raise ValueError("calibrations needs absolute, which the manifest does not have")
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


def _files_of_absolute(part: AbsolutePart | None) -> list[tuple[str, str]]:
    """What needs a file, and the name of the file."""
    if part is None:
        return []
    needed = [("absolute", ABSOLUTE_NAME), ("absolute", GOLDEN_NAME)]
    for precision in part.precisions:
        needed.append((f"variant {precision}", absolute_name(precision)))
        if part.retrieval is not None:
            needed.append((f"variant {precision}", map_features_name(precision)))
    return needed


def _files_of_geometry(part: GeometricPart | None) -> list[tuple[str, str]]:
    """As `_files_of_absolute`."""
    if part is None:
        return []
    needed = [("geometry", MAP_POINTS_NAME), ("geometry", GOLDEN_VIEWS_NAME)]
    needed += [(f"variant {p} of geometry", local_features_name(p)) for p in part.precisions]
    return needed
