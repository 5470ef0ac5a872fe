"""Convert between ROS messages and the core's types."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, PoseStamped, PoseWithCovarianceStamped, TransformStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from rgsiam_ros.camera.decoding import Size, decode_message
from rgsiam_ros.camera.levels import Levels
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.geometry.conversions import NANOSECONDS, quaternion_xyzw_of
from rgsiam_ros.geometry.poses import Array


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


CLOUD_FIELDS = {
    "x": ("<f4", PointField.FLOAT32),
    "y": ("<f4", PointField.FLOAT32),
    "z": ("<f4", PointField.FLOAT32),
    "observations": ("<u4", PointField.UINT32),
}
"""Types of a cloud's fields, in numpy and in the message. Each has 4 bytes."""


def cloud_message(
    header: Header, position_P3: Array, observations_P: NDArray[np.int64]
) -> PointCloud2:
    """Points in the header's frame, metres, with the number of map images that see each one."""
    kinds = [(name, kind) for name, (kind, _) in CLOUD_FIELDS.items()]
    points = np.empty(len(position_P3), kinds)
    for column, name in enumerate("xyz"):
        points[name] = position_P3[:, column]
    points["observations"] = observations_P
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=[
            PointField(name=name, offset=4 * number, datatype=datatype, count=1)
            for number, (name, (_, datatype)) in enumerate(CLOUD_FIELDS.items())
        ],
        point_step=points.itemsize,
        row_step=points.nbytes,
        data=array("B", points.tobytes()),
        is_dense=True,
    )


def image_message(header: Header, image_HW3: ImageBGR) -> Image:
    """A BGR uint8 image as Image."""
    height, width = image_HW3.shape[:2]
    data = array("B", image_HW3.tobytes())  # a plain sequence would be copied byte by byte
    return Image(
        header=header, height=height, width=width, encoding="bgr8", step=3 * width, data=data
    )


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
    enough: tuple[int, int] | None = None
    levels: Levels | None = None
    """Both: see `rgsiam_ros.camera.decoding.decode_message`."""
    decode_by: Callable[[Any, Size | None, Levels | None], ImageBGR] = decode_message
    """Decodes the message, see `rgsiam_ros.node.raw_images`."""
    decoded: ImageBGR | Exception | None = None
    """The decoded image, or the error of decoding it; None before `decode`."""

    def decode(self) -> ReceivedImage:
        """A copy with the decoded image, or with the error that `image` then raises."""
        if self.decoded is not None:
            return self
        try:
            return replace(self, decoded=self.decode_by(self.message, self.enough, self.levels))
        except Exception as error:  # whatever failed, `image` raises it in the worker's thread
            return replace(self, decoded=error)

    def image(self) -> ImageBGR:
        """``(H, W, 3)`` uint8 BGR. Raises ImageError."""
        decoded = self.decode().decoded
        if isinstance(decoded, Exception):
            raise decoded
        assert decoded is not None
        return decoded
