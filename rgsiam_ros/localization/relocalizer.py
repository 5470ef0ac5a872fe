"""One image in, one pose out: the whole method on the vehicle, without ROS and without torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle, Manifest, network_io
from rgsiam_ros.camera.frozen import DEFAULT_LIMIT, FrozenCamera
from rgsiam_ros.camera.model import Camera, ViewMatch
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.engines import EngineInfo
from rgsiam_ros.engines.selection import SelectedEngines, select_engines
from rgsiam_ros.engines.self_test import infer_all
from rgsiam_ros.errors import BundleError, EngineError, RgsiamError
from rgsiam_ros.geometry.poses import Array, check_pose
from rgsiam_ros.localization.branches import PoseBranches
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.uncertainty.covariance import check_covariance, rotate_axes
from rgsiam_ros.uncertainty.pose_quality import PoseQuality, RefinedQuality

BRANCHES = ("auto", "absolute", "refined")
"""``refined``: the relative branch over the map's features; ``absolute``: the network's global pose
alone; ``auto``: refined where the bundle can."""

NO_NEIGHBOUR = -1.0
"""Most trust in an absolute pose where the relative branch was asked and no map image gave a pose: by
itself a sign of being lost."""


@dataclass(frozen=True)
class PoseEstimate:
    """Where the camera was when it took one image."""

    T_map_camera: Array
    """``(4, 4)`` pose of the camera's optical frame (OpenCV axes) in the map frame, metres."""
    covariance_66: Array
    """Order x y z rotX rotY rotZ about fixed *map* axes; metres and radians."""
    timings_ms: dict[str, float]
    """Milliseconds spent in each stage."""
    branch: Literal["absolute", "refined"] = "absolute"
    """Which branch the pose is from: refined falls back where no neighbour gives an answer."""
    quality: PoseQuality = field(default_factory=PoseQuality)
    """What the answer says about itself."""
    raw_covariance_66: Array | None = None
    """The network's own, uncalibrated uncertainty of the *absolute* pose; axes as above."""
    trust: float | None = None
    """Score less threshold, see `rgsiam_ros.uncertainty.calibration`; None where the bundle is not calibrated."""

    frozen: bool = False
    """Whether the camera has been repeating this image."""

    @property
    def lost(self) -> bool:
        """Whether the pose must not be believed."""
        return bool(self.why_lost)

    @cached_property
    def why_lost(self) -> str:
        """In a few words; empty where the pose may be believed."""
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
        """Of a refined pose."""
        return self.quality.refined_quality


