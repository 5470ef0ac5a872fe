"""The absolute branch as a helper of the geometric branch, when the last pose does not help.

It says where to look, and whether what is found agrees.
"""

from __future__ import annotations

from dataclasses import replace

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.engines.selection import select_engine
from rgsiam_ros.engines.served import absolute_network
from rgsiam_ros.errors import EngineError
from rgsiam_ros.localization.absolute_estimator import AbsoluteEstimator
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.localization.pose_estimate import PoseEstimate


class AbsolutePrior:
    """Gives the absolute pose of an image, if it is trusted. Map images near it become candidates."""

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Start the best engine that passes the self-test.

        options: those of the geometric branch's engine. ONNX Runtime stands in for OpenVINO: the network takes
        about as long there and starts sooner. Raises EngineError, and BundleError for a bundle without an
        absolute branch.
        """
        network = absolute_network(bundle)
        offered = options.precision in network.offered
        own = replace(
            options,
            engine="onnxruntime" if options.engine in ("auto", "openvino") else options.engine,
            precision=options.precision if offered else "auto",
            batch=1,
        )
        self._engine = select_engine(bundle, own, network)
        self._estimator = AbsoluteEstimator(bundle, self._engine.precision)
        self._view = LiveView(bundle, self._estimator.preprocessing)

    def use_camera(self, camera: Camera) -> None:
        """Adapt to the live camera. Raises CameraError."""
        self._view.use_camera(camera)

    def estimate(self, image_HW3: ImageBGR) -> PoseEstimate | None:
        """The estimate for a BGR uint8 ``(H, W, 3)`` image; None if it is not trusted."""
        input_CHW = self._estimator.prepare(self._view, image_HW3)
        try:
            outputs = self._engine.engine.infer({network_io.IMAGE: input_CHW[None]})
            estimate = self._estimator.estimate(outputs, {})
        except EngineError:
            return None
        return None if estimate.lost else estimate

    def close(self) -> None:
        """Release the engine."""
        self._engine.close()
