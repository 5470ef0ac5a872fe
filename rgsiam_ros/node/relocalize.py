"""The lifecycle node `relocalize`. It takes images and publishes poses of the vehicle in the map frame."""

from __future__ import annotations

import threading
import time
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.geometry.conversions import stamp_to_ns
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.node.bundle_loading import (
    LoadedBundle,
    close_unless_fitting,
    load,
    log_loaded,
    map_frame_of,
    refuse_without_datum,
)
from rgsiam_ros.node.bundle_reload import BundleReload
from rgsiam_ros.node.camera import CameraMount, LiveCamera
from rgsiam_ros.node.guard import answer_always, errors_in_log, transition
from rgsiam_ros.node.health import Health, cause_of
from rgsiam_ros.node.image_stream import ImageStream, delay_s
from rgsiam_ros.node.input_topics import (
    camera_info_topic,
    image_topic,
    subscribe_camera_info,
    subscribe_images,
)
from rgsiam_ros.node.log_throttle import LogThrottle
from rgsiam_ros.node.map_output import MapOutput
from rgsiam_ros.node.messages import ReceivedImage
from rgsiam_ros.node.odometry_gate import OdometryGate
from rgsiam_ros.node.parameters import checked, declare_all, shown_ns
from rgsiam_ros.node.pose_hint import PoseHint
from rgsiam_ros.node.pose_output import PoseOutput
from rgsiam_ros.node.program import run
from rgsiam_ros.node.raw_images import choose_decoder
from rgsiam_ros.node.status import ACTIVE, INACTIVE, UNCONFIGURED, StatusOutput
from rgsiam_ros.node.tf import TfOutput, create_transforms, frames_from_parameters
from rgsiam_ros.node.worker import NewestWorker
from rgsiam_ros.uncertainty.covariance import check_covariance, decouple_plane, vehicle_pose

