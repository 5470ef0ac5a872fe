"""Between ROS messages and the core's types."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, PoseStamped, PoseWithCovarianceStamped, TransformStamped
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from rgsiam_ros.camera import Camera
from rgsiam_ros.geometry import Array, quaternion_wxyz, quaternion_xyzw_from_wxyz
from rgsiam_ros.images import decode_compressed, decode_raw
from rgsiam_ros.preprocessing import ImageBGR


def image_from_message(message: Image | CompressedImage) -> ImageBGR:
    """``(H, W, 3)`` uint8 BGR. Raises ImageError."""
    if isinstance(message, CompressedImage):
        return decode_compressed(message.data, message.format)
    return decode_raw(
        message.encoding,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
        message.data,
    )


def camera_from_message(info: CameraInfo) -> Camera:
    """The camera model of a CameraInfo. Raises CameraError."""
    return Camera.from_camera_info(info.width, info.height, info.k, info.distortion_model, info.d)


def stamp_ns(stamp: Time) -> int:
    """Integer nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def stamp_message(nanoseconds: int) -> Time:
    """The reverse of `stamp_ns`."""
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def pose_message(header: Header, T: Array) -> PoseStamped:
    """A ``(4, 4)`` pose as PoseStamped."""
    return PoseStamped(header=header, pose=_pose(T))


def pose_with_covariance_message(
    header: Header, T: Array, covariance_66: Array
) -> PoseWithCovarianceStamped:
    """A ``(4, 4)`` pose and its covariance about fixed axes, x y z rotX rotY rotZ."""
    message = PoseWithCovarianceStamped(header=header)
    message.pose.pose = _pose(T)
    message.pose.covariance = np.asarray(covariance_66, np.float64).ravel()
    return message


def transform_message(parent: str, child: str, nanoseconds: int, T: Array) -> TransformStamped:
    """``T_parent_child`` as TransformStamped."""
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
    quaternion_xyzw = quaternion_xyzw_from_wxyz(quaternion_wxyz(T))
    q = pose.orientation
    q.x, q.y, q.z, q.w = (float(value) for value in quaternion_xyzw)
    return pose
