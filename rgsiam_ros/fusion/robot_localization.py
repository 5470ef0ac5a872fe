"""Parameters for robot_localization: two EKFs and navsat_transform, for one user's topics and frames.

The odom EKF takes wheel speed and yaw rate only, so that odom -> base_link never jumps. The map EKF takes
them too, and the visual pose and GPS. robot_localization ignores names it does not know, so every name here
is checked against its documentation by a test.
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
POSE_SIGMAS, POSE_SIGMAS_3D, GPS_SIGMAS = 4.0, 4.7, 3.7
"""Mahalanobis distances, in sigmas: 99.9 % of true poses x y yaw pass (chi-square, 3 degrees of freedom:
4.03), of true poses in three dimensions (6 degrees: 4.74), and of true fixes x y (2 degrees: 3.72)."""
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
"""Diagonal, in the order of `AXES`, per second."""
WIDE = [1e6, 1e6, 1e-6, 1e-6, 1e-6, 10.0, 10.0, 1.0, 1e-6, 1e-6, 1e-6, 1.0, 1.0, 1e-6, 1e-6]
"""What is known before the first measurement: nothing of x, y and yaw."""
WIDE_3D = [1e6, 1e6, 1e6, *[10.0] * 3, *[10.0, 1.0, 1.0], *[1.0] * 3, *[1.0] * 3]
"""In three dimensions: nothing of the whole pose."""
HISTORY_DELAYS = 10.0
SHORTEST_HISTORY_S = 1.0


@dataclass(frozen=True)
class FusionSetup:
    """A vehicle's topics and frames, and what tells the map EKF where it is."""

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
    """From the image's stamp to the pose's arrival; the filter looks back ten times as far."""
    sources: tuple[str, ...] = SOURCES
    """Of `SOURCES`; at least one."""


def parameters(manifest: Manifest, setup: FusionSetup) -> dict[str, dict[str, Any]]:
    """Parameters of the three nodes by the name of their file; without ``gps`` there is no navsat file.

    Raises FusionError where frames coincide, no source is left, or GPS is to be fused on a map whose place
    on the Earth is not known.
    """
    check(manifest, setup)
    flat, sources = setup.two_d_mode, setup.sources
    shared = {
        "frequency": 30.0,
        "sensor_timeout": 0.1,
        "two_d_mode": True,
        "print_diagnostics": True,
        "publish_tf": True,
        "map_frame": setup.map_frame,
        "odom_frame": setup.odom_frame,
        "base_link_frame": setup.base_frame,
        "odom0": setup.wheel_topic,
        "odom0_config": _uses("vx"),
        "odom0_queue_size": 10,
        "imu0": setup.imu_topic,
        "imu0_config": _uses("vyaw"),
        "imu0_queue_size": 10,
        "process_noise_covariance": PROCESS_NOISE,
    }
    odom = shared | {"world_frame": setup.odom_frame}
    whole = shared | {
        "two_d_mode": flat,
        "world_frame": setup.map_frame,
        "smooth_lagged_data": True,
        "history_length": max(SHORTEST_HISTORY_S, HISTORY_DELAYS * setup.delay_s),
        "initial_estimate_covariance": WIDE if flat else WIDE_3D,
    }
    if "visual" in sources:
        whole |= {
            "pose0": setup.pose_topic,
            "pose0_config": _uses("x", "y", "yaw") if flat else _uses(*AXES[:6]),
            "pose0_queue_size": 10,
            "pose0_differential": False,
            "pose0_relative": False,
            "pose0_rejection_threshold": POSE_SIGMAS if flat else POSE_SIGMAS_3D,
        }
    files = {EKF_ODOM: odom, EKF_MAP: whole}
    if "gps" in sources:
        whole |= {
            "odom1": setup.gps_odometry_topic,
            "odom1_config": _uses("x", "y"),
            "odom1_queue_size": 10,
            "odom1_differential": False,
            "odom1_relative": False,
        }
        if "visual" in sources:  # alone, GPS must be able to pull the filter back
            whole["odom1_pose_rejection_threshold"] = GPS_SIGMAS
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


def check(manifest: Manifest, setup: FusionSetup) -> None:
    """Raises FusionError for a set-up that could not work."""
    if not setup.sources:
        raise FusionError(
            "nothing is left that knows where the vehicle is: leave out gps or visual, not both"
        )
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
            raise FusionError(f"the {name} frame is {frame!r}: frames have a name, without a slash")
        twins = [other for other, value in frames.items() if value == frame and other != name]
        if twins:
            raise FusionError(
                f"{frame} is both the {name} and the {twins[0]} frame: name two frames"
            )
    if setup.map_frame != manifest.map_frame:
        raise FusionError(
            f"the map frame is {setup.map_frame}, but the poses of bundle {manifest.name} are in "
            f"{manifest.map_frame}: leave --map-frame out, or write the files anew for this bundle"
        )
    if "gps" in setup.sources and manifest.datum is None:
        raise FusionError(
            f"bundle {manifest.name} has no datum, so GPS cannot be fused with its poses: give it one "
            "with `rgsiam georeference`, or leave GPS out with --without gps"
        )


