"""`relocalize`: the lifecycle node. Images in, poses of the vehicle in the map frame out."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidParameterException, InvalidParameterValueException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.camera import Camera
from rgsiam_ros.covariance import check_covariance, decouple_plane, move_to_body_point
from rgsiam_ros.errors import BundleError, CameraError, RgsiamError, TransformUnavailableError
from rgsiam_ros.geometry import Array, invert
from rgsiam_ros.node.engine_log import log_serving
from rgsiam_ros.node.log_throttle import LogThrottle
from rgsiam_ros.node.messages import camera_from_message, image_from_message, stamp_ns
from rgsiam_ros.node.node_gate import NodeGate
from rgsiam_ros.node.parameters import declare_all, mount_from_parameters, why_refused
from rgsiam_ros.node.pose_output import PoseOutput
from rgsiam_ros.node.status import StatusOutput
from rgsiam_ros.node.stream_monitor import StreamMonitor
from rgsiam_ros.node.tf_output import TfFrames, TfOutput
from rgsiam_ros.node.transforms import create_transforms
from rgsiam_ros.node.worker import NewestWorker
from rgsiam_ros.relocalizer import PoseEstimate, Relocalizer

NAME = "relocalize"
WAIT_FOR_FRAME_S = 10.0
LONGEST_WAIT_S = 0.2
OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


def newest_image_qos() -> QoSProfile:
    """Sensor data, and only the newest."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class RelocalizeNode(LifecycleNode):
    """Configure loads the bundle, activate publishes. Decoding and inference run in a worker."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NAME, **node_options)
        self._relocalizer: Relocalizer | None = None
        self._active = False
        self._camera_news: Camera | CameraError | None = None
        self._last_camera: Camera | None = None
        self._camera_problem: str | None = None
        self._tf: TfOutput | None = None
        self._gate: NodeGate | None = None
        self._monitor = StreamMonitor()
        self._inputs: list[Any] = []
        self._throttle = LogThrottle()
        self.add_on_set_parameters_callback(self._check_parameters)
        declare_all(self)
        self._poses = PoseOutput(self)
        self._status = StatusOutput(self)
        self._transforms = create_transforms(self)
        self._worker = NewestWorker(self._process, "relocalizer")

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Load the bundle and start listening."""
        log = self.get_logger()
        path = self._value("bundle")
        if not path:
            log.error("parameter bundle is empty: set it to the folder of a bundle")
            return FAILED
        try:
            self._relocalizer = Relocalizer.from_bundle(
                path,
                self._value("engine"),
                precision=self._value("precision"),
                threads=self._value("threads"),
                branch=self._value("branch"),
                cache=Path(self._value("engine_cache")) if self._value("engine_cache") else None,
                fallback=self._value("engine_fallback"),
                frozen_images=self._value("frozen_images"),
            )
            self._open_outputs(self._relocalizer.manifest)
        except RgsiamError as error:
            log.error(f"cannot configure: {error}")
            self._close()
            return FAILED
        manifest = self._relocalizer.manifest
        self._mount_parameter = mount_from_parameters(self)
        self._open_inputs()
        log_serving(log, self._relocalizer.serving)
        info = self._relocalizer.describe_engine()
        log.info(
            f"bundle {manifest.name} ({path}), engine {info.name} {info.version} {info.precision} "
            f"on {info.device}, {self._relocalizer.branch} branch; publishing {self._base_frame} in "
            f"{self._map_frame}"
        )
        if not self._relocalizer.calibrated:
            log.warning(
                f"bundle {manifest.name} is not calibrated: its covariance is constant, and the node "
                "publishes even when it is lost; run `rgsiam calibrate`"
            )
        self._status.configured(manifest.name)
        return OK

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Start publishing."""
        result = super().on_activate(state)
        self._active = True
        return result

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Stop publishing; the image in work is still finished, but not published."""
        self._active = False
        self._worker.drain(WAIT_FOR_FRAME_S)
        if self._tf is not None:
            self._tf.pause()
        if self._gate is not None:
            self._gate.reset()
        return super().on_deactivate(state)

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Forget the bundle."""
        self._close()
        return OK

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """As deactivate and cleanup together."""
        self._active = False
        self._close()
        return OK

    def autostart(self) -> None:
        """Configure and activate, where the parameter says so."""
        if not self._value("autostart"):
            return
        if self.trigger_configure() == OK:
            self.trigger_activate()
        else:
            self.get_logger().error("autostart failed: mend the cause above, then configure")

    def destroy_node(self) -> None:
        """Stop the worker before the node goes."""
        self._active = False
        self._worker.stop()
        self._close()
        super().destroy_node()

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            reason = why_refused(parameter, configured=self._relocalizer is not None)
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _open_inputs(self) -> None:
        transport = self._value("image_transport")
        kind, topic = (
            (Image, "image") if transport == "raw" else (CompressedImage, "image/compressed")
        )
        self._image_topic = self.resolve_topic_name(topic)
        self._inputs = [
            self.create_subscription(
                kind,
                topic,
                self._on_image,
                newest_image_qos(),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            ),
            self.create_subscription(
                CameraInfo, "camera_info", self._on_camera_info, qos_profile_sensor_data
            ),
        ]

    def _open_outputs(self, manifest: Manifest) -> None:
        """Raises BundleError where the bundle cannot give what is asked for."""
        frames = TfFrames(
            map=self._value("map_frame") or manifest.map_frame,
            odom=self._value("odom_frame"),
            base=self._value("base_frame"),
        )
        refuse_equal_frames(frames, self._value("tf_mode"))
        if self._value("publish_fix") and manifest.datum is None:
            raise BundleError(
                f"{self._value('bundle')} has no datum, so no fix can be published: set publish_fix to "
                "false, or give the bundle one with `rgsiam georeference`"
            )
        self._map_frame, self._base_frame = frames.map, frames.base
        datum = manifest.datum if self._value("publish_fix") else None
        self._poses.configure(frames.map, frames.base, datum)
        self._tf = TfOutput(self, self._transforms, self._value("tf_mode"), frames)
        self._gate = NodeGate(self, self._value("gate"))

    def _close(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        for part in (self._tf, self._gate):
            if part is not None:
                part.close()
        idle = self._worker.drain(WAIT_FOR_FRAME_S)
        if self._relocalizer is not None and idle:  # else it still uses the engine's memory
            self._relocalizer.close()
        self._relocalizer = self._tf = self._gate = None
        self._status.unconfigured()
        self._last_camera = self._camera_news = self._camera_problem = None

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._monitor.add(stamp_ns(message.header.stamp))
        complaint = self._monitor.complaint()
        if complaint:
            self.get_logger().warning(complaint, throttle_duration_sec=30.0)
        if self._active:
            self._worker.submit(message)

    def _on_camera_info(self, message: CameraInfo) -> None:
        try:
            camera = camera_from_message(message)
        except CameraError as error:
            self.get_logger().warning(f"camera_info: {error}", throttle_duration_sec=30.0)
            return
        if camera != self._last_camera:
            self._last_camera = camera
            self._camera_news = camera

    def _process(self, message: Image | CompressedImage) -> None:
        """One image, in the worker's thread. Whatever is wrong with it, the node lives on."""
        log, at_ns = self.get_logger(), stamp_ns(message.header.stamp)
        try:
            relocalizer = self._relocalizer
            if relocalizer is None:
                return
            self._take_camera_news(relocalizer)
            if self._camera_problem is not None:
                raise CameraError(self._camera_problem)
            T_base_camera = self._mount(message.header.frame_id)
            estimate = relocalizer.estimate(image_from_message(message))
            if self._active:
                self._publish(at_ns, estimate, T_base_camera)
        except RgsiamError as error:
            self._status.rejected(at_ns, str(error))
            if self._throttle.may_log(str(error)):
                log.warning(
                    f"no pose for an image on {self._image_topic} "
                    f"({self._status.counters.rejected} rejected): {error}"
                )
        except Exception:
            self._status.rejected(at_ns, "unexpected failure, see the log")
            if self._throttle.may_log("unexpected"):
                log.error(f"no pose, unexpected failure:\n{traceback.format_exc()}")

    def _take_camera_news(self, relocalizer: Relocalizer) -> None:
        camera, self._camera_news = self._camera_news, None
        if camera is None:
            return
        try:
            view = relocalizer.use_camera(camera)
        except CameraError as error:
            self._camera_problem = f"the camera cannot be reconciled with the bundle: {error}"
            self.get_logger().error(self._camera_problem)
            return
        self._camera_problem = None
        if not view.identical:
            x, y, w, h = view.crop_xywh
            self.get_logger().warning(
                f"the camera differs from the bundle's ({view.explanation}): its images are "
                f"cropped to {w}x{h}+{x}+{y} and resized"
            )

    def _mount(self, image_frame: str) -> Array:
        camera_frame = self._value("camera_frame") or image_frame
        if camera_frame.lstrip("/") == self._base_frame.lstrip("/"):
            return np.eye(4)
        try:
            return self._transforms.lookup(self._base_frame, camera_frame, None)
        except TransformUnavailableError as error:
            if self._mount_parameter is not None:
                return self._mount_parameter
            raise TransformUnavailableError(
                f"the camera's mount is unknown ({error}): publish {self._base_frame} -> "
                f"{camera_frame or '(the image has no frame_id: set camera_frame)'} on /tf_static, "
                "or set mount_translation and mount_quaternion_xyzw"
            ) from error

    def _publish(self, at_ns: int, estimate: PoseEstimate, T_base_camera: Array) -> None:
        """The pose, unless the vehicle is lost or cannot be there: then only the status."""
        if estimate.lost:
            self._status.lost(at_ns, estimate, estimate.why_lost)
            return
        T_camera_base = invert(T_base_camera)
        T_map_base = estimate.T_map_camera @ T_camera_base
        covariance = move_to_body_point(
            estimate.covariance_66, estimate.T_map_camera, T_camera_base
        )
        if self._value("planar_covariance"):
            covariance = decouple_plane(covariance)
        try:
            check_covariance(covariance)
        except ValueError as error:
            self._status.lost(at_ns, estimate, f"lost: at {self._base_frame}, {error}")
            return
        gate, tf = self._gate, self._tf
        answer = None if gate is None else gate.check(at_ns, T_map_base, covariance)
        if answer is not None and not answer.passed:
            self._status.gated(at_ns, estimate, covariance, answer)
            return
        self._poses.publish(at_ns, T_map_base, covariance)
        if tf is not None:
            tf.send(T_map_base, at_ns)
        self._status.published(at_ns, estimate, covariance, answer)


def refuse_equal_frames(frames: TfFrames, tf_mode: str) -> None:
    """Raises RgsiamError where one name stands for two frames."""
    if frames.map.lstrip("/") == frames.base.lstrip("/"):
        raise RgsiamError(f"map_frame and base_frame are both {frames.map}: name two frames")
    if tf_mode == "map_to_odom" and frames.odom.lstrip("/") in (
        frames.map.lstrip("/"),
        frames.base.lstrip("/"),
    ):
        raise RgsiamError(
            f"odom_frame is {frames.odom}, which is also the map or the base: name three frames"
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM.

    The signals are ours rather than rclpy's: its wake-up of a waiting executor can be lost on a
    busy machine, and the node would then never stop. Here the wait is bounded.
    """
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: stop.set())
    try:
        node = RelocalizeNode()
    except (InvalidParameterException, InvalidParameterValueException) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        sys.exit(2)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        node.autostart()
        while not stop.is_set():
            executor.spin_once(timeout_sec=LONGEST_WAIT_S)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
