"""Georeference a bundle with the fixes of a bag: write a bundle with a datum, and draw the residuals."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from rgsiam_ros.bundle import Bundle, refuse_existing
from rgsiam_ros.errors import (
    BagError,
    GeoreferenceError,
    ResultsError,
    TransformUnavailableError,
)
from rgsiam_ros.fusion.fix_checks import AGREES_FROM
from rgsiam_ros.fusion.map_alignment import Fixes, MapAlignment, align_map, georeferenced
from rgsiam_ros.geometry.conversions import stamp_to_ns
from rgsiam_ros.geometry.poses import Array, interpolate_poses
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.ground_truth import drive_in_map
from rgsiam_ros.recordings.rosbag import Drive, no_mount, read_drive, read_messages, static_tree
from rgsiam_ros.recordings.topics import BagTopics
from rgsiam_ros.replay.offline import replay_offline

logger = logging.getLogger(__name__)

LONGEST_GAP_NS = 1_000_000_000
"""Largest time between two poses between which poses are interpolated."""
UNKNOWN_SIGMA_M = 3.0
"""Horizontal standard deviation assumed for a fix without a usable variance."""
WARN_SCALE, WARN_TILT_DEG = 0.01, 1.0
"""Largest deviation of the scale from 1, and largest tilt, that cause no warning."""
SMALLEST_UPRIGHT = -0.5
"""Smallest vertical component, in the map, of the camera's upward direction."""


@dataclass(frozen=True)
class GeoreferenceOptions:
    """Options of `rgsiam georeference`."""

    poses: str = "bundle"
    """Source of the poses. ``bundle``: the bundle relocalizes the bag. ``truth``: the bag's true poses."""
    topics: BagTopics = field(default_factory=BagTopics)
    fix_topic: str | None = None
    """NavSatFix topic. None: the only one of the bag."""


def run_georeference(
    bag: Path, path: Path, out: Path, picture: Path, options: GeoreferenceOptions, console: Console
) -> MapAlignment:
    """Align the map with the fixes, print the result, draw the residuals and write the new bundle.

    path: folder of the bundle; out: folder of the new one; picture: file of the drawing. Raises RgsiamError.
    """
    if options.poses not in ("bundle", "truth"):
        raise GeoreferenceError(f"--poses is bundle or truth, not {options.poses}")
    refuse_existing(out)
    bundle = Bundle.load(path)
    drive = read_drive(bag, options.topics)
    stamps, poses = _poses(drive, bundle, options)
    fixes = read_fixes(drive, stamps, poses, options.fix_topic)
    _check_upright(drive, poses)
    alignment = align_map(fixes)
    used = alignment.weight_N > AGREES_FROM
    errors_m = np.linalg.norm(alignment.residual_N3[used, :2], axis=1)
    console.print(
        f"datum: latitude {alignment.datum.latitude_deg:.7f}, longitude {alignment.datum.longitude_deg:.7f}, "
        f"ellipsoidal height {alignment.datum.ellipsoidal_height_m:.2f} m\n"
        f"heading of the map's x axis: {alignment.yaw_deg:.2f} degrees from east, plus or minus "
        f"{alignment.yaw_sigma_deg:.2f}; scale {alignment.scale:.4f}; tilt {alignment.tilt_deg:.1f} degrees\n"
        f"{len(errors_m)} of {len(used)} fixes agree; they are off by {np.median(errors_m):.2f} m "
        f"(median, horizontal), {np.percentile(errors_m, 95):.2f} m (p95)",
        soft_wrap=True,
    )
    if abs(alignment.scale - 1.0) > WARN_SCALE:
        logger.warning(
            "the map's scale is off by %+.1f %%: check the poses that it was trained with",
            100.0 * (alignment.scale - 1.0),
        )
    if alignment.tilt_deg > WARN_TILT_DEG:
        logger.warning(
            "the map's z axis is tilted by %.1f degrees: heights will drift", alignment.tilt_deg
        )
    _draw(fixes, alignment, picture, f"{bag.name} on {bundle.manifest.name}")
    georeferenced(bundle, alignment, out)
    console.print(f"picture: {picture}\nbundle: {out}", soft_wrap=True)
    return alignment


