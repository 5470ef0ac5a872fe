"""Writing of sessions in the town as rosbag2 (mcap) with the topics of a recorded drive."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from scipy.spatial.transform import Rotation

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import ResultsError
from rgsiam_ros.geometry.conversions import quaternion_xyzw_of
from rgsiam_ros.geometry.poses import Array
from rgsiam_training.town.layout import build_town, mesh
from rgsiam_training.town.messages import TYPES, header, new_message, vector
from rgsiam_training.town.renderer import Light, Renderer
from rgsiam_training.town.route import Ride, drive_lap
from rgsiam_training.town.sensors import (
    GPS_FRAME,
    T_BASE_GPS_M,
    SensorNoise,
    sensor_messages,
)

RATE_HZ = 8.0
JPEG_QUALITY = 76
DEPTH_STEP = 5
"""Depth images have every fifth column and row of the rendered depth."""
CAMERA = Camera(width=320, height=180, fx=190.0, fy=190.0, cx=159.5, cy=89.5)
MAP_FRAME, BASE_FRAME, MOUNT_FRAME = "map", "base_link", "camera_mount"
CAMERA_FRAME = "camera_optical_frame"
T_BASE_MOUNT = np.eye(4)
T_BASE_MOUNT[:3, 3] = [1.2, 0.0, 1.6]
T_BASE_MOUNT[:3, :3] = Rotation.from_euler("y", 2.0, degrees=True).as_matrix()
T_MOUNT_CAMERA = np.eye(4)
T_MOUNT_CAMERA[:3, :3] = [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]


@dataclass(frozen=True)
class Session:
    """One recording."""

    name: str
    rides: tuple[Ride, ...]
    """The laps, driven one after another."""
    light: Light
    parked_cars_seed: int
    start_s: int
    """Time of the first image, seconds since 1970."""
    sensors: SensorNoise | None = None
    """Rates and errors of GPS, wheel odometry and IMU. None: the vehicle has only a camera."""


def demo_sessions(seed: int) -> tuple[Session, Session]:
    """Return the session to train on and, five hours later, the drive to relocalize."""
    morning = Light(140.0, 48.0, (1.25, 1.2, 1.1), (0.5, 0.56, 0.65), 0.0012, 3.0)
    afternoon = Light(185.0, 40.0, (1.3, 1.12, 0.92), (0.5, 0.53, 0.61), 0.0016, 9.0)
    mapping = (Ride(-0.6, 0.15, seed + 1), Ride(0.6, 0.15, seed + 2))
    drive = (Ride(0.15, 0.2, seed + 3),)
    return (
        Session("town_map", mapping, morning, seed + 4, 1_790_000_000),
        Session("town_drive", drive, afternoon, seed + 5, 1_790_018_000, SensorNoise()),
    )


def write_session(
    session: Session,
    folder: Path,
    seed: int,
    progress: Callable[[float], None] = lambda _: None,
    depth: bool = False,
) -> Path:
    """Render one session and write it to ``folder/session.name``. The same seed gives the same recording.

    progress: is called with the written share, 0..1. depth: also write depth images, at a fifth of the
    width and height. Raises ResultsError when that folder exists, and RgsiamError when OpenGL is not
    available. A recording that fails is removed.
    """
    target = folder / session.name
    if target.exists():
        raise ResultsError(f"{target} already exists: remove it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    T_map_base_N44 = np.concatenate([drive_lap(ride, RATE_HZ) for ride in session.rides])
    vertices = mesh(build_town(seed, session.parked_cars_seed))
    renderer = Renderer(vertices, CAMERA, session.light)
    T_base_camera = T_BASE_MOUNT @ T_MOUNT_CAMERA
    try:
        with Writer(target, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            topics = _Topics(writer)
            start_ns = session.start_s * 1_000_000_000
            topics.write("/tf_static", start_ns, static_transforms(start_ns, session.sensors))
            sensors = iter(session_sensors(session, seed))
            pending = next(sensors, None)
            for i, T_map_base in enumerate(T_map_base_N44):
                stamp_ns = start_ns + round(i * 1e9 / RATE_HZ)
                while pending is not None and pending[1] <= stamp_ns:
                    topics.write(*pending)
                    pending = next(sensors, None)
                image = renderer.draw(T_map_base @ T_base_camera)
                topics.write("/camera/camera_info", stamp_ns, camera_info(stamp_ns))
                topics.write("/camera/image_raw/compressed", stamp_ns, jpeg(stamp_ns, image))
                if depth:
                    small = renderer.draw_depth(T_map_base @ T_base_camera)
                    small = small[DEPTH_STEP // 2 :: DEPTH_STEP, DEPTH_STEP // 2 :: DEPTH_STEP]
                    topics.write("/camera/depth/image_raw", stamp_ns, depth_image(stamp_ns, small))
                topics.write("/ground_truth/odometry", stamp_ns, odometry(stamp_ns, T_map_base))
                progress((i + 1) / len(T_map_base_N44))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    finally:
        renderer.close()
    return target


def session_sensors(session: Session, seed: int) -> Iterator[tuple[str, int, Any]]:
    """Yield topic, stamp and message of the session's GPS, wheel odometry and IMU, if it has them."""
    if session.sensors is None:
        return
    rides = [drive_lap(ride, session.sensors.rate_hz) for ride in session.rides]
    start_ns = session.start_s * 1_000_000_000
    yield from sensor_messages(np.concatenate(rides), start_ns, session.sensors, seed)


