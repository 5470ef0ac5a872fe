"""Which of two bundles gives the better poses, on images that the map of neither holds: `rgsiam bundle compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.errors import BuildError, RgsiamError
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.mapping.progress import Progress, Silent
from rgsiam_ros.recordings.base import Dataset, common_camera, session_fingerprints
from rgsiam_ros.recordings.ground_truth import truth_turn
from rgsiam_ros.recordings.time_offset import with_time_offset


@dataclass(frozen=True)
class Published:
    """The published poses of a bundle on the held-out images. The errors are over these poses; 0 without any."""

    bundle: str
    frames: int
    answered: float
    """Share of the images that got a pose."""
    right: float
    """Share of the images whose pose is right."""
    wrong: float
    """Share of the images whose pose is wrong."""
    median_m: float
    p95_m: float
    median_deg: float
    p95_deg: float

    def better_than(self, other: Published) -> bool:
        """By the right share, then by the median position error."""
        return (self.right, -self.median_m) > (other.right, -other.median_m)

    def describe(self) -> str:
        """The figures in words."""
        return (
            f"{self.right:.1%} right, {self.wrong:.1%} wrong, {self.answered:.1%} answered of {self.frames} held-out "
            f"images; median {self.median_m:.3g} m and {self.median_deg:.3g} deg, 95 % within {self.p95_m:.3g} m"
        )


def compare_bundles(
    bundles: Sequence[Path], datasets: Sequence[Dataset], progress: Progress | None = None
) -> list[Published]:
    """Localize the images that `rgsiam map build` held out of `datasets`, each alone, with each bundle.

    A network must have been trained with ``--hold-out map``, or it has seen some of them. Raises BuildError if a bundle
    was not made from these datasets, in this order.
    """
    common_camera(datasets)
    prints = session_fingerprints(datasets)
    found = []
    for path in bundles:
        relocalizer = Relocalizer.from_bundle(path, EngineOptions(fallback="none"))
        try:
            if relocalizer.manifest.mapping_data.sessions != prints:
                raise BuildError(
                    f"{path} was not made from these recordings: give --data those of its map, in the same order"
                )
            found.append(_published(path, relocalizer, datasets, progress or Silent()))
        finally:
            relocalizer.close()
    return found


def _published(
    path: Path, relocalizer: Relocalizer, datasets: Sequence[Dataset], progress: Progress
) -> Published:
    manifest: Manifest = relocalizer.manifest
    moved = [with_time_offset(dataset, manifest.labels.time_offset_s) for dataset in datasets]
    labels = read_labels(moved)
    turn = truth_turn(manifest, datasets[0].map_frame, datasets[0].path)
    relocalizer.use_camera(datasets[0].camera)
    advance = progress.start(f"held-out images with {path}", int(labels.held_out_N.sum()))
    poses, true = [], []
    images = (image for dataset in moved for image in dataset.read_images())
    for held_out, T_true, image in zip(
        labels.held_out_N, turn @ labels.T_map_camera_N44, images, strict=True
    ):
        if not held_out:
            continue
        relocalizer.forget()
        try:
            estimate = relocalizer.estimate(image.decode(relocalizer.enough, relocalizer.levels))
            poses.append(_pose(estimate))
        except RgsiamError:
            poses.append(None)
        true.append(T_true)
        advance(1)
    nothing = np.full((4, 4), np.nan)
    T_N44 = np.stack([nothing if T is None else T for T in poses])
    metres, radians = pose_errors(T_N44, np.stack(true))
    degrees, limits = np.degrees(radians), manifest.limits
    answered = np.array([T is not None for T in poses])
    errors = [
        float(np.percentile(values[answered], q)) if answered.any() else 0.0
        for values in (metres, degrees)
        for q in (50, 95)
    ]
    right, wrong = (
        float(marked.mean())
        for marked in (limits.right(metres, degrees), limits.wrong(metres, degrees))
    )
    return Published(str(path), len(poses), float(answered.mean()), right, wrong, *errors)


def _pose(estimate: PoseEstimate) -> Array | None:
    return None if estimate.lost else estimate.T_map_camera


def write_comparison(found: Sequence[Published], path: Path) -> None:
    """Write the figures as JSON. Raises BuildError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"bundles": [asdict(one) for one in found]}, indent=2) + "\n")
    except OSError as error:
        raise BuildError(f"{path} cannot be written ({error}): give another --out") from error


def read_comparison(path: Path) -> list[Published]:
    """Read what `write_comparison` wrote. Raises BuildError."""
    try:
        return [Published(**one) for one in json.loads(path.read_text())["bundles"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BuildError(f"{path} cannot be read ({error}): remove it and run again") from error
