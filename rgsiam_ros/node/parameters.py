"""Declare the node's parameters from their specification, and check new values."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from rgsiam_ros.geometry.conversions import pose_from_xyzw
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.node.parameter_spec import BY_NAME, SPECS, Spec
from rgsiam_ros.node.parameter_values import ParameterError, check_kind, tidy

TYPES = {
    "string": Parameter.Type.STRING,
    "integer": Parameter.Type.INTEGER,
    "double": Parameter.Type.DOUBLE,
    "bool": Parameter.Type.BOOL,
    "double_array": Parameter.Type.DOUBLE_ARRAY,
}


def declare_all(node: Node, check: Callable[[list[Parameter]], SetParametersResult]) -> None:
    """Declare every parameter with its description, range, constraints and default.

    check: called for each value, from now on. A value that was given at the start is made tidy. Raises
    ParameterError if it is of another kind.
    """
    given = {spec.name: _given(node, spec) for spec in SPECS}
    node.add_on_set_parameters_callback(check)
    for spec in SPECS:
        node.declare_parameter(spec.name, given[spec.name], _descriptor(spec), ignore_override=True)
    node.add_pre_set_parameters_callback(lambda parameters: tidy_all(node, parameters))


def _given(node: Node, spec: Spec) -> Any:
    """The tidy value of a parameter that is not declared yet: the default, or what was given at the start."""
    default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
    anything = ParameterDescriptor(dynamic_typing=True)
    value = node.declare_parameter(spec.name, default, anything).value
    node.undeclare_parameter(spec.name)
    value = default if value is None else _tidy(node, spec, value)
    check_kind(spec, value)
    return value


def tidy_all(node: Node, parameters: list[Parameter]) -> list[Parameter]:
    """New values as the node uses them, see `rgsiam_ros.node.parameter_values.tidy`."""
    tidied = []
    for parameter in parameters:
        spec = BY_NAME.get(parameter.name)
        if spec is None or parameter.value is None:
            tidied.append(parameter)
        else:
            tidied.append(Parameter(spec.name, value=_tidy(node, spec, parameter.value)))
    return tidied


def _tidy(node: Node, spec: Spec, value: Any) -> Any:
    plain = value.tolist() if isinstance(value, array | np.ndarray) else value
    tidied, note = tidy(spec, plain)
    if note:
        node.get_logger().warning(note)
    return tidied


def _descriptor(spec: Spec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=spec.description,
        type=TYPES[spec.kind].value,
        read_only=spec.read_only,
        additional_constraints=spec.constraints(),
    )
    if spec.bounds and spec.kind == "integer":
        low, high = (int(bound) for bound in spec.bounds)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    elif spec.bounds:
        from_value, to_value = spec.bounds
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=from_value, to_value=to_value, step=0.0)
        ]
    return descriptor


def checked(
    node: Node,
    parameters: list[Parameter],
    configured: bool,
    also: Callable[[Parameter], str | None],
) -> SetParametersResult:
    """Whether new values are valid, with the reason of the first that is not. also: a further check."""
    for parameter in parameters:
        current = node.get_parameter_or(parameter.name).value
        reason = why_refused(parameter, configured, current) or also(parameter)
        if reason:
            return SetParametersResult(successful=False, reason=reason)
    return SetParametersResult(successful=True)


def why_refused(parameter: Parameter, configured: bool, current: Any) -> str | None:
    """Why a new value is refused; None if it is valid. rclpy itself checks ranges and types.

    current: the value so far. To set it again is no change.
    """
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
        norm = float(np.linalg.norm(value))
        if spec.name == "mount_quaternion_xyzw" and norm != 0.0 and abs(norm - 1.0) > 1e-3:
            return f"{spec.name} has norm {norm:.4f}, not 1 (all zero: the mount comes from TF)"
    if configured and not spec.live and not np.array_equal(value, current):
        return (
            f"{spec.name} cannot change while the node is configured: deactivate and clean up first"
        )
    return None


def mount_from_parameters(node: Node) -> Array | None:
    """``T_base_camera`` ``(4, 4)`` from the mount parameters; None if their quaternion is zero.

    Raises ParameterError for a position without a rotation.
    """
    position, quaternion = (
        np.asarray(node.get_parameter(name).value, np.float64)
        for name in ("mount_translation", "mount_quaternion_xyzw")
    )
    if quaternion.any():
        return pose_from_xyzw(position, quaternion)
    if position.any():
        raise ParameterError(
            "mount_translation is set, but mount_quaternion_xyzw is zero: set both, or neither if the mount "
            "comes from TF"
        )
    return None


def shown_ns(node: Node, at_ns: int) -> int:
    """When the camera was where an image with the stamp `at_ns` shows it: `time_offset` earlier."""
    return at_ns - round(node.get_parameter("time_offset").value * 1e9)
