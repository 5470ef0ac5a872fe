"""Estimate the camera's pose from an image, on the vehicle, without ROS and without torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle, Manifest
from rgsiam_ros.bundle.doubts import doubts
from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.camera.frozen import DEFAULT_LIMIT, FrozenCamera
from rgsiam_ros.camera.levels import Levels
from rgsiam_ros.camera.model import Camera, ViewMatch
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.engines import EngineInfo
from rgsiam_ros.engines.batching import infer_all
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.engines.selection import SelectedEngine, select_engine
from rgsiam_ros.errors import EngineError, RgsiamError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.absolute_estimator import AbsoluteEstimator
from rgsiam_ros.localization.absolute_prior import AbsolutePrior
from rgsiam_ros.localization.geometric_estimator import GeometricEstimator
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.localization.networks import check_branch, network_of, uses_geometry
from rgsiam_ros.localization.pose_estimate import Branch, PoseEstimate


@dataclass(frozen=True)
class _Prepared:
    """An image at the network's input, waiting for inference."""

    index: int
    """Place in the list of results."""
    input_CHW: NDArray[np.float32]
    preprocess_ms: float
    frozen: bool
    image_HW3: ImageBGR


class Relocalizer:
    """A bundle with a running engine. Not thread-safe: one call at a time."""

    def __init__(
        self,
        bundle: Bundle,
        engine: SelectedEngine,
        estimator: AbsoluteEstimator | GeometricEstimator,
        batch: int = 1,
        frozen_images: int = DEFAULT_LIMIT,
        prior: AbsolutePrior | None = None,
    ) -> None:
        """engine: runs the network of `estimator`, started with the batch size `batch`; frozen_images: see
        `rgsiam_ros.camera.frozen.FrozenCamera`; prior: helps a `GeometricEstimator`.
        """
        self.engine = engine
        self._bundle = bundle
        self._batch = batch
        self._estimator = estimator
        self._frozen_camera = FrozenCamera(frozen_images)
        self._live_view = LiveView(bundle, estimator.preprocessing)
        self._prior = prior

    @classmethod
    def from_bundle(
        cls,
        bundle: str | Path | Bundle,
        options: EngineOptions | None = None,
        *,
        branch: str = "auto",
        frozen_images: int = DEFAULT_LIMIT,
    ) -> Relocalizer:
        """Start the best engine that passes the self-test.

        bundle: a loaded one, or the path of one; options: how to run the network; branch: one of `BRANCHES`; frozen_images: this many identical
        images in a row count as a frozen camera, 0: never. Raises BundleError, also if the bundle does not
        have `branch`, and EngineError.
        """
        options = options or EngineOptions()
        if not isinstance(bundle, Bundle):
            bundle = Bundle.load(bundle)
        check_branch(bundle.path, bundle.manifest, branch)
        engine = select_engine(bundle, options, network_of(bundle, branch, options.batch))
        if uses_geometry(bundle.manifest, branch):
            helped = branch == "auto" and bundle.manifest.absolute is not None
            prior = AbsolutePrior(bundle, options) if helped else None
            geometric = GeometricEstimator(bundle)
            return cls(bundle, engine, geometric, options.batch, frozen_images, prior)
        estimator = AbsoluteEstimator(bundle, engine.precision)
        return cls(bundle, engine, estimator, options.batch, frozen_images)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle in use."""
        return self._bundle.manifest

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of the manifest, which holds the SHA-256 of every other file."""
        return self._bundle.manifest_sha256

    @property
    def branch(self) -> Branch:
        """The branch in use."""
        return self._estimator.branch

    @property
    def calibrated(self) -> bool:
        """Whether each image gets its own covariance and a trust score."""
        return self._estimator.calibrated

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons why the branch in use is of no use, see `rgsiam_ros.bundle.doubts`; none for a good bundle."""
        return doubts(self.manifest, self.branch, self.engine.precision)

    def describe_engine(self) -> EngineInfo:
        """The engine that runs the network."""
        return self.engine.describe()

    def use_camera(self, camera: Camera) -> ViewMatch:
        """Adapt to the live camera: crop its images to the view that the network learnt with.

        Raises CameraError if that is impossible; the previous camera then stays in use.
        """
        view = self._live_view.use_camera(camera)
        if self._prior is not None:
            self._prior.use_camera(camera)
        return view

    def points_in_map(self) -> MapPoints | None:
        """The map's points in the map frame; None if the geometric branch is not in use."""
        return self._bundle.points_in_map() if self.branch == "refined" else None

    def map_cameras(self) -> Array | None:
        """Poses ``(N, 4, 4)`` of the map images' cameras in the map frame; None for a bundle without map images."""
        return self._estimator.map_cameras()

    def live_view(self) -> LiveView:
        """How images are brought to the size of the network's input, for another camera than the live one."""
        return LiveView(self._bundle, self._estimator.preprocessing)

    def fit(self, image_HW3: ImageBGR) -> ImageBGR:
        """The image at the size of the network's input, in which `PoseEstimate.matches` has its pixels.

        Raises ImageError or CameraError.
        """
        return self._live_view.fit(image_HW3)

    @property
    def enough(self) -> tuple[int, int] | None:
        """Size of an image that loses nothing, see `rgsiam_ros.camera.decoding.decode_compressed`.

        None if images are wanted as they are: the absolute branch learnt from images of full size.
        """
        return self._live_view.enough if self.branch == "refined" else None

    def expect(self, T_map_camera: Array) -> bool:
        """Expect the camera near a pose ``(4, 4)``, metres, until there is a trusted pose. False without effect.

        Only the geometric branch can use it: map images near the pose are candidates.
        """
        if isinstance(self._estimator, AbsoluteEstimator):
            return False
        self._estimator.expect(T_map_camera)
        return True

    @property
    def levels(self) -> Levels | None:
        """By which 16-bit images are scaled, see `rgsiam_ros.camera.decoding.decode_message`."""
        return self._estimator.preprocessing.levels

    def forget(self) -> None:
        """Forget the previous images: their look, by which a frozen camera is found, and their poses."""
        self._frozen_camera.forget()
        self._estimator.forget()

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
            outputs = infer_all(self.engine.engine, inputs, self._batch)
        except EngineError as error:
            for item in prepared:
                results[item.index] = error
            return results
        inference_ms = _since(began) / len(prepared)
        for row, item in enumerate(prepared):
            own_outputs = {name: value[row : row + 1] for name, value in outputs.items()}
            timings = {"preprocess": item.preprocess_ms, "inference": inference_ms}
            try:
                results[item.index] = self._estimate(own_outputs, timings, item)
            except RgsiamError as error:
                results[item.index] = error
        return results

    def _prepare(self, image: ImageBGR | RgsiamError, index: int) -> _Prepared:
        if isinstance(image, RgsiamError):
            raise image
        began = time.perf_counter()
        input_CHW = self._estimator.prepare(self._live_view, image)
        return _Prepared(index, input_CHW, _since(began), self._frozen_camera.observe(image), image)

    def _estimate(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        timings: Mapping[str, float],
        item: _Prepared,
    ) -> PoseEstimate:
        """The estimate from the network's outputs for one image."""
        if isinstance(self._estimator, AbsoluteEstimator):
            return self._estimator.estimate(outputs, timings, frozen=item.frozen)
        prior = self._prior
        return self._estimator.estimate(
            outputs,
            self._live_view.K,
            timings,
            frozen=item.frozen,
            absolute=None if prior is None else lambda: prior.estimate(item.image_HW3),
        )

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()
        if self._prior is not None:
            self._prior.close()


def _since(began: float) -> float:
    """Milliseconds since `began`, a time of `time.perf_counter`."""
    return (time.perf_counter() - began) * 1e3
