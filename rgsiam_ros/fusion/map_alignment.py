"""Find a map's position and heading on the Earth from GPS fixes and map poses.

The antenna's track in the map is aligned to the fixes by a rotation about the vertical and a shift. Fixes are
weighted by their covariance and by robust Geman-McClure weights, because GPS between houses can be wrong for
minutes. The scale of the robust weights shrinks step by step. The datum is the place of the map's origin on
the Earth. The map is then rotated so that its axes are east, north and up at the datum.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transforms3d.euler import euler2mat
from transforms3d.quaternions import mat2quat

from rgsiam_ros.bundle import Bundle, rewrite_bundle
from rgsiam_ros.bundle.map_features import MapFeatures
from rgsiam_ros.bundle.npz import npz_bytes
from rgsiam_ros.bundle.parts import Placement
from rgsiam_ros.bundle.precision import map_features_name
from rgsiam_ros.errors import GeoreferenceError
from rgsiam_ros.fusion.fix_checks import (
    AGREES_FROM,
    SMALLEST_AGREEING_SHARE,
    clock_offset,
    mirrored_agreeing,
)
from rgsiam_ros.geometry.geodesy import Datum, LocalFrame
from rgsiam_ros.geometry.poses import Array, pose_matrix

logger = logging.getLogger(__name__)

FEWEST_FIXES = 20
LARGEST_YAW_SIGMA_DEG = 1.0
"""Largest standard deviation of the heading, degrees, at which the alignment is accepted."""
LARGEST_SCALE_ERROR = 0.05
LARGEST_CLOCK_OFFSET_S = 0.2
"""A smaller clock offset between fixes and poses causes only a warning."""
STEPS = 40
"""Number of steps of the robust fit."""
SCALE_DIVISOR = 1.4
"""The scale of the robust weights is divided by this in each step."""
FINAL_SCALE_SIGMAS = 2.0
"""Final scale of the robust weights: a fix with a residual of this many sigmas gets the weight 1/4."""
SMALLEST_SIGMA_M = 0.05
ROUNDS = 3
"""Number of times that the datum is moved to the estimated place of the map's origin."""
BLOCKS = 20
"""Number of blocks of consecutive fixes. The errors of the fixes in one block count as fully correlated."""
SIGNIFICANT_SIGMAS = 2.0
"""A rotation of fewer standard deviations is set to zero: it may be noise, and the map stays as it is."""


@dataclass(frozen=True)
class Fixes:
    """N GPS fixes and the positions of the antenna in the map at the stamps of the fixes."""

    stamps_ns: NDArray[np.int64]
    latitude_longitude_height_N3: Array
    """Degrees, degrees, metres above the ellipsoid."""
    sigma_N: Array
    """Horizontal standard deviation of each fix, metres."""
    antenna_map_N3: Array
    """Position of the antenna in the map frame, metres."""


@dataclass(frozen=True)
class MapAlignment:
    """The position and heading of a map on the Earth."""

    datum: Datum
    T_enu_map: Array
    """``(4, 4)``: pose of the old map frame in the frame east, north, up at the datum."""
    yaw_deg: float
    """Direction of the old map's x axis, counter-clockwise from east."""
    yaw_sigma_deg: float
    """Standard deviation of yaw_deg."""
    scale: float
    """Length on the Earth divided by length in the map: 1 for a map in metres. It is not applied."""
    tilt_deg: float
    """Angle between the map's z axis and the vertical, estimated from the heights. It is not applied."""
    residual_N3: Array
    """Fix minus antenna position after the alignment, east north up, metres."""
    weight_N: Array
    """Robust weight of each fix, 0..1."""


