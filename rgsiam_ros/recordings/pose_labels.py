"""Labels as they stand in files, to poses; what is no pose is told apart from what is."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import numpy as np
from numpy.typing import ArrayLike

from rgsiam_ros.geometry.poses import Array, check_pose, pose_matrix

FARTHEST_M = 1e8
NORM_TOLERANCE = 1e-2
ROTATION_TOLERANCE = 5e-3
LONGEST_STAMP_S = 9e9


class BadLabelError(Exception):
    """A label that is no pose: its frame is left out, the loading goes on."""


def numbers(fields: Sequence[str], count: int) -> Array:
    """``(count,)`` numbers from text. Raises BadLabelError."""
    if len(fields) != count:
        raise BadLabelError(f"{len(fields)} numbers, not {count}")
    try:
        return np.array([float(field) for field in fields])
    except ValueError as error:
        raise BadLabelError(f"not a number ({error})") from error


def pose_from_quaternion(translation_m: ArrayLike, quaternion_wxyz: ArrayLike) -> Array:
    """A pose ``(4, 4)`` from ``(3,)`` metres and ``(4,)``. Raises BadLabelError."""
    q_wxyz = np.asarray(quaternion_wxyz, np.float64)
    translation = _place(translation_m)
    if not np.isfinite(q_wxyz).all():
        raise BadLabelError("non-finite quaternion")
    norm = float(np.linalg.norm(q_wxyz))
    if abs(norm - 1.0) > NORM_TOLERANCE:
        raise BadLabelError(f"quaternion of norm {norm:.4g}, not 1")
    return pose_matrix(translation, q_wxyz / norm)


def pose_from_matrix(T: ArrayLike) -> Array:
    """A pose ``(4, 4)`` from ``(3, 4)`` or ``(4, 4)``. Raises BadLabelError."""
    matrix = np.asarray(T, np.float64)
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]])
    try:
        checked = check_pose(matrix, tolerance=ROTATION_TOLERANCE)
    except ValueError as error:
        raise BadLabelError(str(error)) from error
    _place(checked[:3, 3])
    return checked


def stamp_ns(text: str) -> int:
    """Nanoseconds from seconds in decimal, exactly. Raises BadLabelError."""
    try:
        seconds = Decimal(text.strip())
    except InvalidOperation as error:
        raise BadLabelError(f"stamp {text!r} is not a number") from error
    if not seconds.is_finite() or abs(seconds) > LONGEST_STAMP_S:
        raise BadLabelError(f"stamp {text!r} is no time in seconds")
    return int(seconds * 10**9)


def _place(translation_m: ArrayLike) -> Array:
    translation = np.asarray(translation_m, np.float64)
    if not np.isfinite(translation).all():
        raise BadLabelError("non-finite position")
    farthest = float(np.abs(translation).max())
    if farthest > FARTHEST_M:
        raise BadLabelError(f"position {farthest:.3g} m from the origin: no place on Earth")
    return translation
