"""Write parameter files for robot_localization with the user's topics and frames.

The files are for two EKFs and navsat_transform. The odom EKF uses wheel speed and yaw rate only, so that
odom -> base_link never jumps. The map EKF uses them too, together with the visual pose and GPS.
robot_localization silently ignores unknown parameters; a test checks every name in this module against its
documentation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.errors import FusionError

EKF_ODOM, EKF_MAP, NAVSAT = "ekf_odom.yaml", "ekf_map.yaml", "navsat_transform.yaml"
SETUP = "fusion_setup.yaml"
SOURCES = ("gps", "visual")
"""The sources of position that the map EKF can use."""
POSE_SIGMAS, POSE_SIGMAS_3D, GPS_SIGMAS = 4.0, 4.7, 3.7
"""Rejection thresholds: Mahalanobis distances, in sigmas, that 99.9 % of correct measurements stay below.

By the chi-square distribution: planar poses x y yaw (3 degrees of freedom: 4.03), poses in three dimensions
(6: 4.74), and fixes x y (2: 3.72)."""
AXES = (
    "x",
    "y",
    "z",
    "roll",
    "pitch",
    "yaw",
    "vx",
    "vy",
    "vz",
    "vroll",
    "vpitch",
    "vyaw",
    "ax",
    "ay",
    "az",
)
PROCESS_NOISE = [0.05, 0.05, 0.06, 0.03, 0.03, 0.002, 0.5, 0.3, 0.04]
PROCESS_NOISE += [0.01, 0.01, 0.1, 0.01, 0.01, 0.015]
"""Diagonal of the process noise covariance, in the order of `AXES`, per second."""
INITIAL = [1e6, 1e6, 1e-6, 1e-6, 1e-6, 10.0, 10.0, 1.0, 1e-6, 1e-6, 1e-6, 1.0, 1.0, 1e-6, 1e-6]
"""Initial variances of a planar filter, in the order of `AXES`: x, y and yaw are unknown."""
INITIAL_3D = [1e6, 1e6, 1e6, *[10.0] * 3, *[10.0, 1.0, 1.0], *[1.0] * 3, *[1.0] * 3]
"""Initial variances of a filter in three dimensions: the whole pose is unknown."""
TIMEOUT_PERIODS = 2.0
"""Periods of the sensors without a message, after which the filter goes on by prediction alone."""
HISTORY_DELAYS = 10.0
"""Length of the filter's history, as a multiple of `FusionSetup.delay_s`."""
SHORTEST_HISTORY_S = 1.0


@dataclass(frozen=True)
class FusionSetup:
    """The topics and frames of a vehicle, and the sources of position of the map EKF."""

    wheel_topic: str = "/wheel/odometry"
    imu_topic: str = "/imu/data"
    gps_topic: str = "/gps/fix"
    pose_topic: str = "/relocalize/pose_with_covariance"
    gps_odometry_topic: str = "/odometry/gps"
    map_frame: str = "map"
    odom_frame: str = "odom"
    base_frame: str = "base_link"
    gps_frame: str = "gps_link"
    two_d_mode: bool = True
    delay_s: float = 0.1
    """Time from the stamp of an image to the arrival of its pose, seconds."""
    sensor_rate_hz: float = 10.0
    """Rate of wheel odometry and IMU, Hz: the slower of the two."""
    sources: tuple[str, ...] = SOURCES
    """At least one of `SOURCES`."""


