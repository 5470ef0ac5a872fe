"""One image in, one pose out: the whole method on the vehicle, without ROS and without torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rgsiam_ros import networks
from rgsiam_ros.bundle import Bundle, Manifest
from rgsiam_ros.bundle.manifest import ABSOLUTE_NAME, RELATIVE_NAME
from rgsiam_ros.camera import Camera, ViewMatch, match_view
from rgsiam_ros.covariance import rotate_axes
from rgsiam_ros.engines import Engine, EngineInfo, create_engine
from rgsiam_ros.errors import BundleError, CameraError
from rgsiam_ros.geometry import Array
from rgsiam_ros.networks import raw_covariance, restore_poses
from rgsiam_ros.preprocessing import ImageBGR, check_image, preprocess
from rgsiam_ros.refinement import Disagreement, Refiner

BRANCHES = ("auto", "absolute", "refined")
"""``refined``: the relative branch over the map's features; ``absolute``: the network's global pose
alone; ``auto``: refined where the bundle can."""


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
    disagreement: Disagreement | None = None
    """Of a refined pose."""
    raw_covariance_66: Array | None = None
    """The network's own, uncalibrated uncertainty of the *absolute* pose; axes as above."""


class Relocalizer:
    """A bundle made ready to answer. Not thread-safe: one image at a time."""

    def __init__(self, bundle: Bundle, engine: Engine, refiner: Refiner | None = None) -> None:
        """refiner: None for the absolute branch alone."""
        self._bundle = bundle
        self._engine = engine
        self._refiner = refiner
        self._mask_HW = bundle.mask_HW
        self._camera = bundle.manifest.camera
        self._view: ViewMatch | None = None
        self._covariance_camera_axes = np.asarray(bundle.manifest.covariance.matrix, np.float64)

    @classmethod
    def from_bundle(
        cls,
        path: str | Path,
        engine: str = "auto",
        *,
        threads: int = 0,
        branch: str = "auto",
    ) -> Relocalizer:
        """Load the bundle at `path` and start an engine on it.

        engine: a name from `rgsiam_ros.engines.ENGINES`, or ``auto``; threads: CPU threads for one
        inference, 0 lets the engine choose; branch: one of `BRANCHES`. Raises BundleError (also where
        the bundle cannot refine but shall) or EngineError.
        """
        if branch not in BRANCHES:
            raise BundleError(f"branch {branch!r} is unknown: choose one of {', '.join(BRANCHES)}")
        bundle = Bundle.load(path)
        if branch == "refined" and bundle.manifest.refinement is None:
            raise BundleError(
                f"{path} has no relative branch: set branch to absolute, or train and export with "
                "relative_pose switched on"
            )
        absolute = create_engine(engine, bundle.content(ABSOLUTE_NAME), threads=threads)
        if branch == "absolute" or bundle.manifest.refinement is None:
            return cls(bundle, absolute)
        relative = create_engine(engine, bundle.content(RELATIVE_NAME), threads=threads)
        return cls(bundle, absolute, Refiner(bundle, relative))

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle in use."""
        return self._bundle.manifest

    @property
    def branch(self) -> Literal["absolute", "refined"]:
        """Which branch answers."""
        return "absolute" if self._refiner is None else "refined"

    def describe_engine(self) -> EngineInfo:
        """What runs the network."""
        return self._engine.describe()

    def use_camera(self, camera: Camera) -> ViewMatch:
        """Adapt to the live camera: crop its images to the view that the network learnt with.

        Raises CameraError when that is impossible; images are then treated as before the call.
        """
        view = match_view(camera, self.manifest.camera)
        self._camera, self._view = camera, view
        return view

    def estimate(self, image_HW3: ImageBGR) -> PoseEstimate:
        """Pose of the camera that took a BGR uint8 ``(H, W, 3)`` image.

        Raises ImageError or CameraError for an image that cannot be used and EngineError when the
        network fails or answers with numbers that are no pose.
        """
        start = time.perf_counter()
        image = check_image(image_HW3)
        input_13HW = preprocess(
            image,
            self.manifest.preprocessing,
            self._camera,
            mask_HW=self._mask_HW,
            crop_xywh=self._crop_for(image),
        )
        preprocessed = time.perf_counter()
        outputs = self._engine.infer({networks.IMAGE: input_13HW})
        inferred = time.perf_counter()
        T_absolute = restore_poses(
            outputs[networks.TRANSLATION][0], outputs[networks.ROTATION][0], self.manifest.target
        )
        raw = raw_covariance(outputs, self.manifest.target, T_absolute)
        covariance = rotate_axes(self._covariance_camera_axes, T_absolute[:3, :3])
        answered = time.perf_counter()
        timings = {
            "preprocess": (preprocessed - start) * 1e3,
            "inference": (inferred - preprocessed) * 1e3,
            "pose": (answered - inferred) * 1e3,
        }
        absolute = PoseEstimate(T_absolute, covariance, timings, raw_covariance_66=raw)
        if self._refiner is None:
            return absolute
        refined = self._refiner.refine(outputs, T_absolute)
        timings["refinement"] = (time.perf_counter() - answered) * 1e3
        if refined is None:
            return absolute
        T_map_camera, covariance, disagreement = refined
        return PoseEstimate(T_map_camera, covariance, timings, "refined", disagreement, raw)

    def close(self) -> None:
        """Release the engines."""
        self._engine.close()
        if self._refiner is not None:
            self._refiner.close()

    def _crop_for(self, image_HW3: ImageBGR) -> tuple[int, int, int, int] | None:
        if self._view is None:
            return None
        height, width = image_HW3.shape[:2]
        scale_x, scale_y = width / self._camera.width, height / self._camera.height
        if abs(scale_x - scale_y) > 0.01 * scale_x:
            raise CameraError(
                f"an image has {width}x{height} pixels, but camera_info says "
                f"{self._camera.width}x{self._camera.height}: publish the camera_info of this image"
            )
        x, y, w, h = self._view.crop_xywh
        return round(x * scale_x), round(y * scale_y), round(w * scale_x), round(h * scale_y)