def _check_upright(drive: Drive, T_map_base_N44: Array) -> None:
    """Raise GeoreferenceError if the map is upside down: on a straight road the fixes cannot tell this."""
    if drive.T_base_camera is None:
        what, up_N = "vehicle", T_map_base_N44[:, 2, 2]
    else:  # the camera's y axis points down in the image
        what, up_N = "camera", -(T_map_base_N44 @ drive.T_base_camera)[:, 2, 1]
    if np.median(up_N) < SMALLEST_UPRIGHT:
        raise GeoreferenceError(
            f"{drive.path}: the {what} is upside down in the map, so the map's z axis points down (north, east, down): record "
            "the true poses with z up (REP 103), and build the map again; if the camera is mounted upside down, "
            "correct its mount"
        )


def read_fixes(
    drive: Drive,
    stamps_ns: np.ndarray,
    T_map_base: Array,
    topic: str | None,
) -> Fixes:
    """The fixes of a bag that were received while the vehicle's pose in the map is known.

    stamps_ns, T_map_base: ``(N,)`` stamps and ``(N, 4, 4)`` poses in the map, metres; topic: None for the
    only NavSatFix topic. Warns of fixes without a usable variance. Raises BagError and GeoreferenceError.
    """
    topic, messages = read_messages(drive.path, topic, "fix")
    valid = [m for m in messages if m.status.status >= 0 and np.isfinite(_place(m)[:2]).all()]
    if not valid:
        raise BagError(f"{drive.path}: none of the {len(messages)} messages on {topic} is a fix")
    frame = valid[0].header.frame_id
    try:
        t_base_antenna = static_tree(drive.path).lookup(drive.base_frame, frame)[:3, 3]
    except TransformUnavailableError as error:
        raise BagError(
            f"{drive.path}: the antenna's mount is unknown ({error}): record "
            f"{drive.base_frame} -> {frame} on /tf_static"
        ) from error
    if len(stamps_ns) < 2:
        raise GeoreferenceError(
            f"{drive.path}: the map has a pose for {len(stamps_ns)} images only: is this the right map?"
        )
    at = np.array([stamp_to_ns(m.header.stamp) for m in valid], np.int64)
    after = np.clip(np.searchsorted(stamps_ns, at), 1, len(stamps_ns) - 1)
    near = (stamps_ns[after] - stamps_ns[after - 1]) <= LONGEST_GAP_NS
    near &= (at >= stamps_ns[0]) & (at <= stamps_ns[-1])
    kept = [m for m, is_near in zip(valid, near, strict=True) if is_near]
    T = interpolate_poses(stamps_ns, T_map_base, at[near])
    sigma = np.array([_sigma(m) for m in kept], np.float64)
    without = np.array([m.position_covariance_type == 0 for m in kept], bool)
    for count, fault in (
        (int(without.sum()), "have no covariance"),
        (
            int((np.isnan(sigma) & ~without).sum()),
            "have a variance that is negative, NaN or 0",
        ),
    ):
        if count:
            logger.warning(
                "%d of %d fixes on %s %s: a sigma of %g m is assumed. Correct the receiver's "
                "position_covariance, or the fixes are weighted wrongly",
                count,
                len(kept),
                topic,
                fault,
                UNKNOWN_SIGMA_M,
            )
    antenna = T[:, :3, 3] + T[:, :3, :3] @ t_base_antenna
    places = np.array([_place(m) for m in kept]).reshape(-1, 3)
    places[:, 2] = _heights(places[:, 2], antenna[:, 2], topic)
    return Fixes(at[near], places, np.where(np.isnan(sigma), UNKNOWN_SIGMA_M, sigma), antenna)


def _heights(height_N: Array, antenna_z_N: Array, topic: str) -> Array:
    """Heights of fixes, metres. A fix without altitude gets the one that agrees with the map and with the other fixes."""
    known = np.isfinite(height_N)
    if known.all():
        return height_N
    logger.warning(
        "%d of %d fixes on %s have no altitude%s",
        *(int((~known).sum()), len(known), topic),
        "" if known.any() else ": the height of the map's origin is set to 0 m",
    )
    offset = float(np.median(height_N[known] - antenna_z_N[known])) if known.any() else 0.0
    return np.where(known, height_N, antenna_z_N + offset)


