"""Convert between ROS messages and the core's types."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, PoseStamped, PoseWithCovarianceStamped, TransformStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from rgsiam_ros.camera.decoding import decode_message
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.geometry.conversions import NANOSECONDS, quaternion_xyzw_of
from rgsiam_ros.geometry.poses import Array


def camera_from_message(info: CameraInfo) -> Camera:
    """The camera model of a CameraInfo. Raises CameraError."""
    return Camera.from_camera_info(info.width, info.height, info.k, info.distortion_model, info.d)


def stamp_message(nanoseconds: int) -> Time:
    """A ``builtin_interfaces/Time`` of integer nanoseconds."""
    return Time(sec=nanoseconds // NANOSECONDS, nanosec=nanoseconds % NANOSECONDS)


def pose_message(header: Header, T: Array) -> PoseStamped:
    """A ``(4, 4)`` pose in the header's frame, metres, as PoseStamped."""
    return PoseStamped(header=header, pose=_pose(T))


def pose_with_covariance_message(
    header: Header, T: Array, covariance_66: Array
) -> PoseWithCovarianceStamped:
    """A ``(4, 4)`` pose in the header's frame, metres, with its covariance.

    covariance_66: ``(6, 6)`` about fixed axes of the map, x y z rotX rotY rotZ, metres and radians.
    """
    message = PoseWithCovarianceStamped(header=header)
    message.pose.pose = _pose(T)
    message.pose.covariance = np.asarray(covariance_66, np.float64).ravel()
    return message


def transform_message(parent: str, child: str, nanoseconds: int, T: Array) -> TransformStamped:
    """The transform ``T_parent_child`` ``(4, 4)``, metres, as TransformStamped."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = stamp_message(nanoseconds)
    pose = _pose(T)
    for axis in "xyz":
        setattr(message.transform.translation, axis, getattr(pose.position, axis))
    message.transform.rotation = pose.orientation
    return message


def _pose(T: Array) -> Pose:
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = (float(value) for value in T[:3, 3])
    q = pose.orientation
    q.x, q.y, q.z, q.w = (float(value) for value in quaternion_xyzw_of(T))
    return pose


@dataclass(frozen=True)
class ReceivedImage:
    """An image message that waits for its pose."""

    message: Image | CompressedImage
    at: float
    """Time of receipt, seconds of the monotonic clock."""
    decoded: ImageBGR | Exception | None = None
    """The decoded image, or the error of decoding it; None before `decode`."""

    def decode(self) -> ReceivedImage:
        """A copy with the decoded image, or with the error that `image` then raises."""
        if self.decoded is not None:
            return self
        try:
            return replace(self, decoded=decode_message(self.message))
        except Exception as error:  # whatever failed, `image` raises it in the worker's thread
            return replace(self, decoded=error)

    def image(self) -> ImageBGR:
        """``(H, W, 3)`` uint8 BGR. Raises ImageError."""
        decoded = self.decode().decoded
        if isinstance(decoded, Exception):
            raise decoded
        assert decoded is not None
        return decoded
