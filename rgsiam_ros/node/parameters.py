"""Declare the node's parameters from their specification, and check new values."""

from __future__ import annotations

import numpy as np
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from rgsiam_ros.geometry.conversions import pose_from_xyzw
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.node.parameter_spec import BY_NAME, SPECS

TYPES = {
    "string": Parameter.Type.STRING,
    "integer": Parameter.Type.INTEGER,
    "double": Parameter.Type.DOUBLE,
    "bool": Parameter.Type.BOOL,
    "double_array": Parameter.Type.DOUBLE_ARRAY,
}


def declare_all(node: Node) -> None:
    """Declare every parameter with its description, range and default."""
    for spec in SPECS:
        kind = TYPES[spec.kind]
        descriptor = ParameterDescriptor(description=spec.description, type=kind.value)
        if spec.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(spec.choices)
        if spec.bounds and spec.kind == "integer":
            low, high = (int(bound) for bound in spec.bounds)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        elif spec.bounds:
            from_value, to_value = spec.bounds
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=from_value, to_value=to_value, step=0.0)
            ]
        default = kind if spec.default is None else spec.default
        node.declare_parameter(spec.name, default, descriptor)


def why_refused(parameter: Parameter, configured: bool) -> str | None:
    """Why a new value is refused; None if it is valid. rclpy itself checks ranges and types."""
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
    """``T_base_camera`` ``(4, 4)`` from the mount parameters, or None unless both are set."""
    values = []
    for name in ("mount_translation", "mount_quaternion_xyzw"):
        parameter = node.get_parameter_or(name)
        if parameter.type_ == Parameter.Type.NOT_SET or parameter.value is None:
            return None
        values.append(np.asarray(parameter.value, np.float64))
    return pose_from_xyzw(values[0], values[1])