def _poses(drive: Drive, bundle: Bundle, options: GeoreferenceOptions) -> tuple[np.ndarray, Array]:
    """Stamps ``(N,)`` and poses ``T_map_base`` ``(N, 4, 4)`` of the vehicle, sorted by stamp."""
    if options.poses == "truth":
        if len(drive.truth_stamps_ns) < 2:
            raise BagError(f"{drive.path} has no true poses on {options.topics.truth}")
        if drive.map_frame.lstrip("/") != bundle.manifest.map_frame.lstrip("/"):
            raise GeoreferenceError(
                f"{drive.path}: its true poses are in the frame {drive.map_frame}, but the bundle's map is "
                f"{bundle.manifest.map_frame}: name another --truth-topic, or leave --poses at bundle"
            )
        drive = drive_in_map(drive, bundle.manifest)
        return drive.truth_stamps_ns, drive.truth_T_map_base_N44
    if drive.T_base_camera is None:
        raise BagError(f"{drive.path}: {no_mount(drive.base_frame, drive.camera_frame)}")
    relocalizer = Relocalizer.from_bundle(bundle)
    record = replay_offline(drive, relocalizer)
    relocalizer.close()
    published = [(f.stamp_ns, f.T_map_frame) for f in record.frames if f.T_map_frame is not None]
    stamps, first = np.unique([stamp for stamp, _ in published], return_index=True)
    poses = [published[i][1] for i in first]
    return stamps.astype(np.int64), np.stack(poses) if poses else np.zeros((0, 4, 4))


def _place(message: object) -> tuple[float, float, float]:
    m = message
    return m.latitude, m.longitude, m.altitude  # type: ignore[attr-defined]


def _sigma(message: object) -> float:
    """Horizontal standard deviation of a NavSatFix, metres; NaN if it has no usable variance."""
    m = message
    east, north = m.position_covariance[0], m.position_covariance[4]  # type: ignore[attr-defined]
    if m.position_covariance_type == 0 or not (east > 0.0 and north > 0.0):  # type: ignore[attr-defined]
        return float("nan")
    return float(np.sqrt(0.5 * (east + north)))


def _draw(fixes: Fixes, alignment: MapAlignment, path: Path, title: str) -> None:
    figure = Figure(figsize=(12.0, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.0, 1.2])
    plane = figure.add_subplot(grid[:, 0])
    antenna = fixes.antenna_map_N3 @ alignment.T_enu_map[:3, :3].T
    fix = antenna + alignment.residual_N3
    used = alignment.weight_N > AGREES_FROM
    plane.plot(*fix[~used, :2].T, ".", color="tab:red", markersize=3, label="fixes that disagree")
    plane.plot(*fix[used, :2].T, ".", color="tab:green", markersize=3, label="fixes that agree")
    plane.plot(
        *antenna[:, :2].T, ".", color="tab:blue", markersize=2, label="antenna, from the map"
    )
    plane.set_aspect("equal", adjustable="datalim")
    plane.set(xlabel="east (m)", ylabel="north (m)")
    plane.legend(loc="best", fontsize=8)
    seconds = (fixes.stamps_ns - fixes.stamps_ns[0]) * 1e-9
    across = figure.add_subplot(grid[0, 1])
    for axis, name in enumerate(("east", "north", "up")):
        across.plot(seconds, alignment.residual_N3[:, axis], ".", markersize=3, label=name)
    across.set(ylabel="fix minus antenna (m)")
    across.legend(loc="upper right", fontsize=8)
    weights = figure.add_subplot(grid[1, 1], sharex=across)
    weights.plot(seconds, alignment.weight_N, ".", markersize=3, color="0.3")
    weights.set(xlabel="time (s)", ylabel="robust weight")
    for axes in (plane, across, weights):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise ResultsError(f"{path} cannot be written ({error}): change --picture") from error
