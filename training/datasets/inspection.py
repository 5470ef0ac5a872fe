"""Inspect a dataset before training: count its content, find suspicious frames, compare train with test."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle.parts import MapExtent
from rgsiam_ros.camera.levels import Levels, has_contrast
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import DatasetError, RgsiamError
from rgsiam_ros.geometry.poses import Array, angles_between
from rgsiam_ros.geometry.units import length_text
from rgsiam_ros.mapping.label_estimate import LabelEstimate, estimate_labels
from rgsiam_ros.mapping.map_scale import scale_of_images
from rgsiam_ros.recordings.base import Dataset, poses_of
from rgsiam_ros.recordings.levels import levels_of, with_levels
from rgsiam_training.datasets.coverage import cover, half_view_deg

JUMP_FACTOR = 10.0
"""A step is a jump if it is longer than this factor times the median step of the session, and longer than the
smallest jump. The same holds for rotations."""
SMALLEST_JUMP, SMALLEST_JUMP_DEG = 0.01, 10.0
"""The smallest jump is this share of the map's scale, and this rotation."""
ASSUMED_SCALE_M = 10.0
"""Scale of the map if the images do not show it."""
SAME_POSE_DECIMALS = 6
"""Two poses are the same if their matrices are equal after rounding to this many decimals."""
SAMPLE_IMAGES = 6
SAMPLE_WIDTH_PX = 320


@dataclass(frozen=True)
class Jump:
    """An unusually large step between consecutive frames of a session."""

    session: str
    index: int
    """Index of the frame before the jump, in its session."""
    before: str
    """Name of the frame before the jump."""
    after: str
    metres: float
    degrees: float
    seconds: float
    median_m: float
    """Median step of the session."""
    median_deg: float


@dataclass
class SplitFindings:
    """What was found in the frames of one split."""

    path: str
    frames: int
    camera: str
    map_frame: str
    sessions: dict[str, int]
    """Number of frames by session."""
    lowest_m: list[float]
    """Smallest x, y and z of the cameras in the map frame."""
    highest_m: list[float]
    track_m: float
    """Length of the path of all sessions, without jumps."""
    step_m: float
    """Median distance between consecutive frames."""
    image_sizes: dict[str, int] = field(default_factory=dict)
    """Number of images by size, ``WIDTHxHEIGHT``."""
    dropped: list[dict[str, Any]] = field(default_factory=list)
    jumps: list[Jump] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """Error messages of the images that cannot be read."""
    other_size: list[str] = field(default_factory=list)
    """Names of the frames whose image does not have the size of the camera."""
    no_contrast: list[str] = field(default_factory=list)
    """Names of the frames whose image shows nothing."""
    same_image: list[list[str]] = field(default_factory=list)
    """Groups of frames whose image files have the same bytes."""
    same_stamp: list[list[str]] = field(default_factory=list)
    """Groups of frames of one session with the same time stamp."""
    same_pose: list[list[str]] = field(default_factory=list)
    """Groups of frames with the same pose."""
    labels: LabelEstimate | None = None
    """What the images say about time offset and focal length; None if an image cannot be read."""


@dataclass
class Inspection:
    """The result of an inspection: the findings, and the data for the plot."""

    train: SplitFindings
    test: SplitFindings | None
    same_image: list[list[str]]
    """Pairs of a test frame and a training frame whose image files have the same bytes."""
    same_name: list[str]
    """Names that occur in both splits."""
    coverage: dict[str, Any] | None
    """The result of `rgsiam_training.datasets.coverage.cover`. None without a test split."""
    extent: MapExtent
    """Scale of the map that the training split would give, and which errors are right and wrong there."""
    problems: list[str]
    """One line for each suspicious finding."""
    tracks: dict[str, list[tuple[str, Array]]] = field(repr=False)
    """Session names with their positions ``(N, 3)``, by split (``train`` or ``test``)."""
    samples: dict[str, list[tuple[str, ImageBGR]]] = field(repr=False)
    """Frame names with small images, by split."""

    def numbers(self) -> dict[str, Any]:
        """The content of ``inspection.json``."""
        test = None if self.test is None else asdict(self.test)
        return {
            "look_at_these": self.problems,
            "train": asdict(self.train),
            "test": test,
            "same_image_in_train_and_test": self.same_image,
            "same_name_in_train_and_test": self.same_name,
            "coverage": self.coverage,
            "map": self.extent.model_dump(),
        }


ReadProgress = Callable[[int, int], None]
"""Is called with the number of images read so far and the number of all images."""


