"""Values that people write for the node's parameters, as the node wants them. This module knows no ROS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.node.parameter_spec import Spec

KINDS: dict[str, type] = {"string": str, "integer": int, "double": float, "bool": bool}
NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


class ParameterError(RgsiamError):
    """A parameter's value cannot be used."""


def tidy(spec: Spec, value: Any) -> tuple[Any, str]:
    """A value as the node uses it, and a line for the log if that means something else; else an empty one.

    Integers are taken for numbers. A frame loses its leading slash. ``~`` is the home folder in a path.
    """
    if spec.kind == "double" and type(value) is int:
        return float(value), ""
    if spec.kind == "double_array" and _is_array(value):
        return [float(v) if type(v) is int else v for v in value], ""
    if spec.name.endswith("_frame") and isinstance(value, str) and value.startswith("/"):
        bare = value.lstrip("/")
        return (
            bare,
            f"{spec.name} is {value}, but frame ids of tf2 begin without a slash: {bare} is used",
        )
    if spec.path and isinstance(value, str) and value.startswith("~"):
        try:
            return str(Path(value).expanduser()), ""
        except RuntimeError:  # no such user
            return value, ""
    return value, ""


def check_kind(spec: Spec, value: Any) -> None:
    """Raise ParameterError unless a tidy value is of the parameter's kind."""
    if spec.kind == "double_array":
        if not _is_array(value) or not all(type(v) is float for v in value):
            raise ParameterError(f"{spec.name} must be a list of numbers, not {value!r}")
        return
    kind = KINDS[spec.kind]
    if type(value) is kind:
        return
    hint = ""
    if kind is str:
        hint = "; YAML reads on, off, yes and no as true and false, and 1 as a number: put it in quotes"
    raise ParameterError(f"{spec.name} must be {NAMES[kind]}, not {value!r}{hint}")


def _is_array(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
