"""Estimate the camera's pose from an image, on the vehicle, without ROS and without torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from rgsiam_ros.errors import EngineError, RgsiamError
from rgsiam_ros.features.network import network_input
from rgsiam_ros.localization.branches import PoseBranches
from rgsiam_ros.localization.geometric_estimator import GeometricEstimator
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.localization.networks import check_branch, networks_of, uses_geometry
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.uncertainty.calibration import Branch
from rgsiam_ros.uncertainty.covariance import rotate_axes

LARGEST_TRUST_WITHOUT_NEIGHBOUR = -1.0
"""Upper limit for the trust score of an absolute pose if the relative branch is in use, but no neighbour gave a
pose. It is below 0, so that such a pose is never trusted."""


@dataclass(frozen=True)
class _Prepared:
    """An image at the network's input, waiting for inference."""

    index: int
    """Place in the list of results."""
    input_CHW: NDArray[np.float32]
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
        *,
        geometry: bool = False,
    ) -> None:
        """engines: without a relative unit, only the absolute branch is used; batch: the batch size that the
        main engine was started with; frozen_images: see `rgsiam_ros.camera.frozen.FrozenCamera`; geometry: the
        engines run the geometric branch.
        """
        self.engines = engines
        self._bundle = bundle
        self._batch = batch
        self._frozen_camera = FrozenCamera(frozen_images)
        self._geometric: GeometricEstimator | None = None
        if geometry:
            self._geometric = GeometricEstimator(bundle)
            self._live_view = LiveView(bundle, bundle.manifest.geometric_part.preprocessing)
        else:
            self._branches = PoseBranches(bundle, engines.precision, engines.relative)
            self._live_view = LiveView(bundle, bundle.manifest.absolute_part.preprocessing)

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
        images in a row count as a frozen camera, 0: never. Raises BundleError, also if the bundle does not
        have `branch`, and EngineError.
        """
        options = options or EngineOptions()
        bundle = Bundle.load(path)
        check_branch(path, bundle.manifest, branch)
        networks = networks_of(bundle, branch, options.batch)
        engines = select_engines(bundle, options, networks)
        geometry = uses_geometry(bundle.manifest, branch)
        return cls(bundle, engines, options.batch, frozen_images, geometry=geometry)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle in use."""
        return self._bundle.manifest

    @property
    def branch(self) -> Branch:
        """The branch in use."""
        refines = self._geometric is not None or self._branches.refines
        return "refined" if refines else "absolute"

    @property
    def calibrated(self) -> bool:
        """Whether each image gets its own covariance and a trust score."""
        return self._geometric is not None or self._branches.calibrated

    def describe_engine(self) -> EngineInfo:
        """The engine of the network that takes the image."""
        return self.engines.describe()

    def use_camera(self, camera: Camera) -> ViewMatch:
        """Adapt to the live camera: crop its images to the view that the network learnt with.

        Raises CameraError if that is impossible; the previous camera then stays in use.
        """
        return self._live_view.use_camera(camera)

    def forget(self) -> None:
        """Forget the previous images: their look, by which a frozen camera is found, and their poses."""
        self._frozen_camera.forget()
        if self._geometric is not None:
            self._geometric.forget()

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
        inputs = np.stack([item.input_CHW for item in prepared])
        try:
            outputs = infer_all(self.engines.main, inputs, self._batch)
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
        if self._geometric is None:
            input_CHW = self._live_view.prepare(image)
        else:
            input_CHW = network_input(self._live_view.fit(image))[0]
        return _Prepared(index, input_CHW, _since(began), self._frozen_camera.observe(image))

    def _finish(
        self, outputs: Mapping[str, np.ndarray], timings: dict[str, float], frozen: bool
    ) -> PoseEstimate:
        """The estimate from the main network's outputs for one image."""
        if self._geometric is not None:
            return self._geometric.estimate(outputs, self._live_view.K, timings, frozen=frozen)
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
