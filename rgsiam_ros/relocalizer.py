"""One image in, one pose out: the whole method on the vehicle, without ROS and without torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from rgsiam_ros.bundle import Bundle, Manifest
from rgsiam_ros.bundle.manifest import Target
from rgsiam_ros.camera import Camera, ViewMatch, match_view
from rgsiam_ros.covariance import rotate_axes
from rgsiam_ros.engines import Engine, EngineInfo, create_engine
from rgsiam_ros.errors import CameraError, EngineError
from rgsiam_ros.geometry import Array, pose_matrix
from rgsiam_ros.preprocessing import ImageBGR, check_image, preprocess

TRANSLATION_OUTPUT = "translation_normalised"
ROTATION_OUTPUT = "rotation_quaternion_wxyz"


@dataclass(frozen=True)
class PoseEstimate:
    """Where the camera was when it took one image."""

    T_map_camera: Array
    """``(4, 4)`` pose of the camera's optical frame (OpenCV axes) in the map frame, metres."""
    covariance_66: Array
    """Order x y z rotX rotY rotZ about fixed *map* axes; metres and radians."""
    timings_ms: dict[str, float]
    """Milliseconds spent in each stage."""


class Relocalizer:
    """A bundle made ready to answer. Not thread-safe: one image at a time."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self._bundle = bundle
        self._engine = engine
        self._mask_HW = bundle.mask_HW
        self._camera = bundle.manifest.camera
        self._view: ViewMatch | None = None
        self._covariance_camera_axes = np.asarray(bundle.manifest.covariance.matrix, np.float64)

    @classmethod
    def from_bundle(
        cls, path: str | Path, engine: str = "auto", *, threads: int = 0
    ) -> Relocalizer:
        """Load the bundle at `path` and start an engine on it.

        engine: a name from `rgsiam_ros.engines.ENGINES`, or ``auto``; threads: CPU threads for one
        inference, 0 lets the engine choose. Raises BundleError or EngineError.
        """
        bundle = Bundle.load(path)
        network = bundle.content("absolute.onnx")
        return cls(bundle, create_engine(engine, network, threads=threads))

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle in use."""
        return self._bundle.manifest

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
        outputs = self._engine.infer(input_13HW)
        inferred = time.perf_counter()
        T_map_camera = restore_poses(
            outputs[TRANSLATION_OUTPUT][0], outputs[ROTATION_OUTPUT][0], self.manifest.target
        )
        covariance = rotate_axes(self._covariance_camera_axes, T_map_camera[:3, :3])
        restored = time.perf_counter()
        timings = {
            "preprocess": (preprocessed - start) * 1e3,
            "inference": (inferred - preprocessed) * 1e3,
            "pose": (restored - inferred) * 1e3,
        }
        return PoseEstimate(T_map_camera, covariance, timings)

    def close(self) -> None:
        """Release the engine."""
        self._engine.close()

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


def restore_poses(translation: ArrayLike, quaternion_wxyz: ArrayLike, target: Target) -> Array:
    """Poses ``(..., 4, 4)``, metres, float64, from a network's normalised float32 outputs.

    translation: ``(..., 3)``, normalised; quaternion_wxyz: ``(..., 4)``, of any length. Raises
    EngineError when a number is not finite or a quaternion is zero.
    """
    metres = np.asarray(target.origin_m) + target.scale_m * np.asarray(translation, np.float64)
    q_wxyz = np.asarray(quaternion_wxyz, np.float64)
    norm = np.linalg.norm(q_wxyz, axis=-1, keepdims=True)
    if not (np.isfinite(metres).all() and np.isfinite(norm).all() and (norm > 1e-6).all()):
        raise EngineError("the network answered with non-finite numbers: the image is dropped")
    return pose_matrix(metres, q_wxyz / norm)