def filter_parameters(manifest: Manifest, setup: FusionSetup) -> dict[str, dict[str, Any]]:
    """Return the parameters of the three nodes by file name. Without ``gps`` there is no navsat file.

    Raises FusionError, see `check_setup`.
    """
    check_setup(manifest, setup)
    planar, sources = setup.two_d_mode, setup.sources
    shared = {
        "frequency": setup.sensor_rate_hz,
        "sensor_timeout": TIMEOUT_PERIODS / setup.sensor_rate_hz,
        "two_d_mode": True,
        "print_diagnostics": True,
        "publish_tf": True,
        "map_frame": setup.map_frame,
        "odom_frame": setup.odom_frame,
        "base_link_frame": setup.base_frame,
        "odom0": setup.wheel_topic,
        "odom0_config": _used_axes("vx"),
        "odom0_queue_size": 10,
        "imu0": setup.imu_topic,
        "imu0_config": _used_axes("vyaw"),
        "imu0_queue_size": 10,
        "process_noise_covariance": PROCESS_NOISE,
    }
    odom_ekf = shared | {"world_frame": setup.odom_frame}
    map_ekf = shared | {
        "two_d_mode": planar,
        "world_frame": setup.map_frame,
        "smooth_lagged_data": True,
        "history_length": max(SHORTEST_HISTORY_S, HISTORY_DELAYS * setup.delay_s),
        "initial_estimate_covariance": INITIAL if planar else INITIAL_3D,
    }
    if "visual" in sources:
        map_ekf |= {
            "pose0": setup.pose_topic,
            "pose0_config": _used_axes("x", "y", "yaw") if planar else _used_axes(*AXES[:6]),
            "pose0_queue_size": 10,
            "pose0_differential": False,
            "pose0_relative": False,
            "pose0_rejection_threshold": POSE_SIGMAS if planar else POSE_SIGMAS_3D,
        }
    files = {EKF_ODOM: odom_ekf, EKF_MAP: map_ekf}
    if "gps" in sources:
        map_ekf |= {
            "odom1": setup.gps_odometry_topic,
            "odom1_config": _used_axes("x", "y"),
            "odom1_queue_size": 10,
            "odom1_differential": False,
            "odom1_relative": False,
        }
        if "visual" in sources:  # GPS as the only source must be able to correct a wrong filter
            map_ekf["odom1_pose_rejection_threshold"] = GPS_SIGMAS
        assert manifest.datum is not None
        files[NAVSAT] = {
            "frequency": 30.0,
            "delay": 0.0,
            "magnetic_declination_radians": 0.0,
            "yaw_offset": 0.0,
            "zero_altitude": True,
            "publish_filtered_gps": False,
            "use_odometry_yaw": True,
            "wait_for_datum": True,
            "datum": [manifest.datum.latitude_deg, manifest.datum.longitude_deg, 0.0],
            "use_local_cartesian": True,
        }
    return files


def check_setup(manifest: Manifest, setup: FusionSetup) -> None:
    """Raise FusionError when the setup cannot work with the bundle of this manifest.

    Causes: no source of position, frames that coincide, another map frame than the bundle's, GPS with a
    bundle without a datum, or three dimensions without the visual pose.
    """
    if not setup.sources:
        raise FusionError("no source of position is left: leave out gps or visual, not both")
    if not setup.two_d_mode and "visual" not in setup.sources:
        raise FusionError(
            "height, roll and pitch come from the visual pose, which is left out: leave --three-d out "
            "too, or fuse the visual pose"
        )
    frames = {
        "map": setup.map_frame,
        "odom": setup.odom_frame,
        "base": setup.base_frame,
        "gps": setup.gps_frame,
    }
    for name, frame in frames.items():
        if not frame or frame.startswith("/"):
            raise FusionError(
                f"the {name} frame is {frame!r}: give it a name that does not begin with a slash"
            )
        same = [other for other, value in frames.items() if value == frame and other != name]
        if same:
            raise FusionError(
                f"{frame} is both the {name} and the {same[0]} frame: name two frames"
            )
    if setup.map_frame != manifest.map_frame:
        raise FusionError(
            f"the map frame is {setup.map_frame}, but the poses of bundle {manifest.name} are in "
            f"{manifest.map_frame}: leave --map-frame out, or write new files for this bundle"
        )
    if "gps" in setup.sources and manifest.datum is None:
        raise FusionError(
            f"bundle {manifest.name} has no datum, so GPS cannot be fused with its poses: add a datum "
            "with `rgsiam georeference`, or leave GPS out with --without gps"
        )


