"""Simulation of GPS, wheel odometry and IMU for the town's drive.

The errors imitate those of real sensors: the wheels have a scale error, the yaw rate has a bias, the IMU's
heading has an offset, and GPS between houses is biased for a while and then missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from rgsiam_ros.geometry.geodesy import Datum, LocalFrame
from rgsiam_ros.geometry.poses import Array
from rgsiam_training.town.messages import header, new_message, vector

DATUM = Datum(latitude_deg=48.137, longitude_deg=11.575, ellipsoidal_height_m=565.0)
"""Geodetic position of the map frame's origin. The choice is arbitrary."""
T_BASE_GPS_M = np.array([-0.3, 0.1, 1.7])
"""Position of the GPS antenna in base_link, metres."""
GPS_FRAME = "gps_link"


@dataclass(frozen=True)
class SensorNoise:
    """Rates and errors of the sensors."""

    rate_hz: float = 10.0
    """Rate of wheel odometry and IMU."""
    gps_every: int = 2
    """Wheel messages per GPS message."""
    gps_sigma_m: float = 0.4
    """Standard deviation of a good fix."""
    bad_stretch: tuple[float, float] = (0.35, 0.60)
    """Start and end of the stretch with bad GPS, as shares of the drive."""
    bad_sigma_m: float = 3.0
    """Standard deviation of the noise of a bad fix."""
    bad_bias_m: float = 6.0
    """Standard deviation of the bias of a bad fix, a Gauss-Markov process with the time constant
    `bias_time_s`."""
    bias_time_s: float = 20.0
    hole: tuple[float, float] = (0.60, 0.70)
    """Start and end of the stretch without GPS fixes, as shares of the drive."""
    wheel_scale: float = 1.02
    """Measured speed divided by the true speed."""
    wheel_sigma_mps: float = 0.05
    """Standard deviation of the measured speed."""
    yaw_rate_bias_radps: float = 0.003
    yaw_rate_sigma_radps: float = 0.005
    yaw_offset_deg: float = 1.5
    """Measured heading of the IMU minus the true heading."""


def sensor_messages(
    T_map_base_N44: Array, start_ns: int, noise: SensorNoise, seed: int
) -> Iterator[tuple[str, int, Any]]:
    """Yield topic, stamp (nanoseconds) and message of all sensors, in the order of time.

    T_map_base_N44: true poses at `noise.rate_hz`.
    """
    random = np.random.default_rng(seed)
    count, period_s = len(T_map_base_N44), 1.0 / noise.rate_hz
    yaw = np.unwrap(Rotation.from_matrix(T_map_base_N44[:, :3, :3]).as_euler("ZYX")[:, 0])
    step = np.linalg.norm(np.diff(T_map_base_N44[:, :2, 3], axis=0), axis=1)
    speed = np.append(step, step[-1]) / period_s
    yaw_rate = np.gradient(yaw) / period_s
    decay = np.exp(-noise.gps_every * period_s / noise.bias_time_s)
    bias = random.normal(0.0, noise.bad_bias_m, 3)
    frame = LocalFrame(DATUM)
    for i in range(count):
        stamp_ns = start_ns + round(i * 1e9 * period_s)
        measured = speed[i] * noise.wheel_scale + random.normal(0.0, noise.wheel_sigma_mps)
        yield "/wheel/odometry", stamp_ns, _wheels(stamp_ns, measured, noise)
        rate = yaw_rate[i] + noise.yaw_rate_bias_radps
        rate += random.normal(0.0, noise.yaw_rate_sigma_radps)
        heading = yaw[i] + np.radians(noise.yaw_offset_deg)
        yield "/imu/data", stamp_ns, _imu(stamp_ns, heading, rate, noise)
        if i % noise.gps_every:
            continue
        bias = decay * bias + np.sqrt(1.0 - decay**2) * random.normal(0.0, noise.bad_bias_m, 3)
        share = i / count
        bad = noise.bad_stretch[0] <= share < noise.bad_stretch[1]
        sigma = noise.bad_sigma_m if bad else noise.gps_sigma_m
        antenna = T_map_base_N44[i, :3, :3] @ T_BASE_GPS_M + T_map_base_N44[i, :3, 3]
        antenna = antenna + random.normal(0.0, sigma, 3) * [1.0, 1.0, 1.5] + bad * bias
        missing = noise.hole[0] <= share < noise.hole[1]
        geodetic = np.full(3, np.nan) if missing else frame.to_geodetic(antenna)
        yield "/gps/fix", stamp_ns, _fix(stamp_ns, geodetic, sigma)


def _quaternion(yaw: float) -> Any:
    z, w = float(np.sin(yaw / 2.0)), float(np.cos(yaw / 2.0))
    return new_message("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=z, w=w)


def _wheels(stamp_ns: int, speed: float, noise: SensorNoise) -> Any:
    """Return an odometry message with the speed only. The lateral speed is zero, and the pose is unknown."""
    sigma = (noise.wheel_scale - 1.0) * 9.0 + noise.wheel_sigma_mps
    pose = new_message(
        "geometry_msgs/msg/Pose",
        position=new_message("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0),
        orientation=_quaternion(0.0),
    )
    twist = new_message("geometry_msgs/msg/Twist", linear=vector(speed), angular=vector())
    covariance = np.diag([sigma**2, 0.05**2, 1e6, 1e6, 1e6, 1e6]).ravel()
    unknown = np.diag([1e6] * 6).ravel()
    return new_message(
        "nav_msgs/msg/Odometry",
        header=header(stamp_ns, "odom"),
        child_frame_id="base_link",
        pose=new_message("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=unknown),
        twist=new_message(
            "geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=covariance
        ),
    )


def _imu(stamp_ns: int, heading: float, yaw_rate: float, noise: SensorNoise) -> Any:
    rate_sigma = noise.yaw_rate_bias_radps + noise.yaw_rate_sigma_radps
    heading_sigma = np.radians(2.0)
    return new_message(
        "sensor_msgs/msg/Imu",
        header=header(stamp_ns, "base_link"),
        orientation=_quaternion(heading),
        orientation_covariance=np.diag([1e-4, 1e-4, heading_sigma**2]).ravel(),
        angular_velocity=vector(z=yaw_rate),
        angular_velocity_covariance=np.diag([rate_sigma**2] * 3).ravel(),
        linear_acceleration=vector(z=9.81),
        linear_acceleration_covariance=np.diag([0.01] * 3).ravel(),
    )


def _fix(stamp_ns: int, geodetic: Array, sigma_m: float) -> Any:
    """Return a fix. geodetic: latitude and longitude in degrees, height in metres; NaN for no fix."""
    valid = bool(np.isfinite(geodetic).all())
    status = new_message("sensor_msgs/msg/NavSatStatus", status=0 if valid else -1, service=1)
    variance = sigma_m**2 if valid else 0.0
    return new_message(
        "sensor_msgs/msg/NavSatFix",
        header=header(stamp_ns, GPS_FRAME),
        status=status,
        latitude=float(geodetic[0]),
        longitude=float(geodetic[1]),
        altitude=float(geodetic[2]),
        position_covariance=np.diag([variance, variance, 2.25 * variance]).ravel(),
        position_covariance_type=2 if valid else 0,
    )