def inspect_datasets(
    train: Dataset, test: Dataset | None = None, progress: ReadProgress = lambda done, total: None
) -> Inspection:
    """Inspect all images and true poses of a dataset to train on, and of one to test with.

    An image that cannot be read or decoded is listed in `SplitFindings.unreadable`; the inspection goes on.
    Raises DatasetError if the dataset itself cannot be read.
    """
    levels = _levels(train)
    train = with_levels(train, levels)
    if test is not None:
        test = with_levels(test, levels)
    total = len(train.frames) + (len(test.frames) if test is not None else 0)
    extent = _extent(train)
    scale_m = extent.map_scale_m or ASSUMED_SCALE_M
    train_findings, hashes, samples = _read_split(
        train, scale_m, lambda done: progress(done, total)
    )
    splits, samples_of = {"train": train}, {"train": samples}
    test_findings, same_image, same_name, coverage = None, [], [], None
    problems = _problems(train_findings, "train" if test is not None else "")
    if test is not None:
        read = len(train.frames)
        test_findings, test_hashes, samples_of["test"] = _read_split(
            test, scale_m, lambda done: progress(read + done, total)
        )
        splits["test"] = test
        name_of = dict(zip(hashes, (f.name for f in train.frames), strict=True))
        pairs = zip(test.frames, test_hashes, strict=True)
        same_image = [[frame.name, name_of[h]] for frame, h in pairs if h in name_of]
        same_name = sorted({f.name for f in train.frames} & {f.name for f in test.frames})
        coverage = cover(
            poses_of(train.frames), poses_of(test.frames), scale_m, half_view_deg(train.camera)
        )
        problems += _problems(test_findings, "test")
        problems += _problems_between(train, test, same_image, same_name, coverage)
    tracks = {split: _tracks(dataset) for split, dataset in splits.items()}
    return Inspection(
        train_findings,
        test_findings,
        same_image,
        same_name,
        coverage,
        extent,
        problems,
        tracks,
        samples_of,
    )


def _levels(dataset: Dataset) -> Levels | None:
    """The levels that a map of this dataset would have; None if one of the images that show them cannot be read."""
    try:
        return levels_of([dataset])
    except RgsiamError:
        return None


def _extent(dataset: Dataset) -> MapExtent:
    """Unknown if one of the images that show it cannot be used; `_read_split` names it."""
    try:
        return MapExtent.of_scale(scale_of_images([dataset]))
    except RgsiamError:
        return MapExtent()


def _read_split(
    dataset: Dataset, scale_m: float, progress: Callable[[int], None]
) -> tuple[SplitFindings, list[str], list[tuple[str, ImageBGR]]]:
    """The findings of a split, a hash of each image file, and a few small images with their frame names."""
    T = poses_of(dataset.frames)
    jumps, track_m, step_m = _jumps(dataset, T, scale_m)
    camera = dataset.camera
    findings = SplitFindings(
        path=str(dataset.path),
        frames=len(dataset.frames),
        camera=camera.describe(),
        map_frame=dataset.map_frame,
        sessions=dict(Counter(frame.session for frame in dataset.frames)),
        lowest_m=T[:, :3, 3].min(axis=0).tolist(),
        highest_m=T[:, :3, 3].max(axis=0).tolist(),
        track_m=track_m,
        step_m=step_m,
        dropped=[asdict(dropped) for dropped in dataset.dropped],
        jumps=jumps,
    )
    sampled = set(
        np.linspace(0, len(dataset.frames) - 1, SAMPLE_IMAGES).round().astype(int).tolist()
    )
    hashes, samples = [], []
    sizes: Counter[str] = Counter()
    for i, (frame, image) in enumerate(zip(dataset.frames, dataset.read_images(), strict=True)):
        try:
            hashes.append(hashlib.sha256(image.content).hexdigest())
            decoded = image.decode()
        except DatasetError as error:
            if len(hashes) == i:
                hashes.append(f"unreadable {dataset.path} {i}")
            findings.unreadable.append(str(error))
            continue
        finally:
            progress(i + 1)
        height, width = decoded.shape[:2]
        sizes[f"{width}x{height}"] += 1
        if (width, height) != (camera.width, camera.height):
            findings.other_size.append(frame.name)
        if not has_contrast(decoded):
            findings.no_contrast.append(frame.name)
        if i in sampled:
            scale = min(1.0, SAMPLE_WIDTH_PX / width)
            small = cv2.resize(decoded, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            samples.append((frame.name, small.astype(np.uint8)))
    names = [frame.name for frame in dataset.frames]
    findings.image_sizes = dict(sizes)
    findings.same_image = _groups(names, hashes)
    findings.same_stamp = _groups(names, [(f.session, f.stamp_ns) for f in dataset.frames])
    rounded = np.round(T, SAME_POSE_DECIMALS) + 0.0  # turns -0.0 into 0.0
    findings.same_pose = _groups(names, [pose.tobytes() for pose in rounded])
    if not findings.unreadable and not findings.other_size:
        findings.labels = estimate_labels([dataset])
    return findings, hashes, samples


def _jumps(dataset: Dataset, T_N44: Array, scale_m: float) -> tuple[list[Jump], float, float]:
    """The jumps, the length of the path without the jumps in metres, and the median step in metres."""
    jumps, length_m = [], 0.0
    all_steps: list[NDArray[np.float64]] = []
    for session, indices in _sessions(dataset):
        T, frames = T_N44[indices], [dataset.frames[i] for i in indices]
        steps = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1)
        turns = np.degrees(angles_between(T[1:, :3, :3], T[:-1, :3, :3]))
        median_m, median_deg = _median_of_moves(steps), _median_of_moves(turns)
        is_jump = steps > np.maximum(JUMP_FACTOR * median_m, SMALLEST_JUMP * scale_m)
        is_jump |= turns > np.maximum(JUMP_FACTOR * median_deg, SMALLEST_JUMP_DEG)
        for i in np.flatnonzero(is_jump):
            seconds = (frames[i + 1].stamp_ns - frames[i].stamp_ns) * 1e-9
            pair = (frames[i].name, frames[i + 1].name)
            values = (float(steps[i]), float(turns[i]), seconds, median_m, median_deg)
            jumps.append(Jump(session, int(i), *pair, *values))
        length_m += float(steps[~is_jump].sum())
        all_steps.append(steps)
    merged = np.concatenate(all_steps)
    return jumps, length_m, float(np.median(merged)) if len(merged) else 0.0