def align_map(fixes: Fixes) -> MapAlignment:
    """Compute the datum and the alignment of a map. Logs a small clock offset between fixes and poses.

    Raises GeoreferenceError when there are too few fixes, or they do not determine the heading, when less than half agree,
    when the clocks of fixes and poses differ, or when the map is mirrored or not in metres.
    """
    count = len(fixes.stamps_ns)
    if count < FEWEST_FIXES:
        raise GeoreferenceError(
            f"{count} fixes with a map pose are too few, at least {FEWEST_FIXES} are needed: record a "
            "longer drive with good GPS inside the map"
        )
    latitude, longitude, height = np.median(fixes.latitude_longitude_height_N3, axis=0)
    frame = LocalFrame(
        Datum(latitude_deg=latitude, longitude_deg=longitude, ellipsoidal_height_m=height)
    )
    sigma = np.maximum(fixes.sigma_N, SMALLEST_SIGMA_M)
    antenna = fixes.antenna_map_N3
    for _ in range(ROUNDS):
        fix_enu = frame.from_geodetic(fixes.latitude_longitude_height_N3)
        yaw, shift, weight = _fit_robustly(antenna, fix_enu, sigma)
        latitude, longitude, height = frame.to_geodetic(shift)
        frame = LocalFrame(
            Datum(latitude_deg=latitude, longitude_deg=longitude, ellipsoidal_height_m=height)
        )
    fix_enu = frame.from_geodetic(fixes.latitude_longitude_height_N3)
    _check_agreement(fixes.stamps_ns, antenna, fix_enu, sigma, weight)
    yaw_sigma = _yaw_sigma(antenna, fix_enu, yaw, weight / sigma**2)
    if np.degrees(yaw_sigma) > LARGEST_YAW_SIGMA_DEG:
        raise GeoreferenceError(
            f"the fixes determine the map's heading only to {np.degrees(yaw_sigma):.1f} degrees: record a "
            "longer drive, or one with better GPS"
        )
    if abs(yaw) < SIGNIFICANT_SIGMAS * yaw_sigma:
        yaw = 0.0
    T = np.eye(4)
    T[:3, :3] = _about_z(yaw)
    weight_N1 = (weight / sigma**2)[:, None]
    centre = (weight_N1 * antenna).sum(axis=0) / weight_N1.sum()
    fix_centre = (weight_N1 * fix_enu).sum(axis=0) / weight_N1.sum()
    T[:3, 3] = fix_centre - T[:3, :3] @ centre
    datum_geodetic = frame.to_geodetic(T[:3, 3])
    datum = Datum(
        latitude_deg=datum_geodetic[0],
        longitude_deg=datum_geodetic[1],
        ellipsoidal_height_m=datum_geodetic[2],
    )
    T[:3, 3] = 0.0  # because the datum is at the map's origin
    antenna_enu = antenna @ T[:3, :3].T
    residual = LocalFrame(datum).from_geodetic(fixes.latitude_longitude_height_N3) - antenna_enu
    scale = _scale(antenna_enu, antenna_enu + residual, weight_N1)
    _check_scale(scale)
    return MapAlignment(
        datum=datum,
        T_enu_map=T,
        yaw_deg=float(np.degrees(yaw)),
        yaw_sigma_deg=float(np.degrees(yaw_sigma)),
        scale=scale,
        tilt_deg=_tilt_deg(antenna_enu, residual[:, 2], weight_N1),
        residual_N3=residual,
        weight_N=weight,
    )


def georeferenced(bundle: Bundle, alignment: MapAlignment, out: Path) -> Bundle:
    """Write `bundle` to `out` with its map rotated to east, north and up at the datum. Raises BundleError."""
    absolute, geometry = bundle.manifest.absolute, bundle.manifest.geometry
    T = alignment.T_enu_map
    description: dict[str, Any] = {"datum": alignment.datum.model_dump()}
    if absolute is not None:
        part = absolute.model_dump(mode="json")
        description["absolute"] = part | {"target": _moved(absolute.target, T)}
    if geometry is not None:
        part = geometry.model_dump(mode="json")
        description["geometry"] = part | {"placement": _moved(geometry.placement, T)}
    contents: dict[str, bytes] = {}
    if absolute is not None and absolute.retrieval is not None:
        for precision in absolute.precisions:
            features = bundle.map_features(precision)
            rotated = MapFeatures(features.metric_feature_ND, T @ features.T_map_camera_N44)
            contents[map_features_name(precision)] = npz_bytes(rotated.to_arrays())
    return rewrite_bundle(bundle, out, description, contents)


def _moved(placement: Placement, T: Array) -> dict[str, Any]:
    """The fields of a placement after the motion `T`, ``(4, 4)``, of the map frame's contents."""
    R = T[:3, :3] @ pose_matrix(np.zeros(3), placement.turn_wxyz)[:3, :3]
    return placement.model_dump(mode="json") | {
        "turn_wxyz": mat2quat(R).tolist(),
        "origin_m": (T[:3, :3] @ np.asarray(placement.origin_m) + T[:3, 3]).tolist(),
    }


def _check_agreement(
    stamps_ns: NDArray[np.int64], antenna: Array, fix: Array, sigma: Array, weight: Array
) -> None:
    """Raise GeoreferenceError if the alignment is not that of the map, and say why if it is known."""

    def fit(antenna: Array, fix: Array, sigma: Array) -> Array:
        return _fit_robustly(antenna, fix, sigma)[2]

    agreeing, count = int((weight > AGREES_FROM).sum()), len(weight)
    mirrored = mirrored_agreeing(antenna, fix, sigma, fit)
    if mirrored is not None and mirrored > agreeing:
        raise GeoreferenceError(
            f"the map is mirrored: {agreeing} of {count} fixes agree with it, and {mirrored} if its y axis is turned round. Two "
            "axes are swapped, or z points down (north, east, down): record true poses with z up (REP 103), and build it again"
        )
    offset = clock_offset(stamps_ns, antenna, fix, sigma, fit)
    if offset is not None:
        late = f"{abs(offset.seconds):g} s {'late' if offset.seconds > 0 else 'early'}"
        if abs(offset.seconds) >= LARGEST_CLOCK_OFFSET_S:
            raise GeoreferenceError(
                f"the clocks of fixes and poses differ: the fixes are stamped {late} ({agreeing} of {count} agree with "
                f"the map as they are, {offset.agreeing} of {offset.fixes} if their stamps are corrected): correct the "
                "stamps (GPS time is 18 s ahead of UTC), and record again"
            )
        logger.warning(
            "the fixes seem to be stamped %s: the datum is off by the way driven in this time", late
        )
    if agreeing < SMALLEST_AGREEING_SHARE * count:
        equal = np.ones((count, 1))
        turned = antenna @ _about_z(_fit_weighted(antenna, fix, equal[:, 0])[0]).T
        scale = _scale(turned, fix, equal)
        if (fit(scale * antenna, fix, sigma) > AGREES_FROM).mean() >= SMALLEST_AGREEING_SHARE:
            _check_scale(scale)
        raise GeoreferenceError(
            f"{agreeing} of {count} fixes agree with the map, at least {SMALLEST_AGREEING_SHARE:.0%} are needed: check the "
            "bag's place and clocks, and the receiver's position_covariance"
        )


