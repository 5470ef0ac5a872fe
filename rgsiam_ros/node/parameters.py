"""The node's parameters: names, defaults, descriptions, ranges. README has the same table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from rgsiam_ros.bundle.precision import PRECISIONS
from rgsiam_ros.camera.frozen import DEFAULT_LIMIT
from rgsiam_ros.engines import ENGINES
from rgsiam_ros.engines.selection import FALLBACKS
from rgsiam_ros.geometry.conversions import pose_from_xyzw
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.relocalizer import BRANCHES
from rgsiam_ros.node.odometry_gate import MODES
from rgsiam_ros.uncertainty.gate import FEWEST_TO_RECOVER

TF_MODES = ("none", "map_to_base", "map_to_odom")
TRANSPORTS = ("raw", "compressed")

Kind = Parameter.Type


@dataclass(frozen=True)
class Spec:
    """One parameter. A default of None leaves it unset."""

    name: str
    kind: Kind
    default: Any
    description: str
    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None
    length: int | None = None
    live: bool = False
    """May change while the node is configured."""


SPECS = (
    Spec(
        "bundle",
        Kind.STRING,
        "",
        "Folder of the bundle; another one serves as soon as it is loaded and tested",
        live=True,
    ),
    Spec("image_transport", Kind.STRING, "raw", "How images come in", choices=TRANSPORTS),
    Spec(
        "engine",
        Kind.STRING,
        "auto",
        "Inference engine; auto: the best that is installed and passes the self-test",
        choices=("auto", *ENGINES),
    ),
    Spec(
        "precision",
        Kind.STRING,
        "auto",
        "Number format of the absolute branch; auto: the fastest that the bundle and engine have",
        choices=("auto", *PRECISIONS),
    ),
    Spec(
        "engine_fallback",
        Kind.STRING,
        "auto",
        "Where the engine asked for does not serve: auto takes another with a WARN, none refuses",
        choices=FALLBACKS,
    ),
    Spec(
        "engine_cache",
        Kind.STRING,
        "",
        "Folder of engines built by rgsiam engine build; empty: the user's own cache",
    ),
    Spec(
        "branch",
        Kind.STRING,
        "auto",
        "absolute: the network's global pose; refined: with the map's images; auto: what there is",
        choices=BRANCHES,
    ),
    Spec(
        "threads",
        Kind.INTEGER,
        0,
        "CPU threads for one inference; 0: engine's choice",
        bounds=(0, 64),
    ),
    Spec("map_frame", Kind.STRING, "", "Frame id of the map; empty: the bundle's"),
    Spec("base_frame", Kind.STRING, "base_link", "Vehicle frame whose pose is published"),
    Spec("odom_frame", Kind.STRING, "odom", "Odometry frame, for tf_mode map_to_odom"),
    Spec("camera_frame", Kind.STRING, "", "Camera optical frame; empty: the image's frame_id"),
    Spec("tf_mode", Kind.STRING, "none", "Transform to broadcast", choices=TF_MODES),
    Spec(
        "transform_tolerance",
        Kind.DOUBLE,
        0.1,
        "Seconds by which map_to_odom is dated into the future",
        bounds=(0.0, 10.0),
        live=True,
    ),
    Spec(
        "tf_rebroadcast_rate",
        Kind.DOUBLE,
        20.0,
        "Hz at which map_to_odom is repeated between images",
        bounds=(1.0, 100.0),
    ),
    Spec(
        "publish_fix",
        Kind.BOOL,
        False,
        "Publish ~/fix too: needs a bundle with a datum. Fuse the fix or the pose, never both",
    ),
    Spec(
        "planar_covariance",
        Kind.BOOL,
        False,
        "No covariances between x, y, yaw and z, roll, pitch: for a filter in two dimensions",
    ),
    Spec(
        "frozen_images",
        Kind.INTEGER,
        DEFAULT_LIMIT,
        "Identical images in a row from which the camera counts as frozen; 0: never",
        bounds=(0, 1000),
    ),
    Spec(
        "gate",
        Kind.STRING,
        "none",
        "Gate over time: none, speed (limits below) or odometry (topic odometry)",
        choices=MODES,
    ),
    Spec("gate_max_speed", Kind.DOUBLE, 20.0, "m/s, of the gate", bounds=(0.1, 200.0)),
    Spec("gate_max_turn_rate", Kind.DOUBLE, 1.0, "rad/s, of the gate", bounds=(0.01, 20.0)),
    Spec(
        "gate_confidence",
        Kind.DOUBLE,
        0.999,
        "Share of true poses that pass the gate: a quantile of chi-square, 6 degrees of freedom",
        bounds=(0.5, 0.999999),
    ),
    Spec(
        "gate_recover_after",
        Kind.INTEGER,
        5,
        "Poses in a row that agree with each other, after which the gate believes them",
        bounds=(FEWEST_TO_RECOVER, 1000),
    ),
    Spec(
        "mount_translation",
        Kind.DOUBLE_ARRAY,
        None,
        "Camera in the base frame, metres, x y z; used where /tf_static has no chain",
        length=3,
    ),
    Spec(
        "mount_quaternion_xyzw",
        Kind.DOUBLE_ARRAY,
        None,
        "Camera optical frame in the base frame, unit quaternion x y z w",
        length=4,
    ),
    Spec(
        "diagnostics_min_rate",
        Kind.DOUBLE,
        1.0,
        "Hz of poses; fewer are a WARN",
        bounds=(0.0, 1000.0),
        live=True,
    ),
    Spec(
        "diagnostics_max_delay",
        Kind.DOUBLE,
        0.5,
        "Seconds from image to pose; more is a WARN",
        bounds=(0.001, 60.0),
        live=True,
    ),
    Spec(
        "diagnostics_max_age",
        Kind.DOUBLE,
        2.0,
        "Seconds without an image, or without a pose, that are an ERROR",
        bounds=(0.1, 3600.0),
        live=True,
    ),
    Spec("autostart", Kind.BOOL, False, "Configure and activate without being told to"),
)
BY_NAME = {spec.name: spec for spec in SPECS}


def declare_all(node: Node) -> None:
    """Declare every parameter with description, range and default."""
    for spec in SPECS:
        descriptor = ParameterDescriptor(description=spec.description, type=spec.kind.value)
        if spec.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(spec.choices)
        if spec.bounds and spec.kind is Kind.INTEGER:
            low, high = (int(bound) for bound in spec.bounds)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        elif spec.bounds:
            low_f, high_f = spec.bounds
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=low_f, to_value=high_f, step=0.0)
            ]
        default = spec.kind if spec.default is None else spec.default
        node.declare_parameter(spec.name, default, descriptor)


def why_refused(parameter: Parameter, configured: bool) -> str | None:
    """Reason to refuse a new value, or None. Ranges and types are checked by rclpy itself."""
    spec = BY_NAME.get(parameter.name)
    if spec is None:
        return None
    value = parameter.value
    if spec.choices and value not in spec.choices:
        return f"{spec.name} must be one of {', '.join(spec.choices)}, not {value!r}"
    if spec.length is not None and value is not None:
        if len(value) != spec.length:
            return f"{spec.name} needs {spec.length} numbers, not {len(value)}"
        if not np.isfinite(value).all():
            return f"{spec.name} holds a non-finite number"
        if spec.name == "mount_quaternion_xyzw" and abs(np.linalg.norm(value) - 1.0) > 1e-3:
            return f"{spec.name} has norm {np.linalg.norm(value):.4f}, not 1"
    if configured and not spec.live:
        return (
            f"{spec.name} cannot change while the node is configured: deactivate and clean up first"
        )
    return None


def mount_from_parameters(node: Node) -> Array | None:
    """``T_base_camera`` from the mount parameters, or None where they are not both set."""
    values = []
    for name in ("mount_translation", "mount_quaternion_xyzw"):
        parameter = node.get_parameter_or(name)
        if parameter.type_ == Kind.NOT_SET or parameter.value is None:
            return None
        values.append(np.asarray(parameter.value, np.float64))
    return pose_from_xyzw(values[0], values[1])
