"""Estimate the camera's pose from an image, on the vehicle, without ROS and without torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle, Manifest
from rgsiam_ros.camera.frozen import DEFAULT_LIMIT, FrozenCamera
from rgsiam_ros.camera.model import Camera, ViewMatch
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.engines import EngineInfo
from rgsiam_ros.engines.batching import infer_all
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.engines.selection import SelectedEngines, select_engines
from rgsiam_ros.errors import BundleError, EngineError, RgsiamError
from rgsiam_ros.geometry.poses import Array, check_pose
from rgsiam_ros.localization.branches import PoseBranches
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.uncertainty.calibration import Branch
from rgsiam_ros.uncertainty.covariance import check_covariance, rotate_axes
from rgsiam_ros.uncertainty.pose_quality import PoseQuality, RefinedQuality

BRANCHES = ("auto", "absolute", "refined")
"""``absolute``: the pose of the absolute branch. ``refined``: the pose of the relative branch. ``auto``: refined
if the bundle has a relative branch."""

LARGEST_TRUST_WITHOUT_NEIGHBOUR = -1.0
"""Upper limit for the trust score of an absolute pose if the relative branch is in use, but no neighbour gave a
pose. It is below 0, so that such a pose is never trusted."""


@dataclass(frozen=True)
class PoseEstimate:
    """The estimated pose of the camera for one image."""

    T_map_camera: Array
    """``(4, 4)`` pose of the camera's optical frame (OpenCV axes) in the map frame, metres."""
    covariance_66: Array
    """Order x y z rotX rotY rotZ about fixed *map* axes; metres and radians."""
    timings_ms: dict[str, float]
    """Milliseconds spent in each stage."""
    branch: Branch = "absolute"
    """The branch that the pose is from. It is the absolute branch if no neighbour gives a pose."""
    quality: PoseQuality = field(default_factory=PoseQuality)
    """The figures that covariance and trust are predicted from."""
    raw_covariance_66: Array | None = None
    """Covariance of the *absolute* pose as the network predicts it, not calibrated; axes as above."""
    trust: float | None = None
    """Trust score minus threshold, see `rgsiam_ros.uncertainty.calibration`. None without a calibration."""
    frozen: bool = False
    """Whether the camera repeats this image."""

    @property
    def lost(self) -> bool:
        """Whether the pose must not be used."""
        return bool(self.why_lost)

    @cached_property
    def why_lost(self) -> str:
        """The reason in a few words; empty if the pose may be used."""
        if self.frozen:
            return "lost: the camera repeats the same image"
        if self.trust is not None and np.isnan(self.trust):
            return "lost: trust is not a number"
        if self.trust is not None and self.trust < 0.0:
            return f"lost: trust {self.trust:.2f} is below 0"
        if self.raw_covariance_66 is not None and not np.isfinite(self.raw_covariance_66).all():
            return "lost: the network's own uncertainty is not usable"
        try:
            check_pose(self.T_map_camera)
            check_covariance(self.covariance_66)
        except ValueError as error:
            return f"lost: {error}"
        return ""

    @property
    def refined_quality(self) -> RefinedQuality | None:
        """The figures that only a refined pose has."""
        return self.quality.refined_quality


@dataclass(frozen=True)
class _Prepared:
    """An image at the network's input, waiting for inference."""

    index: int
    """Place in the list of results."""
    input_3HW: NDArray[np.float32]
    preprocess_ms: float
    frozen: bool


