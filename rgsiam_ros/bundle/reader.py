"""Load a bundle. Everything in it is checked before it is used, and nothing in it is executed."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import network_io
from rgsiam_ros.bundle.geometric_part import GeometricPart
from rgsiam_ros.bundle.golden import GoldenImages
from rgsiam_ros.bundle.golden_views import GoldenViews
from rgsiam_ros.bundle.manifest import (
    GOLDEN_NAME,
    GOLDEN_VIEWS_NAME,
    MANIFEST_NAME,
    MAP_FEATURES_NAME,
    MAP_POINTS_NAME,
    PLACES,
    Manifest,
)
from rgsiam_ros.bundle.manifest_file import REFETCH, ManifestFile, read_regular, real_folder
from rgsiam_ros.bundle.map_features import MapFeatures
from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.bundle.npz import read_plain_npz
from rgsiam_ros.bundle.onnx_check import check_onnx
from rgsiam_ros.bundle.parts import AbsolutePart, Retrieval
from rgsiam_ros.bundle.precision import (
    Precision,
    absolute_name,
    calibration_name,
    local_features_name,
    map_features_name,
)
from rgsiam_ros.bundle.replacing import restore
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.errors import BundleError
from rgsiam_ros.features import keypoints
from rgsiam_ros.geometry.poses import pose_matrix
from rgsiam_ros.uncertainty.calibration import Calibration

PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
Shapes = dict[str, tuple[int, ...]]
Parsed = TypeVar("Parsed")


class Bundle:
    """A bundle whose manifest and files have been verified.

    Create it with `load`. It keeps the bytes that were verified, so a file that is replaced on disk later
    has no effect.
    """

    def __init__(self, path: Path, file: ManifestFile, contents: dict[str, bytes]) -> None:
        self.path = path
        self.manifest = file.manifest
        self.manifest_sha256 = file.sha256
        self._contents = contents
        self._unpacked: dict[str, dict[str, NDArray]] = {}
        self._map_features: dict[str, MapFeatures] = {}
        self._calibrations: dict[Precision, Calibration] = {}

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Read and verify the bundle in the folder `path`. Raises BundleError, which says what is wrong."""
        directory = Path(path)
        restore(directory)
        home = real_folder(directory)
        file = ManifestFile.of_bundle(home)
        manifest = file.manifest
        _check_listing(directory, home, manifest)
        contents = {name: _read_verified(home / name, manifest) for name in manifest.files}
        bundle = cls(directory, file, contents)
        for name, content in contents.items():
            if name.endswith(".png"):
                read_mask(content, directory / name, manifest.camera)
            elif name.endswith(".npz"):
                bundle._arrays(name)
        if manifest.absolute is not None:
            bundle._check_absolute(manifest.absolute)
        if manifest.geometry is not None:
            bundle._check_geometry(manifest.geometry)
        for precision in manifest.calibrations:
            bundle.calibration(precision)
        return bundle

    @property
    def contents(self) -> Mapping[str, bytes]:
        """The verified bytes of every file except the manifest, by name."""
        return self._contents

    def content(self, name: str) -> bytes:
        """The verified bytes of one file."""
        return self._contents[name]

    def absolute_onnx(self, precision: Precision = "float32") -> bytes:
        """The ONNX file of the absolute branch. Raises BundleError if this precision was not exported."""
        self.check_offered(self.manifest.absolute_part.precisions, precision)
        return self.content(absolute_name(precision))

    def features_onnx(self, precision: Precision = "float32") -> bytes:
        """The ONNX file of the local features' network. Raises BundleError as `absolute_onnx` does."""
        self.check_offered(self.manifest.geometric_part.precisions, precision)
        return self.content(local_features_name(precision))

    @cached_property
    def map_points(self) -> MapPoints:
        """The map of the geometric branch, without removed points. Raises BundleError."""
        return self.stored_points.in_use()

    @cached_property
    def stored_points(self) -> MapPoints:
        """As `map_points`, with the points that a session removed. Raises BundleError."""
        self._require_geometry(MAP_POINTS_NAME)
        return self._parsed(MAP_POINTS_NAME, MapPoints.from_arrays)

    def points_in_map(self) -> MapPoints:
        """As `map_points`, but positions and cameras are in the map frame. Raises BundleError."""
        points, placement = self.map_points, self.manifest.geometric_part.placement
        return points.placed(pose_matrix(placement.origin_m, placement.turn_wxyz))

    @cached_property
    def golden_views(self) -> GoldenViews:
        """Images with the expected poses of the geometric branch, for the self-test. Raises BundleError."""
        self._require_geometry(GOLDEN_VIEWS_NAME)
        preprocessing = self.manifest.geometric_part.preprocessing
        return self._parsed(
            GOLDEN_VIEWS_NAME, lambda arrays: GoldenViews.from_arrays(arrays, preprocessing)
        )

    def map_features(self, precision: Precision = "float32") -> MapFeatures:
        """Features of the map images, computed in this precision.

        Raises BundleError if they are missing or unusable.
        """
        self.check_offered(self.manifest.absolute_part.precisions, precision)
        name = map_features_name(precision)
        if name not in self._contents:
            raise BundleError(f"{self.path / name} is missing: {REFETCH}")
        if name not in self._map_features:
            self._map_features[name] = self._parsed(name, MapFeatures.from_arrays)
        return self._map_features[name]

    def calibration(self, precision: Precision = "float32") -> Calibration | None:
        """The calibration of this precision, or None without one. Raises BundleError."""
        name = calibration_name(precision)
        if precision not in self.manifest.calibrations:
            return None
        if precision not in self._calibrations:
            self._calibrations[precision] = self._parsed(name, Calibration.from_arrays)
        return self._calibrations[precision]

    def describe_pictures(self) -> str:
        """Which pictures of the recording the bundle holds, in words: whoever gets the bundle can look at them."""
        count = len(self.golden_views.view_NHW) if self.manifest.geometry is not None else 0
        count += len(self.golden.image_NHW3) if self.manifest.absolute is not None else 0
        return f"the bundle holds {count} small pictures of the recording, which test the networks on the vehicle"

    @cached_property
    def golden(self) -> GoldenImages:
        """Images with the expected outputs of the absolute branch, for the self-test. Raises BundleError."""
        preprocessing = self.manifest.absolute_part.preprocessing
        return self._parsed(
            GOLDEN_NAME, lambda arrays: GoldenImages.from_arrays(arrays, preprocessing)
        )

    def _arrays(self, name: str) -> dict[str, NDArray]:
        if name not in self._unpacked:
            largest = PLACES[self.manifest.files[name].role][1]
            self._unpacked[name] = read_npz(self.content(name), self.path / name, largest)
        return self._unpacked[name]

    def _parsed(self, name: str, parse: Callable[[Mapping[str, NDArray]], Parsed]) -> Parsed:
        """What `parse` makes of the arrays of a file. Raises BundleError where `parse` raises ValueError."""
        try:
            return parse(self._arrays(name))
        except ValueError as error:
            raise BundleError(f"{self.path / name} cannot be used: {error}. {REFETCH}") from error

    def _require_geometry(self, name: str) -> None:
        if name not in self._contents:
            raise BundleError(
                f"{self.path} has no geometric branch: build a map with `rgsiam map build`"
            )

    def check_offered(self, offered: Sequence[Precision], precision: Precision) -> None:
        """Raise BundleError if `precision` is none of the offered ones."""
        if precision not in offered:
            raise BundleError(
                f"{self.path} has no {precision} network, only {', '.join(offered)}: export with "
                f"--precision {precision}"
            )

    def _check_absolute(self, part: AbsolutePart) -> None:
        """Check each network, and that networks, map features and golden images fit together."""
        size = part.preprocessing
        inputs: Shapes = {network_io.IMAGE: (1, 3, size.input_height, size.input_width)}
        outputs: Shapes = {network_io.TRANSLATION: (1, 3), network_io.ROTATION: (1, 4)}
        if part.retrieval is not None:
            features = self._check_map_features(part.precisions, part.retrieval)
            outputs[network_io.METRIC_FEATURE] = (1, features.metric_feature_ND.shape[1])
        optional: Shapes = {network_io.PRECISION_FACTOR: (1, 21)}
        output_names: set[str] = set()
        for precision in part.precisions:
            name = absolute_name(precision)
            output_names = check_onnx(
                self.content(name), self.path / name, inputs, outputs, optional
            )
        known = outputs | {name: shape for name, shape in optional.items() if name in output_names}
        shapes = {name: shape[1:] for name, shape in known.items()}
        try:
            self.golden.check(shapes)
        except ValueError as error:
            path = self.path / GOLDEN_NAME
            raise BundleError(f"{path} cannot be used: {error}. {REFETCH}") from error

    def _check_geometry(self, part: GeometricPart) -> None:
        """Check the local features' networks."""
        height, width = part.preprocessing.input_height, part.preprocessing.input_width
        cells = (height // keypoints.CELL, width // keypoints.CELL)
        inputs: Shapes = {keypoints.IMAGE: (1, 1, height, width)}
        outputs: Shapes = {
            keypoints.DESCRIPTORS: (1, keypoints.DESCRIPTOR_SIZE, *cells),
            keypoints.RELIABILITY: (1, 1, *cells),
            keypoints.HEAT: (1, 1, height, width),
        }
        for precision in part.precisions:
            name = local_features_name(precision)
            check_onnx(self.content(name), self.path / name, inputs, outputs)
        points, stored = self.map_points, self.stored_points
        removed = len(stored.position_P3) - len(points.position_P3)
        found = len(points.visible), len(points.position_P3), removed
        if found != (part.map_images, part.points, part.removed_points):
            raise BundleError(
                f"{self.path / MAP_POINTS_NAME} holds {found[0]} images, {found[1]} points and {found[2]} removed ones; "
                f"the manifest says {part.map_images}, {part.points} and {part.removed_points}: {REFETCH}"
            )
        if (
            removed
            and stored.removed_by_P is not None
            and stored.removed_by_P.max() >= len(part.sessions)
        ):
            raise BundleError(
                f"{self.path / MAP_POINTS_NAME} holds points that an unknown session removed: {REFETCH}"
            )
        _ = self.golden_views

    def _check_map_features(
        self, precisions: Sequence[Precision], retrieval: Retrieval
    ) -> MapFeatures:
        """The map's features in float32. Checks that every precision has features of the same images."""
        first = self.map_features()
        for precision in precisions:
            features = self.map_features(precision)
            path = self.path / map_features_name(precision)
            kept = len(features.T_map_camera_N44)
            if kept != retrieval.map_images or kept < retrieval.neighbours:
                raise BundleError(
                    f"{path} holds {kept} images; the manifest says {retrieval.map_images} and asks "
                    f"for {retrieval.neighbours} neighbours: {REFETCH}"
                )
            same = features.metric_feature_ND.shape == first.metric_feature_ND.shape
            if not same or not np.array_equal(features.T_map_camera_N44, first.T_map_camera_N44):
                raise BundleError(
                    f"{path} and {MAP_FEATURES_NAME} are not of the same images: {REFETCH}"
                )
        return first

    def mask_HW(self, preprocessing: Preprocessing) -> NDArray[np.uint8] | None:
        """The mask ``(H, W)`` uint8 that the preprocessing of one of the parts names, or None."""
        name = preprocessing.mask
        if name is None:
            return None
        return read_mask(self.content(name), self.path / name, self.manifest.camera)


def read_npz(content: bytes, path: Path, largest: int) -> dict[str, NDArray]:
    """The arrays of an npz file, by name, see `read_plain_npz`. Raises BundleError."""
    try:
        return read_plain_npz(content, path, largest)
    except BundleError as error:
        raise BundleError(f"{error}: {REFETCH}") from error


def read_mask(content: bytes, path: Path, camera: Camera) -> NDArray[np.uint8]:
    """The mask ``(H, W)`` uint8 of a PNG file of the camera's size. Raises BundleError."""
    size = struct.pack(">II", camera.width, camera.height)
    if content[:16] != PNG_START or content[16:24] != size:
        raise BundleError(
            f"{path} is not a PNG of {camera.width}x{camera.height} pixels, the camera's: {REFETCH}"
        )
    try:
        mask = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error as error:
        raise BundleError(f"{path} is not a readable PNG ({error.err}): {REFETCH}") from error
    if mask is None:
        raise BundleError(f"{path} is not a readable PNG: {REFETCH}")
    return mask  # type: ignore[return-value]


def _check_listing(directory: Path, home: Path, manifest: Manifest) -> None:
    """Raise BundleError unless `directory` has the files of the manifest, and all of them lie in `home`."""
    try:
        present = {entry.name for entry in directory.iterdir()} - {MANIFEST_NAME}
    except OSError as error:
        raise BundleError(f"{directory} cannot be read ({error.strerror}): {REFETCH}") from error
    missing, extra = sorted(set(manifest.files) - present), sorted(present - set(manifest.files))
    if missing:
        raise BundleError(f"{directory} lacks {', '.join(missing)}: {REFETCH}")
    if extra:
        raise BundleError(
            f"{directory} holds {', '.join(extra)}, which the manifest does not list: "
            "remove it, or export the bundle anew"
        )
    for name in (MANIFEST_NAME, *manifest.files):
        if Path(os.path.realpath(directory / name)) != home / name:
            raise BundleError(
                f"{directory / name} is not a regular file in {home}, where {MANIFEST_NAME} lies (the links "
                f"of a bundle must all lead into one folder): {REFETCH}"
            )


def _read_verified(path: Path, manifest: Manifest) -> bytes:
    entry = manifest.files[path.name]
    content = read_regular(path, entry.size)
    if len(content) != entry.size:
        found = "more" if len(content) > entry.size else len(content)
        raise BundleError(f"{path} has {found} bytes, the manifest says {entry.size}: {REFETCH}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry.sha256:
        raise BundleError(
            f"{path} has changed: its SHA-256 is {digest}, the manifest says {entry.sha256}: "
            f"{REFETCH}"
        )
    return content
