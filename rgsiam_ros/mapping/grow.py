"""Add a drive to the map of a bundle: `rgsiam map add`.

1. The drive's images are localized in the map, in order, and the drive is refused if the map finds too few (`localized_drive`).
2. Its images get poses: its labels, or where the map found them (`drive_poses`), refined if they do not fit the images.
3. Points of the map that it sees again are found, and those that it should see but does not (`sightings`).
4. Its own points are made as for a new map; those that the map has already are left out (`joining`).
5. Trust and covariance are fitted anew: the map without the drive answers as on another day (`refit`).
6. The bundle is replaced in one step (`changed_map`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.geometric_part import MapSession
from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.features.network import intrinsics
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.mapping.build import MAP_KEYPOINTS, MapOptions
from rgsiam_ros.mapping.changed_map import check_target, write_changed
from rgsiam_ros.mapping.drive_poses import DrivePoses, drive_poses
from rgsiam_ros.mapping.extraction import Extractor
from rgsiam_ros.mapping.frame_features import FrameFeatures, find_features
from rgsiam_ros.mapping.joining import joined, new_points
from rgsiam_ros.mapping.labels import HELD_OUT, Labels
from rgsiam_ros.mapping.localized_drive import (
    Localizer,
    check_sample,
    check_share,
    localize_in_order,
)
from rgsiam_ros.mapping.matching import MapImage
from rgsiam_ros.mapping.new_session import NewSession, new_session
from rgsiam_ros.mapping.points import make_points
from rgsiam_ros.mapping.precisions import REFERENCE_ENGINE
from rgsiam_ros.mapping.progress import Progress, Silent
from rgsiam_ros.mapping.refinement import Refined, refine_poses
from rgsiam_ros.mapping.refit import fit_of, refit
from rgsiam_ros.mapping.sightings import Sightings, look_for_points
from rgsiam_ros.mapping.stretches import describe_stretches
from rgsiam_ros.mapping.validation import Validated
from rgsiam_ros.recordings.base import Dataset
from rgsiam_ros.uncertainty.geometric_trust import GeometricTrust

POINTS_AN_IMAGE = MapOptions.points_per_image
"""Points that a new session keeps for each image, before those that the map has already are left out."""
MANY_NEW, MANY_GONE = 0.5, 20
"""The summary names where more than this share of an image's points is new, and where an image should see so many points
that were removed."""


@dataclass(frozen=True)
class Added:
    """A bundle with another session, and what the session changed."""

    bundle: Bundle
    session: MapSession
    lines: list[str]
    """What to tell, a line each."""


@dataclass(frozen=True)
class _Placed:
    """The images of a drive that the map gets."""

    mapped: NDArray[np.int64]
    """Their indices in the drive."""
    images: list[MapImage]
    T_points_camera_N44: Array
    refined: Refined | None


def add_session(
    bundle: Bundle,
    drive: Dataset,
    out: Path | None = None,
    name: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Added:
    """Add a drive to the map of a bundle.

    drive: its poses are in the frame of the map or in another one, or not finite if it has none; out: a new folder, None for
    the bundle's own; name: of the session, None for that of the drive; seed: of the spoilt images in the validation.
    Raises BundleError before the long work if the bundle has no map, if `out` exists or if the name is taken, and later
    if no golden view is localized in the grown map; DatasetError before the long work for another camera, a drive that the
    map has already, and one of which hardly any image of a sample is localized; later if too few images are.
    """
    progress = progress or Silent()
    part, points = bundle.manifest.geometric_part, bundle.map_points
    check_target(bundle, out)
    new = new_session(bundle, drive, name)
    K = intrinsics(bundle.manifest.camera, part.preprocessing)
    size_wh = part.preprocessing.input_width, part.preprocessing.input_height
    trust = GeometricTrust(part.fewest_inliers, part.trust_threshold)
    branch = GeometricBranch(points, np.eye(4), part.candidates)
    localizer = Localizer(branch, trust, K, part.keypoints)
    features = _features(bundle, new, localizer, seed, progress)
    T_localized, trusted_N = localize_in_order(features.keypoints, new.labels, localizer, progress)
    poses = drive_poses(
        new.T_points_label_N44,
        T_localized,
        trusted_N,
        new.labels.session_N,
        part.limits,
        part.map_scale_m or part.wrong_m,
    )
    check_share(new.dataset, poses.found_N, new.labels)
    placed = _placed(features, poses, K, size_wh, progress)
    sightings = look_for_points(
        points,
        placed.T_points_camera_N44,
        [features.keypoints[i] for i in placed.mapped],
        poses.found_N[placed.mapped],
        K,
        size_wh,
        points.typical_distance_m(),
        progress,
    )
    cloud = make_points(
        placed.images, placed.T_points_camera_N44, K, size_wh, POINTS_AN_IMAGE, progress
    )
    new_P = new_points(cloud, placed.images, sightings)
    grown = joined(
        bundle.stored_points,
        cloud,
        new_P,
        placed.images,
        placed.T_points_camera_N44,
        sightings,
        len(part.sessions),
    )
    found, fit = None, fit_of(part)
    if poses.source == "labels":
        found, fit = refit(branch, new.labels, features, poses, part, K)
    session = MapSession(
        name=new.name,
        source=drive.path.name,
        fingerprint=new.fingerprint,
        recorded=new.recorded,
        images=len(placed.images),
        points=int(new_P.sum()),
        poses=poses.source,
        seen_again=int(sightings.seen_P.sum()),
        removed=int(sightings.gone_P.sum()),
        fit_before=fit_of(part),
    )
    written = write_changed(bundle, out, grown, fit, (*part.sessions, session))
    lines = [
        f"{int(poses.found_N.sum())} of {len(trusted_N)} images ({poses.found_N.mean():.0%}) are localized"
        + _where("; not localized", ~poses.found_N, new.labels),
        poses.describe(),
        *([] if placed.refined is None else [placed.refined.describe()]),
        f"{session.images} map images and {session.points} points added, {session.seen_again} points seen again, "
        f"{session.removed} removed",
        *_places(grown, session, sightings, placed.mapped, new.labels),
        *_fit_lines(found, poses),
    ]
    if bundle.manifest.absolute is not None:
        lines.append("the absolute branch is unchanged: it does not know the new session")
    return Added(written, session, lines)


def _features(
    bundle: Bundle, new: NewSession, localizer: Localizer, seed: int, progress: Progress
) -> FrameFeatures:
    """The local features of all images. Raises DatasetError if hardly any image of a sample is localized."""
    part = bundle.manifest.geometric_part
    engine = create_engine(REFERENCE_ENGINE, EngineRequest(bundle.features_onnx()))
    try:
        extractor = Extractor(engine, bundle.manifest.camera, part.preprocessing, MAP_KEYPOINTS)
        check_sample(new.dataset, extractor, localizer, new.labels)
        return find_features([new.dataset], new.labels, extractor, part.keypoints, seed, progress)
    finally:
        engine.close()


def _placed(
    features: FrameFeatures,
    poses: DrivePoses,
    K: Array,
    size_wh: tuple[int, int],
    progress: Progress,
) -> _Placed:
    """All images with a pose, refined if the poses do not fit the images."""
    mapped = np.flatnonzero(poses.known_N)
    images = [MapImage.of(features.keypoints[i]) for i in mapped]
    T_N44 = poses.T_points_camera_N44[mapped]
    refined = refine_poses(images, T_N44, K, size_wh, "auto", progress)
    if refined is not None:
        T_N44 = refined.T_map_camera_N44
    return _Placed(mapped, images, T_N44, refined)


def _fit_lines(found: Validated | None, poses: DrivePoses) -> list[str]:
    if found is not None:
        return [
            "trust and covariance are fitted anew, on images of the drive and the map without it:",
            *found.describe(),
        ]
    why = "too few images of the drive are localized well enough"
    if poses.source != "labels":
        why = "the drive has no true poses in the frame of the map"
    return [f"trust and covariance stay as they were: {why}"]


def _places(
    grown: MapPoints,
    session: MapSession,
    sightings: Sightings,
    mapped: NDArray[np.int64],
    labels: Labels,
) -> list[str]:
    """Where the map changed most."""
    first_new = len(grown.position_P3) - session.points
    own = grown.visible[-session.images :]
    new, gone = (np.zeros(len(labels.frames), bool) for _ in range(2))
    new[mapped] = [len(seen) > 0 and (seen >= first_new).mean() > MANY_NEW for seen in own]
    gone[mapped] = sightings.gone_N >= MANY_GONE
    texts = [
        _where("mostly new points", new, labels),
        _where("most points removed", gone, labels),
    ]
    return [text for text in texts if text]


def _where(what: str, chosen_N: NDArray[np.bool_], labels: Labels) -> str:
    if not chosen_N.any():
        return ""
    return f"{what}: {describe_stretches(chosen_N, labels.frames, labels.session_N, HELD_OUT)}"