class _Topics:
    """Writes messages to a bag. The connection of a topic is added with its first message."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._connections: dict[str, Any] = {}

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=TYPES)
        self._writer.write(self._connections[topic], stamp_ns, TYPES.serialize_cdr(message, kind))


def camera_info(stamp_ns: int) -> Any:
    """Return the ``sensor_msgs/CameraInfo`` of the town's camera, an ideal pinhole."""
    region = new_message(
        "sensor_msgs/msg/RegionOfInterest",
        x_offset=0,
        y_offset=0,
        height=0,
        width=0,
        do_rectify=False,
    )
    projection = np.hstack([CAMERA.K, np.zeros((3, 1))])
    return new_message(
        "sensor_msgs/msg/CameraInfo",
        header=header(stamp_ns, CAMERA_FRAME),
        height=CAMERA.height,
        width=CAMERA.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=CAMERA.K.ravel(),
        r=np.eye(3).ravel(),
        p=projection.ravel(),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def jpeg(stamp_ns: int, image_HW3: ImageBGR) -> Any:
    """Return a ``sensor_msgs/CompressedImage`` in JPEG format."""
    _, data = cv2.imencode(".jpg", image_HW3, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return new_message(
        "sensor_msgs/msg/CompressedImage",
        header=header(stamp_ns, CAMERA_FRAME),
        format="bgr8; jpeg compressed bgr8",
        data=data.ravel(),
    )


def depth_image(stamp_ns: int, depth_HW: NDArray[np.float32]) -> Any:
    """Return a ``sensor_msgs/Image`` of depths in metres, encoding 32FC1 (REP 118)."""
    height, width = depth_HW.shape
    return new_message(
        "sensor_msgs/msg/Image",
        header=header(stamp_ns, CAMERA_FRAME),
        height=height,
        width=width,
        encoding="32FC1",
        is_bigendian=0,
        step=4 * width,
        data=np.ascontiguousarray(depth_HW, "<f4").view(np.uint8).ravel(),
    )


def static_transforms(stamp_ns: int, sensors: SensorNoise | None = None) -> Any:
    """Return the ``/tf_static`` message: the camera's mount as a chain of two transforms, and the GPS
    antenna's mount if the session has sensors.
    """
    chain = [(BASE_FRAME, MOUNT_FRAME, T_BASE_MOUNT), (MOUNT_FRAME, CAMERA_FRAME, T_MOUNT_CAMERA)]
    if sensors is not None:
        T_base_gps = np.eye(4)
        T_base_gps[:3, 3] = T_BASE_GPS_M
        chain.append((BASE_FRAME, GPS_FRAME, T_base_gps))
    return new_message(
        "tf2_msgs/msg/TFMessage",
        transforms=[
            new_message(
                "geometry_msgs/msg/TransformStamped",
                header=header(stamp_ns, parent),
                child_frame_id=child,
                transform=new_message(
                    "geometry_msgs/msg/Transform",
                    translation=vector(**_xyz(T)),
                    rotation=_rotation(T),
                ),
            )
            for parent, child, T in chain
        ],
    )


def odometry(stamp_ns: int, T_map_base: Array) -> Any:
    """Return the true pose ``(4, 4)``, metres, as ``nav_msgs/Odometry`` with zero velocities."""
    pose = new_message(
        "geometry_msgs/msg/Pose",
        position=new_message("geometry_msgs/msg/Point", **_xyz(T_map_base)),
        orientation=_rotation(T_map_base),
    )
    zero = vector()
    twist = new_message("geometry_msgs/msg/Twist", linear=zero, angular=zero)
    unknown = np.zeros(36)
    return new_message(
        "nav_msgs/msg/Odometry",
        header=header(stamp_ns, MAP_FRAME),
        child_frame_id=BASE_FRAME,
        pose=new_message("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=unknown),
        twist=new_message("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=unknown),
    )


def _xyz(T: Array) -> dict[str, float]:
    return {axis: float(T[i, 3]) for i, axis in enumerate("xyz")}


def _rotation(T: Array) -> Any:
    quaternion_xyzw = quaternion_xyzw_of(T)
    values = dict(zip("xyzw", quaternion_xyzw.tolist(), strict=True))
    return new_message("geometry_msgs/msg/Quaternion", **values)