def write_files(manifest: Manifest, setup: FusionSetup, out: Path) -> list[Path]:
    """Write the parameter files and the setup to the folder `out`; return the paths.

    Raises FusionError when the setup cannot work, or when `out` cannot be written or has such files already.
    """
    files = filter_parameters(manifest, setup)
    texts = {name: to_yaml(name, values) for name, values in files.items()}
    values = asdict(setup) | {"sources": list(setup.sources)}
    texts[SETUP] = SETUP_HEADING + yaml.safe_dump(values, sort_keys=False)
    existing = [out / name for name in (EKF_ODOM, EKF_MAP, NAVSAT, SETUP) if (out / name).exists()]
    if existing:
        raise FusionError(f"{existing[0]} exists already: choose another --out, or remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text)
    except OSError as error:
        raise FusionError(f"{out} cannot be written ({error}): choose another --out") from error
    return [out / name for name in texts]


def read_setup(folder: Path) -> FusionSetup:
    """Read the setup of a folder that `write_files` wrote. Raises FusionError."""
    path, remedy = folder / SETUP, "write the folder with `rgsiam fusion-config`"
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FusionError(f"{path} cannot be read ({error}): {remedy}") from error
    defaults = {field.name: field.default for field in fields(FusionSetup)}
    if not isinstance(values, dict) or set(values) != set(defaults):
        raise FusionError(f"{path} must have exactly {', '.join(defaults)}: {remedy}")
    sources = values["sources"]
    if not isinstance(sources, list) or not set(map(str, sources)) <= set(SOURCES):
        raise FusionError(f"sources in {path} must be a list of {', '.join(SOURCES)}: {remedy}")
    values["sources"] = tuple(sources)
    for name, default in defaults.items():
        if type(values[name]) is not type(default):
            wanted = type(default).__name__
            raise FusionError(
                f"{name} in {path} is {values[name]!r}, not of type {wanted}: {remedy}"
            )
    return FusionSetup(**values)


def to_yaml(name: str, values: dict[str, Any]) -> str:
    """Return the text of a parameter file with comments for its user.

    The parameters are for any node name (``/**``), because a file for another node name is silently ignored.
    """
    lines = [*HEADINGS[name].splitlines(), "/**:", "  ros__parameters:"]
    comments = COMMENTS if values.get("two_d_mode", True) else COMMENTS | COMMENTS_3D
    for key, value in values.items():
        comment = comments.get(key, "")
        for text in comment.splitlines():
            lines.append(f"    # {text}")
        shown = yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0]
        lines.append(f"    {key}: {shown}")
    return "\n".join(lines) + "\n"


HEADINGS = {
    EKF_ODOM: "# odom -> base_link: wheel speed and yaw rate, which drift but never jump.\n"
    "# Written by `rgsiam fusion-config`; see docs/fusion.md.",
    EKF_MAP: "# map -> odom: wheel speed and yaw rate, corrected by the visual pose and GPS.\n"
    "# Written by `rgsiam fusion-config`; see docs/fusion.md.",
    NAVSAT: "# GPS fixes to metres in the map, with respect to the bundle's datum.\n"
    "# Written by `rgsiam fusion-config`; see docs/fusion.md.",
}
SETUP_HEADING = (
    "# The setup of this folder. relocalize_with_gps.launch.py and `rgsiam replay` read it.\n"
    "# Written by `rgsiam fusion-config`. To change it, write a new folder.\n"
)
COMMENTS = {
    "sensor_timeout": "seconds: two periods of wheels and IMU. frequency is theirs too, because a faster filter\n"
    "has nothing new to publish between their messages",
    "odom0_config": "order: x y z, roll pitch yaw, vx vy vz, vroll vpitch vyaw, ax ay az; vy is not used:\n"
    "in bends base_link moves sideways, unless it is on the rear axle",
    "imu0_config": "only the yaw rate: in practice an IMU's yaw is wrong by a degree or two",
    "two_d_mode": "height, roll and pitch are held at zero",
    "smooth_lagged_data": "a pose is as old as its image: the filter goes back to its stamp and "
    "replays later data",
    "history_length": "seconds; at least the longest delay of a pose",
    "pose0_rejection_threshold": "in sigmas, for x y yaw together: 99.9 % of correct poses are within 4.0",
    "odom1_pose_rejection_threshold": "in sigmas, for x y together: 99.9 % of correct fixes are within 3.7",
    "initial_estimate_covariance": "large variances, because otherwise a first fix far from zero is rejected",
    "datum": "latitude, longitude (degrees), heading (radians; 0: the map's axes are east, north, up)",
    "use_local_cartesian": "needs robot_localization 3.8.1 or later; UTM would shrink the map by 0.04 %",
    "publish_filtered_gps": "with true, each fix would wait for the next odometry",
    "use_odometry_yaw": "the heading comes from odometry, so that no IMU heading is needed",
    "yaw_offset": "keep at 0: it would be added to the datum's heading",
}
COMMENTS_3D = {
    "two_d_mode": "height, roll and pitch come from the visual pose",
    "pose0_rejection_threshold": "in sigmas, for all six axes together: "
    "99.9 % of correct poses are within 4.7",
}


def _used_axes(*axes: str) -> list[bool]:
    """For each of `AXES`, whether the filter uses it from a sensor."""
    return [axis in axes for axis in AXES]
