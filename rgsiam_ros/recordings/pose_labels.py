"""Convert pose labels from text files to poses, and reject unusable labels with BadLabelError."""

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
    """A label is not a valid pose. The loader leaves out its frame and goes on."""


def numbers(fields: Sequence[str], count: int) -> Array:
    """Convert text fields to ``(count,)`` numbers. Raises BadLabelError."""
    if len(fields) != count:
        raise BadLabelError(f"{len(fields)} numbers, not {count}")
    try:
        return np.array([float(field) for field in fields])
    except ValueError as error:
        raise BadLabelError(f"not a number ({error})") from error


def pose_from_quaternion(translation_m: ArrayLike, quaternion_wxyz: ArrayLike) -> Array:
    """Compose a pose ``(4, 4)`` from ``(3,)`` metres and a quaternion ``(4,)``, wxyz.

    The quaternion is normalised. Raises BadLabelError when its norm is not near 1 or a number is unusable.
    """
    q_wxyz = np.asarray(quaternion_wxyz, np.float64)
    translation = _checked_position(translation_m)
    if not np.isfinite(q_wxyz).all():
        raise BadLabelError("non-finite quaternion")
    norm = float(np.linalg.norm(q_wxyz))
    if abs(norm - 1.0) > NORM_TOLERANCE:
        raise BadLabelError(f"quaternion of norm {norm:.4g}, not 1")
    return pose_matrix(translation, q_wxyz / norm)


def pose_from_matrix(T: ArrayLike) -> Array:
    """Check a pose ``(3, 4)`` or ``(4, 4)`` and return it as ``(4, 4)``. Raises BadLabelError."""
    matrix = np.asarray(T, np.float64)
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]])
    try:
        checked = check_pose(matrix, tolerance=ROTATION_TOLERANCE)
    except ValueError as error:
        raise BadLabelError(str(error)) from error
    _checked_position(checked[:3, 3])
    return checked


def stamp_ns(text: str) -> int:
    """Convert decimal seconds to integer nanoseconds without rounding errors. Raises BadLabelError."""
    try:
        seconds = Decimal(text.strip())
    except InvalidOperation as error:
        raise BadLabelError(f"stamp {text!r} is not a number") from error
    if not seconds.is_finite() or abs(seconds) > LONGEST_STAMP_S:
        raise BadLabelError(f"stamp {text!r} is not a time in seconds")
    return int(seconds * 10**9)


def _checked_position(translation_m: ArrayLike) -> Array:
    translation = np.asarray(translation_m, np.float64)
    if not np.isfinite(translation).all():
        raise BadLabelError("non-finite position")
    farthest = float(np.abs(translation).max())
    if farthest > FARTHEST_M:
        raise BadLabelError(
            f"position {farthest:.3g} m from the origin, more than the limit of {FARTHEST_M:.0e} m"
        )
    return translation