class Relocalizer:
    """A bundle made ready to answer. Not thread-safe: one image at a time."""

    def __init__(
        self,
        bundle: Bundle,
        serving: SelectedEngines,
        batch: int = 1,
        frozen_images: int = DEFAULT_LIMIT,
    ) -> None:
        """serving: with a relative unit for the refined branch; batch: of the absolute branch;
        frozen_images: see `rgsiam_ros.camera.frozen.FrozenCamera`.
        """
        self._frozen_camera = FrozenCamera(frozen_images)
        self._bundle = bundle
        self._serving = serving
        self._engine = serving.absolute
        self._batch = batch
        self._answerer = PoseBranches(bundle, serving.precision, serving.relative)
        self._live_view = LiveView(bundle)

    @classmethod
    def from_bundle(
        cls,
        path: str | Path,
        engine: str = "auto",
        *,
        precision: str = "auto",
        threads: int = 0,
        branch: str = "auto",
        batch: int = 1,
        cache: Path | None = None,
        fallback: str = "auto",
        frozen_images: int = DEFAULT_LIMIT,
    ) -> Relocalizer:
        """Load the bundle at `path` and start an engine that passes its self-test.

        engine: a name from `rgsiam_ros.engines.ENGINES`, or ``auto``; precision: one of the bundle's,
        or ``auto``; threads: CPU threads for one inference, 0 lets the engine choose; branch: one of
        `BRANCHES`; batch: images of one inference in `estimate_many`; cache: folder of built engines;
        fallback: see `rgsiam_ros.engines.selection.select_engines`; frozen_images: identical images in a row from
        which the camera is frozen, 0: never. Raises BundleError (also where the bundle
        cannot refine but shall) or EngineError.
        """
        if branch not in BRANCHES:
            raise BundleError(f"branch {branch!r} is unknown: choose one of {', '.join(BRANCHES)}")
        bundle = Bundle.load(path)
        if branch == "refined" and bundle.manifest.refinement is None:
            raise BundleError(
                f"{path} has no relative branch: set branch to absolute, or train and export with "
                "relative_pose switched on"
            )
        serving = select_engines(
            bundle,
            engine=engine,
            precision=precision,
            refine=branch != "absolute" and bundle.manifest.refinement is not None,
            threads=threads,
            batch=batch,
            cache=cache,
            fallback=fallback,
        )
        return cls(bundle, serving, batch, frozen_images)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle in use."""
        return self._bundle.manifest

    @property
    def branch(self) -> Literal["absolute", "refined"]:
        """Which branch answers."""
        return "refined" if self._answerer.refines else "absolute"

    @property
    def calibrated(self) -> bool:
        """Whether covariances are per image and lost images are noticed."""
        return self._answerer.calibrated

    def describe_engine(self) -> EngineInfo:
        """What runs the network."""
        return self._engine.describe()

    @property
    def serving(self) -> SelectedEngines:
        """The engines in use, and why others are not."""
        return self._serving

    def use_camera(self, camera: Camera) -> ViewMatch:
        """Adapt to the live camera: crop its images to the view that the network learnt with.

        Raises CameraError when that is impossible; images are then treated as before the call.
        """
        return self._live_view.use_camera(camera)

    def forget(self) -> None:
        """Forget the images before: the camera is not frozen."""
        self._frozen_camera.forget()

    def estimate(self, image_HW3: ImageBGR) -> PoseEstimate:
        """Pose of the camera that took a BGR uint8 ``(H, W, 3)`` image.

        Raises ImageError or CameraError for an image that cannot be used and EngineError when the
        network fails or answers with numbers that are no pose.
        """
        outputs, timings = self._one(image_HW3)
        return self._finish(outputs, timings, self._frozen_camera.seen(image_HW3))

    def estimate_many(
        self, images: Sequence[ImageBGR | RgsiamError]
    ) -> list[PoseEstimate | RgsiamError]:
        """As `estimate` for a number of images, in batches of the size the engine was started with.

        An image that cannot be used gets its error in place of an answer, and an error given in place
        of an image stays there. Times of inference are shared out.
        """
        answers: list[PoseEstimate | RgsiamError] = []
        prepared: list[tuple[int, NDArray[np.float32], float, bool]] = []
        for image in images:
            try:
                if isinstance(image, RgsiamError):
                    raise image
                began = time.perf_counter()
                fitted, frozen = self._live_view.prepare(image), self._frozen_camera.seen(image)
                prepared.append((len(answers), fitted, _since(began), frozen))
                answers.append(EngineError("not answered"))
            except RgsiamError as error:
                answers.append(error)
        if not prepared:
            return answers
        began = time.perf_counter()
        try:
            outputs = infer_all(self._engine, np.stack([p[1] for p in prepared]), self._batch)
        except EngineError as error:
            for place, *_ in prepared:
                answers[place] = error
            return answers
        inference_ms = _since(began) / len(prepared)
        for row, (place, _, preprocess_ms, frozen) in enumerate(prepared):
            own = {name: value[row : row + 1] for name, value in outputs.items()}
            timings = {"preprocess": preprocess_ms, "inference": inference_ms}
            try:
                answers[place] = self._finish(own, timings, frozen)
            except RgsiamError as error:
                answers[place] = error
        return answers

    def _one(self, image_HW3: ImageBGR) -> tuple[Mapping[str, np.ndarray], dict[str, float]]:
        began = time.perf_counter()
        input_3HW = self._live_view.prepare(image_HW3)
        timings = {"preprocess": _since(began)}
        began = time.perf_counter()
        if self._batch == 1:
            outputs: Mapping[str, np.ndarray] = self._engine.infer(
                {network_io.IMAGE: input_3HW[None]}
            )
        else:
            outputs = infer_all(self._engine, input_3HW[None], self._batch)
        return outputs, timings | {"inference": _since(began)}

    def _finish(
        self, outputs: Mapping[str, np.ndarray], timings: dict[str, float], frozen: bool
    ) -> PoseEstimate:
        """From the absolute branch's outputs for one image to the answer."""
        began = time.perf_counter()
        answer = absolute = self._answerer.absolute(outputs)
        timings["pose"] = _since(began)
        if self._answerer.refines:
            began = time.perf_counter()
            answer = self._answerer.refined(outputs, absolute) or absolute
            timings["refinement"] = _since(began)
        covariance, trust = self._answerer.judge(answer)
        if answer.branch == "absolute" and self._answerer.refines and trust is not None:
            trust = min(trust, NO_NEIGHBOUR)
        raw = answer.raw_covariance_66
        return PoseEstimate(
            answer.T_map_camera,
            covariance,
            timings,
            answer.branch,
            answer.quality,
            None if raw is None else rotate_axes(raw, absolute.T_map_camera[:3, :3]),
            trust,
            frozen,
        )

    def close(self) -> None:
        """Release the engines."""
        self._serving.close()


def _since(began: float) -> float:
    """Milliseconds."""
    return (time.perf_counter() - began) * 1e3