def _median_of_moves(values: Array) -> float:
    """Median of the values that are not zero. With many zeros, from a long stop, every move would be a jump."""
    moved = values[values > 1e-6]
    return float(np.median(moved)) if len(moved) else 0.0


def _sessions(dataset: Dataset) -> list[tuple[str, list[int]]]:
    """Name and frame indices of each session."""
    numbered = enumerate(dataset.frames)
    grouped = groupby(numbered, key=lambda pair: pair[1].session)
    return [(name, [i for i, _ in group]) for name, group in grouped]


def _tracks(dataset: Dataset) -> list[tuple[str, Array]]:
    """Name and positions ``(N, 3)`` of each session."""
    T = poses_of(dataset.frames)
    return [(name, T[indices, :3, 3]) for name, indices in _sessions(dataset)]


def _groups(names: Sequence[str], keys: Sequence[Hashable]) -> list[list[str]]:
    """Groups of two or more names with the same key."""
    names_of = defaultdict(list)
    for name, key in zip(names, keys, strict=True):
        names_of[key].append(name)
    return [group for group in names_of.values() if len(group) > 1]


def _problems(findings: SplitFindings, split: str) -> list[str]:
    """One line for each problem of a split. split: prefix of the lines, may be empty."""
    prefix = f"{split}: " if split else ""
    problems = [f"{dropped['where']}: left out: {dropped['why']}" for dropped in findings.dropped]
    problems += [
        f"jump from {j.before} to {j.after}: {j.metres:.2f} m, {j.degrees:.1f} deg in "
        f"{j.seconds:.2f} s (median of {j.session}: {j.median_m:.3g} m, {j.median_deg:.2g} deg)"
        for j in findings.jumps
    ]
    problems += [f"image cannot be read: {text}" for text in findings.unreadable]
    if findings.other_size:
        problems.append(
            f"{len(findings.other_size)} images have another size than the camera "
            f"({findings.camera}): {_first_names(findings.other_size)}"
        )
    if findings.no_contrast:
        problems.append(
            f"{len(findings.no_contrast)} images have no contrast: {_first_names(findings.no_contrast)}: a covered "
            "lens, a wrong exposure or a wrong encoding"
        )
    for groups, what in (
        (findings.same_image, "the same image"),
        (findings.same_stamp, "the same stamp"),
        (findings.same_pose, "the same pose"),
    ):
        if groups:
            count = sum(len(group) for group in groups)
            problems.append(f"{count} frames share {what} with another: {_first_names(groups[0])}")
    return [prefix + text for text in problems]


def _problems_between(
    train: Dataset,
    test: Dataset,
    same_image: list[list[str]],
    same_name: list[str],
    coverage: dict[str, Any],
) -> list[str]:
    """One line for each problem between the training and the test split."""
    problems = []
    if same_image:
        problems.append(
            f"{len(same_image)} test images are training images: {same_image[0][0]} is "
            f"{same_image[0][1]}"
        )
    if same_name and train.path == test.path:
        problems.append(f"{len(same_name)} names are in train and test: {_first_names(same_name)}")
    if train.map_frame != test.map_frame:
        problems.append(
            f"the poses of train are in the frame {train.map_frame}, those of test in {test.map_frame}"
        )
    if uncovered := coverage["uncovered"]:
        problems.append(
            f"{uncovered} of {coverage['poses']} test poses see less than half of what the nearest training pose sees: "
            f"it is {length_text(coverage['scale_m'])} or {coverage['half_view_deg']:.0f} deg away, or some of both"
        )
    return problems


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