def _fit_robustly(antenna: Array, fix: Array, sigma: Array) -> tuple[float, Array, Array]:
    """Yaw, shift and robust weights (graduated non-convexity with Geman-McClure weights).

    At first all fixes have similar weights. As the scale shrinks, fixes with large residuals lose theirs.
    """
    weight = np.ones(len(fix))
    yaw, shift = _fit_weighted(antenna, fix, weight / sigma**2)
    residual_sigmas = _horizontal_distance(antenna, fix, yaw, shift) / sigma
    scale = max(1.0, float(residual_sigmas.max()))
    for _ in range(STEPS):
        weight = (scale**2 / (scale**2 + residual_sigmas**2)) ** 2
        yaw, shift = _fit_weighted(antenna, fix, weight / sigma**2)
        residual_sigmas = _horizontal_distance(antenna, fix, yaw, shift) / sigma
        scale = max(FINAL_SCALE_SIGMAS, scale / SCALE_DIVISOR)
    return yaw, shift, weight


def _fit_weighted(antenna: Array, fix: Array, weight: Array) -> tuple[float, Array]:
    """Yaw and shift of the weighted least-squares alignment, in closed form."""
    share = (weight / weight.sum())[:, None]
    a, f = antenna - (share * antenna).sum(axis=0), fix - (share * fix).sum(axis=0)
    cosine = (share[:, 0] * (a[:, 0] * f[:, 0] + a[:, 1] * f[:, 1])).sum()
    sine = (share[:, 0] * (a[:, 0] * f[:, 1] - a[:, 1] * f[:, 0])).sum()
    yaw = float(np.arctan2(sine, cosine))
    shift = (share * fix).sum(axis=0) - _about_z(yaw) @ (share * antenna).sum(axis=0)
    return yaw, shift


def _horizontal_distance(antenna: Array, fix: Array, yaw: float, shift: Array) -> Array:
    """Horizontal distance of each fix from the aligned antenna position, metres."""
    return np.linalg.norm((antenna @ _about_z(yaw).T + shift - fix)[:, :2], axis=1)


def _yaw_sigma(antenna: Array, fix: Array, yaw: float, weight: Array) -> float:
    """Standard deviation of the yaw, radians, from the residuals across the lever arm of each fix.

    GPS errors are correlated over time, so the residuals in a block of consecutive fixes are summed before
    they are squared.
    """
    share = (weight / weight.sum())[:, None]
    lever = (antenna - (share * antenna).sum(axis=0)) @ _about_z(yaw).T
    residual = fix - (share * fix).sum(axis=0) - lever
    information = float((weight * (lever[:, :2] ** 2).sum(axis=1)).sum())
    if information <= 0.0:
        return np.inf
    across = lever[:, 0] * residual[:, 1] - lever[:, 1] * residual[:, 0]
    blocks = np.array_split(weight * across, BLOCKS)
    variance = sum(float(block.sum()) ** 2 for block in blocks) / information**2
    return max(float(np.sqrt(variance)), 1.0 / np.sqrt(information))


def _scale(antenna: Array, fix: Array, weight_N1: Array) -> float:
    share = weight_N1 / weight_N1.sum()
    a, f = ((v - (share * v).sum(axis=0))[:, :2] for v in (antenna, fix))
    return float((share * a * f).sum() / max((share * a * a).sum(), 1e-12))


def _check_scale(scale: float) -> None:
    if abs(scale - 1.0) > LARGEST_SCALE_ERROR:
        raise GeoreferenceError(
            f"the map is not in metres: distances on the Earth are {scale:.3f} times as long as in the "
            "map. Record the true poses in metres, and train again"
        )


def _tilt_deg(antenna: Array, height_residual: Array, weight_N1: Array) -> float:
    share = weight_N1 / weight_N1.sum()
    a = antenna[:, :2] - (share * antenna).sum(axis=0)[:2]
    h = height_residual - (share[:, 0] * height_residual).sum()
    normal = (share * a).T @ a + 1e-9 * np.eye(2)
    slope = np.linalg.solve(normal, (share * a).T @ h)
    return float(np.degrees(np.arctan(np.linalg.norm(slope))))


def _about_z(yaw: float) -> Array:
    """``(3, 3)`` rotation by `yaw` radians about the vertical."""
    return euler2mat(0.0, 0.0, yaw, axes="sxyz")