class Relocalizer:
    """A bundle with running engines. Not thread-safe: one call at a time."""

    def __init__(
        self,
        bundle: Bundle,
        engines: SelectedEngines,
        batch: int = 1,
        frozen_images: int = DEFAULT_LIMIT,
    ) -> None:
        """engines: without a relative unit, only the absolute branch is used; batch: the batch size that the
        absolute branch's engine was started with; frozen_images: see `rgsiam_ros.camera.frozen.FrozenCamera`.
        """
        self.engines = engines
        self._bundle = bundle
        self._batch = batch
        self._frozen_camera = FrozenCamera(frozen_images)
        self._branches = PoseBranches(bundle, engines.precision, engines.relative)
        self._live_view = LiveView(bundle)

    @classmethod
    def from_bundle(
        cls,
        path: str | Path,
        options: EngineOptions | None = None,
        *,
        branch: str = "auto",
        frozen_images: int = DEFAULT_LIMIT,
    ) -> Relocalizer:
        """Load the bundle at `path` and start the best engine that passes the self-test.

        options: how to run the networks; branch: one of `BRANCHES`; frozen_images: this many identical
        images in a row count as a frozen camera, 0: never. Raises BundleError, also if `branch` is
        ``refined`` and the bundle has no relative branch, and EngineError.
        """
        options = options or EngineOptions()
        if branch not in BRANCHES:
            raise BundleError(f"branch {branch!r} is unknown: choose one of {', '.join(BRANCHES)}")
        bundle = Bundle.load(path)
        has_relative_branch = bundle.manifest.refinement is not None
        if branch == "refined" and not has_relative_branch:
            raise BundleError(
                f"{path} has no relative branch: set branch to absolute, or train and export with "
                "relative_pose switched on"
            )
        refine = branch != "absolute" and has_relative_branch
        engines = select_engines(bundle, options, refine=refine)
        return cls(bundle, engines, options.batch, frozen_images)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle in use."""
        return self._bundle.manifest

    @property
    def branch(self) -> Branch:
        """The branch in use."""
        return "refined" if self._branches.refines else "absolute"

    @property
    def calibrated(self) -> bool:
        """Whether each image gets its own covariance and a trust score."""
        return self._branches.calibrated

    def describe_engine(self) -> EngineInfo:
        """The engine of the absolute branch."""
        return self.engines.describe()

    def use_camera(self, camera: Camera) -> ViewMatch:
        """Adapt to the live camera: crop its images to the view that the network learnt with.

        Raises CameraError if that is impossible; the previous camera then stays in use.
        """
        return self._live_view.use_camera(camera)

    def forget(self) -> None:
        """Forget the previous images, so that the camera does not count as frozen."""
        self._frozen_camera.forget()

    def estimate(self, image_HW3: ImageBGR) -> PoseEstimate:
        """Pose of the camera that took a BGR uint8 ``(H, W, 3)`` image.

        Raises ImageError or CameraError for an image that cannot be used, and EngineError if the network
        fails or its outputs are no pose.
        """
        (estimate,) = self.estimate_many([image_HW3])
        if isinstance(estimate, RgsiamError):
            raise estimate
        return estimate

    def estimate_many(
        self, images: Sequence[ImageBGR | RgsiamError]
    ) -> list[PoseEstimate | RgsiamError]:
        """As `estimate`, for several images. The engine runs them in batches.

        The result holds an error in place of the estimate if an image cannot be used. An error that is given
        in place of an image is returned in its place. Each image gets an equal share of the inference time.
        """
        results: list[PoseEstimate | RgsiamError] = []
        prepared: list[_Prepared] = []
        for index, image in enumerate(images):
            results.append(EngineError("no estimate yet"))
            try:
                prepared.append(self._prepare(image, index))
            except RgsiamError as error:
                results[index] = error
        if not prepared:
            return results
        began = time.perf_counter()
        inputs = np.stack([item.input_3HW for item in prepared])
        try:
            outputs = infer_all(self.engines.absolute, inputs, self._batch)
        except EngineError as error:
            for item in prepared:
                results[item.index] = error
            return results
        inference_ms = _since(began) / len(prepared)
        for row, item in enumerate(prepared):
            own_outputs = {name: value[row : row + 1] for name, value in outputs.items()}
            timings = {"preprocess": item.preprocess_ms, "inference": inference_ms}
            try:
                results[item.index] = self._finish(own_outputs, timings, item.frozen)
            except RgsiamError as error:
                results[item.index] = error
        return results

    def _prepare(self, image: ImageBGR | RgsiamError, index: int) -> _Prepared:
        if isinstance(image, RgsiamError):
            raise image
        began = time.perf_counter()
        input_3HW = self._live_view.prepare(image)
        return _Prepared(index, input_3HW, _since(began), self._frozen_camera.observe(image))

    def _finish(
        self, outputs: Mapping[str, np.ndarray], timings: dict[str, float], frozen: bool
    ) -> PoseEstimate:
        """The estimate from the absolute branch's outputs for one image."""
        began = time.perf_counter()
        absolute = self._branches.estimate_absolute(outputs)
        timings["pose"] = _since(began)
        chosen = absolute
        if self._branches.refines:
            began = time.perf_counter()
            chosen = self._branches.estimate_refined(outputs, absolute) or absolute
            timings["refinement"] = _since(began)
        covariance, trust = self._branches.covariance_and_trust(chosen)
        if trust is not None and self._branches.refines and chosen.branch == "absolute":
            trust = min(trust, LARGEST_TRUST_WITHOUT_NEIGHBOUR)
        raw = chosen.raw_covariance_66
        return PoseEstimate(
            T_map_camera=chosen.T_map_camera,
            covariance_66=covariance,
            timings_ms=timings,
            branch=chosen.branch,
            quality=chosen.quality,
            raw_covariance_66=(
                None if raw is None else rotate_axes(raw, absolute.T_map_camera[:3, :3])
            ),
            trust=trust,
            frozen=frozen,
        )

    def close(self) -> None:
        """Release the engines."""
        self.engines.close()


def _since(began: float) -> float:
    """Milliseconds since `began`, a time of `time.perf_counter`."""
    return (time.perf_counter() - began) * 1e3