def write_files(manifest: Manifest, setup: FusionSetup, out: Path) -> list[Path]:
    """Write the parameters, and what they are for, to a folder that has none of these files yet.

    Raises FusionError.
    """
    texts = {name: to_yaml(name, values) for name, values in parameters(manifest, setup).items()}
    listed = asdict(setup) | {"sources": list(setup.sources)}
    texts[SETUP] = SETUP_HEADING + yaml.safe_dump(listed, sort_keys=False)
    there = [out / name for name in (EKF_ODOM, EKF_MAP, NAVSAT, SETUP) if (out / name).exists()]
    if there:
        raise FusionError(f"{there[0]} exists already: choose another --out, or remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text)
    except OSError as error:
        raise FusionError(f"{out} cannot be written ({error}): choose another --out") from error
    return [out / name for name in texts]


def read_setup(folder: Path) -> FusionSetup:
    """What `write_files` wrote a folder for. Raises FusionError."""
    path, anew = folder / SETUP, "write the folder with `rgsiam fusion-config`"
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FusionError(f"{path} cannot be read ({error}): {anew}") from error
    defaults = {field.name: field.default for field in fields(FusionSetup)}
    if not isinstance(values, dict) or set(values) != set(defaults):
        raise FusionError(f"{path} must have exactly {', '.join(defaults)}: {anew}")
    sources = values["sources"]
    if not isinstance(sources, list) or not set(map(str, sources)) <= set(SOURCES):
        raise FusionError(f"sources in {path} is a list of {', '.join(SOURCES)}: {anew}")
    values["sources"] = tuple(sources)
    for name, default in defaults.items():
        if type(values[name]) is not type(default):
            wanted = type(default).__name__
            raise FusionError(f"{name} in {path} is {values[name]!r}, not of type {wanted}: {anew}")
    return FusionSetup(**values)


def to_yaml(name: str, values: dict[str, Any]) -> str:
    """A parameter file with the comments that its user needs.

    For any node name (``/**``): a file for another name than the node's is ignored without a word.
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
    EKF_MAP: "# map -> odom: the same, and what knows where it is: the visual pose and GPS.\n"
    "# Written by `rgsiam fusion-config`; see docs/fusion.md.",
    NAVSAT: "# Fixes to metres in the map, about the bundle's datum.\n"
    "# Written by `rgsiam fusion-config`; see docs/fusion.md.",
}
SETUP_HEADING = (
    "# What this folder was written for; relocalize_with_gps.launch.py and `rgsiam replay` read it.\n"
    "# Written by `rgsiam fusion-config`; to change it, write the folder anew.\n"
)
COMMENTS = {
    "odom0_config": "order: x y z, roll pitch yaw, vx vy vz, vroll vpitch vyaw, ax ay az; not vy:\nin bends base_link moves sideways, unless it is on the rear axle",
    "imu0_config": "the yaw rate only: an IMU's yaw is off by a degree or two in practice",
    "two_d_mode": "height, roll and pitch are held at zero",
    "smooth_lagged_data": "a pose is as old as its image: go back to its stamp, and replay what came since",
    "history_length": "s; at least the longest delay of a pose",
    "pose0_rejection_threshold": "in sigmas, of x y yaw together: 4.0 lets 99.9 % of true poses pass",
    "odom1_pose_rejection_threshold": "in sigmas, of x y together: 3.7 lets 99.9 % of true fixes pass",
    "initial_estimate_covariance": "wide, or the first fix far from zero is rejected",
    "datum": "latitude, longitude (degrees), heading (radians, 0: the map is east, north, up)",
    "use_local_cartesian": "needs robot_localization 3.8.1 or later; UTM would shrink the map by 0.04 %",
    "publish_filtered_gps": "true would make each fix wait for the next odometry",
    "use_odometry_yaw": "no IMU heading is asked for",
    "yaw_offset": "keep at 0: it would be added to the datum's heading",
}
COMMENTS_3D = {
    "two_d_mode": "height, roll and pitch come from the visual pose",
    "pose0_rejection_threshold": "in sigmas, of all six together: 4.7 lets 99.9 % of true poses pass",
}


def _uses(*axes: str) -> list[bool]:
    return [axis in axes for axis in AXES]