NAME = "relocalize"
WAIT_FOR_FRAME_S = 0.3
"""Longest wait for the image that is being processed when the node ends."""
OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class RelocalizeNode(LifecycleNode):
    """Loads the bundle when it is configured, and publishes poses while it is active.

    Decoding and inference run in the thread of a `NewestWorker`.
    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NAME, **node_options)
        self._loaded: LoadedBundle | None = None
        self._active, self._enabled = False, True
        self._forget = threading.Event()
        # held while a pose is published, and while what decides on it changes; never during inference
        self._publishing = threading.Lock()
        # how often poses were stopped: one that was begun before is not published
        self._stopped = 0
        self.ended = True
        self.transition_error = ""
        self._tf: TfOutput | None = None
        self._gate: OdometryGate | None = None
        self._inputs: list[Any] = []
        self._throttle = LogThrottle()
        self._health = Health()
        self._image_stream = ImageStream(self, self._health, self._throttle)
        self._camera = LiveCamera(self, self._health)
        self._bundle_reload = BundleReload(self, self._adopt)
        declare_all(self, self._check_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self._poses = PoseOutput(self)
        self._map_output = MapOutput(self, self._throttle)
        self._status = StatusOutput(
            self, self._health, self._image_stream, self._camera, self._other_findings
        )
        self._transforms = create_transforms(self)
        self._decode = choose_decoder(self.get_logger())
        self._worker = NewestWorker(
            self._process,
            "relocalizer",
            lambda: self._health.count("skipped"),
            ReceivedImage.decode,
        )
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(SetBool, "~/enable", self._on_enable)
        answer_always(self)

    @transition
    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Load the bundle, then subscribe to images and camera_info."""
        path = self._value("bundle")
        if not path:
            return self._fail("parameter bundle is empty: set it to the folder of a bundle")
        try:
            self._loaded = load(self, path)
            self._open_outputs(self._loaded.relocalizer.manifest)
            self._mount = CameraMount(self, self._transforms, self._base_frame, self._health)
        except (RgsiamError, OSError) as error:
            return self._fail(str(error))
        self._open_inputs()
        log_loaded(self, self._loaded, f"publishing {self._base_frame} in {self._map_frame}")
        self._status.set_identity(self._loaded.identity())
        self._status.set_state(INACTIVE)
        return OK

    @transition
    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Start publishing."""
        result = super().on_activate(state)
        if self._loaded is not None:
            self._map_output.publish_points(self._loaded.relocalizer, self._map_frame)
        self._active = True
        self._status.set_state(ACTIVE)
        return result

    @transition
    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Stop publishing. The image that is being processed goes on, but its pose is not published."""
        with self._publishing:
            self._active = False
            self._stopped += 1
            if self._tf is not None:
                self._tf.pause()
            if self._gate is not None:
                self._gate.reset()
        self._worker.discard()
        self._status.set_state(INACTIVE)
        return super().on_deactivate(state)

    @transition
    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Unsubscribe and release the bundle."""
        self._close()
        return OK

    @transition
    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """Deactivate and clean up."""
        self._close()
        return OK

    def on_error(self, state: State) -> TransitionCallbackReturn:
        """Clean up after a transition that failed with an error. The node is then not configured."""
        self._close()
        self._status.set_failure(self.transition_error)
        return OK

    def autostart(self) -> bool:
        """Configure and activate, if the parameter ``autostart`` is set.

        False if that fails and the process shall then end.
        """
        if not self._value("autostart"):
            return True
        if self.trigger_configure() == OK and self.trigger_activate() == OK:
            return True
        ends = bool(self._value("exit_on_failure"))
        what = "the node ends" if ends else "then configure"
        self.get_logger().error(f"autostart failed: correct the error above; {what}")
        return not ends

    def destroy_node(self) -> None:
        """Stop the worker, then destroy the node. `ended` is False afterwards if the worker still works."""
        self._close()
        self.ended = self._worker.stop(WAIT_FOR_FRAME_S)
        super().destroy_node()

    def _fail(self, reason: str) -> TransitionCallbackReturn:
        """Give up configuring, and say why in the log, on ``~/status`` and in ``/diagnostics``."""
        self.get_logger().error(f"cannot configure: {reason}")
        self._close()
        self._status.set_failure(reason)
        return FAILED

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _check_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        if self._loaded is None:
            return checked(self, parameters, False, lambda _: None)
        map_frame = self._map_frame
        return checked(
            self, parameters, True, lambda p: self._bundle_reload.why_refused(p, map_frame)
        )

    def _take_parameters(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == "bundle" and self._loaded is not None:
                self._bundle_reload.begin(parameter.value, self._loaded.path)

    def _adopt(self, loaded: LoadedBundle) -> None:
        """Use another bundle from the next image on. Raises BundleError if its map frame or datum does not fit."""
        manifest, old = loaded.relocalizer.manifest, self._loaded
        close_unless_fitting(self, loaded, self._map_frame)
        with self._publishing:
            self._configure_poses(manifest)
            self._loaded = loaded
            self._stopped += 1
            self._camera.renew()
            self._forget.set()
        self._status.set_identity(loaded.identity())
        log_loaded(self, loaded, f"it serves from now on, in {self._map_frame}")
        self._map_output.publish_points(loaded.relocalizer, self._map_frame)
        if old is not None:
            self._release(old)

    def _release(self, loaded: LoadedBundle) -> None:
        """Close the engine once the worker does not use it any more."""

        def close() -> None:
            with errors_in_log(self, self._throttle, "the engine is not released"):
                loaded.relocalizer.close()

        self._worker.when_idle(close)

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """``~/reset``: forget the gate, the frozen camera and the stamps before the next image."""
        self._image_stream.forget()
        self._forget.set()
        response.success, response.message = True, "gate, frozen camera and stamps are forgotten"
        self.get_logger().info(f"reset: {response.message}")
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """``~/enable``: process images, or ignore them.

        No pose is published after the response to ``false``.
        """
        with self._publishing:
            self._enabled = bool(request.data)
            self._stopped += not self._enabled
        if not self._enabled:
            self._worker.discard()
        self._status.set_enabled(self._enabled)
        response.success, response.message = True, "enabled" if self._enabled else "disabled"
        self.get_logger().info(response.message + ("" if request.data else ": images are ignored"))
        return response

    def _other_findings(self) -> list[tuple[int, str]]:
        findings = self._bundle_reload.findings()
        findings += self._loaded.findings() if self._loaded else []
        if self._active and self._enabled:
            findings += self._image_stream.findings() + self._camera.findings()
        return findings

    def _open_inputs(self) -> None:
        images = image_topic(self, transport := self._value("image_transport"))
        camera_info = camera_info_topic(self, images)
        self._image_stream.topic = images
        self._camera.open(images, camera_info)
        self._hint = PoseHint(self, self._map_frame)
        self._inputs.append(self._hint.subscription)
        self._inputs.append(subscribe_images(self, transport, images, self._on_image))
        self._inputs.append(subscribe_camera_info(self, camera_info, self._camera.take))

    def _open_outputs(self, manifest: Manifest) -> None:
        """Raises RgsiamError if frame names are equal, or if the bundle has no datum for ``publish_fix``."""
        frames = frames_from_parameters(self, map_frame_of(self, manifest))
        refuse_without_datum(self, self._value("bundle"), manifest)
        self._map_frame, self._base_frame = frames.map, frames.base
        self._configure_poses(manifest)
        self._tf = TfOutput(self, self._transforms, self._value("tf_mode"), frames)
        self._gate = OdometryGate(self, self._value("gate"))

    def _configure_poses(self, manifest: Manifest) -> None:
        datum = manifest.datum if self._value("publish_fix") else None
        self._poses.configure(self._map_frame, self._base_frame, datum)

    def _close(self) -> None:
        self._bundle_reload.cancel()
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        with self._publishing:
            loaded, outputs = self._loaded, (self._tf, self._gate, self._poses)
            self._active = False
            self._stopped += 1
            self._loaded = self._tf = self._gate = None
        for output in outputs:
            if output is not None:
                output.close()
        self._worker.discard()
        if loaded is not None:
            self._release(loaded)
        self._camera.forget()
        self._image_stream.forget()
        self._image_stream.topic = ""
        self._status.set_state(UNCONFIGURED)

    def _on_image(self, message: Image | CompressedImage) -> None:
        if not (self._active and self._enabled):
            return
        at_ns, reason = self._image_stream.check_image(message.header.stamp)
        loaded = self._loaded
        if reason:
            self._reject(at_ns, reason, "stamp")
        elif loaded is not None:
            enough = loaded.relocalizer.enough if self._camera.any_resolution else None
            how = (enough, loaded.relocalizer.levels, self._decode)
            self._worker.submit(ReceivedImage(message, time.monotonic(), *how))

    def _process(self, received: ReceivedImage) -> None:
        """Process one image, in the worker's thread. No error ends the node."""
        with errors_in_log(self, self._throttle, "no pose, unexpected failure"):
            at_ns = stamp_to_ns(received.message.header.stamp)
            try:
                self._localize(at_ns, received)
            except RgsiamError as error:
                self._reject(at_ns, str(error), cause_of(error))
            except Exception:
                self._status.rejected(at_ns, "unexpected failure, see the log", "unexpected")
                raise

    def _localize(self, at_ns: int, received: ReceivedImage) -> None:
        """Publish the pose of an image. Raises RgsiamError if it has none."""
        with self._publishing:
            loaded, mount, stopped = self._loaded, self._mount, self._stopped
            if loaded is None:
                return
            self._forget_if_asked(loaded)
            self._camera.apply(loaded.relocalizer, received.message.header.frame_id)
        T_base_camera = mount.lookup(received.message.header.frame_id)
        self._hint.give(loaded.relocalizer, T_base_camera)
        image = received.image()
        self._camera.check_size(image)
        self._image_stream.check_contrast(image)
        estimate = loaded.relocalizer.estimate(image)
        with self._publishing:
            if not (self._active and self._enabled) or self._stopped != stopped:
                return
            self._publish(shown_ns(self, at_ns), received.at, estimate, T_base_camera)
        self._map_output.show_matches(received, estimate, loaded.relocalizer)

    def _reject(self, at_ns: int | None, reason: str, cause: str) -> None:
        self._status.rejected(at_ns, reason, cause)
        if self._throttle.may_log(cause):
            count = self._health.values()["rejected"]
            self.get_logger().warning(
                f"no pose for an image on {self._image_stream.topic} ({count} rejected): {reason}"
            )

    def _forget_if_asked(self, loaded: LoadedBundle) -> None:
        if self._forget.is_set():
            self._forget.clear()
            loaded.relocalizer.forget()
            if self._gate is not None:
                self._gate.reset()

    def _publish(
        self, at_ns: int, received_at: float, estimate: PoseEstimate, T_base_camera: Array
    ) -> None:
        """Publish the pose. If the vehicle is lost or the gate refuses the pose, publish only the status."""
        if estimate.lost:
            self._status.lost(at_ns, estimate, estimate.why_lost)
            return
        T_map_base, covariance = vehicle_pose(
            estimate.T_map_camera, estimate.covariance_66, T_base_camera
        )
        if self._value("planar_covariance"):
            covariance = decouple_plane(covariance)
        try:
            check_covariance(covariance)
        except ValueError as error:
            self._status.lost(at_ns, estimate, f"lost: at {self._base_frame}, {error}")
            return
        gate, tf = self._gate, self._tf
        decision = None if gate is None else gate.check(at_ns, T_map_base, covariance)
        if decision is not None and not decision.passed:
            self._status.gated(at_ns, estimate, covariance, decision)
            return
        self._poses.publish(at_ns, T_map_base, covariance)
        if tf is not None:
            tf.send(T_map_base, at_ns)
        now_ns = self.get_clock().now().nanoseconds
        delay = delay_s(at_ns, now_ns, time.monotonic() - received_at)
        self._status.published(at_ns, estimate, covariance, decision, delay)


def main(arguments: list[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM."""
    run(RelocalizeNode, NAME, arguments)


if __name__ == "__main__":
    main()
