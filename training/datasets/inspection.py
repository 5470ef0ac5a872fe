"""Look at a dataset before training on it: what is there, what is odd, what test images can expect."""

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

from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array, angles_between
from rgsiam_ros.recordings import Dataset
from rgsiam_ros.recordings.base import poses_of

JUMP_FACTOR = 10.0
SMALLEST_JUMP_M, SMALLEST_JUMP_DEG = 0.1, 10.0
"""A step is a jump if it is this much longer than the session's median, and longer than that."""
SAME_POSE_DECIMALS = 6
SAMPLE_IMAGES = 6
SAMPLE_WIDTH_PX = 320
SAME_WAY_DEG = 60.0
"""Optical axes within this look the same way."""


@dataclass(frozen=True)
class Jump:
    """A step between neighbouring frames that is out of proportion."""

    session: str
    index: int
    """Of the frame before it, in its session."""
    before: str
    after: str
    metres: float
    degrees: float
    seconds: float
    median_m: float
    median_deg: float


@dataclass
class SplitFindings:
    """What was found in the frames of one split."""

    path: str
    frames: int
    camera: str
    map_frame: str
    sessions: dict[str, int]
    lowest_m: list[float]
    highest_m: list[float]
    track_m: float
    """Length of all sessions, without jumps."""
    step_m: float
    """Median distance of neighbours."""
    image_sizes: dict[str, int] = field(default_factory=dict)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    jumps: list[Jump] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    other_size: list[str] = field(default_factory=list)
    same_image: list[list[str]] = field(default_factory=list)
    same_stamp: list[list[str]] = field(default_factory=list)
    same_pose: list[list[str]] = field(default_factory=list)


@dataclass
class Inspection:
    """The numbers, and what the picture is drawn from."""

    train: SplitFindings
    test: SplitFindings | None
    same_image: list[list[str]]
    """Test frame and training frame with the same content."""
    same_name: list[str]
    coverage: dict[str, Any] | None
    problems: list[str]
    tracks: dict[str, list[tuple[str, Array]]] = field(repr=False)
    """Session name and positions ``(N, 3)`` by side."""
    samples: dict[str, list[tuple[str, ImageBGR]]] = field(repr=False)

    def numbers(self) -> dict[str, Any]:
        """For ``inspection.json``."""
        test = None if self.test is None else asdict(self.test)
        return {
            "look_at_these": self.problems,
            "train": asdict(self.train),
            "test": test,
            "same_image_in_train_and_test": self.same_image,
            "same_name_in_train_and_test": self.same_name,
            "coverage": self.coverage,
        }


ReadProgress = Callable[[int, int], None]


def inspect_datasets(
    train: Dataset, test: Dataset | None = None, progress: ReadProgress = lambda done, total: None
) -> Inspection:
    """Read every image and label of a dataset, and of the one to test with.

    progress: is told images read and images in all. Raises what reading a bag raises; an image that
    cannot be decoded is a finding.
    """
    total = len(train.frames) + (len(test.frames) if test is not None else 0)
    found, hashes, samples = _read_side(train, lambda done: progress(done, total))
    sides, pictures = {"train": train}, {"train": samples}
    test_found, same_image, same_name, coverage = None, [], [], None
    problems = _problems(found, "train" if test is not None else "")
    if test is not None:
        read = len(train.frames)
        test_found, test_hashes, pictures["test"] = _read_side(
            test, lambda done: progress(read + done, total)
        )
        sides["test"] = test
        name_of = dict(zip(hashes, (f.name for f in train.frames), strict=True))
        pairs = zip(test.frames, test_hashes, strict=True)
        same_image = [[frame.name, name_of[h]] for frame, h in pairs if h in name_of]
        same_name = sorted({f.name for f in train.frames} & {f.name for f in test.frames})
        coverage = cover(poses_of(train.frames), poses_of(test.frames))
        problems += _problems(test_found, "test")
        problems += _problems_of_both(train, test, same_image, same_name, coverage)
    tracks = {side: _tracks(dataset) for side, dataset in sides.items()}
    return Inspection(
        found, test_found, same_image, same_name, coverage, problems, tracks, pictures
    )


def cover(T_train_N44: Array, T_test_M44: Array) -> dict[str, Any]:
    """How far each test pose is from the nearest training pose that looks the same way.

    Nearest in position, among those whose optical axes are within 60 degrees; the degrees are those to
    that pose. Returns median, p95 and max of metres and degrees, and the number of test poses for which
    no training pose looks the same way.
    """
    metres, degrees = [], []
    for T in T_test_M44:
        same_way = T_train_N44[:, :3, 2] @ T[:3, 2] > np.cos(np.radians(SAME_WAY_DEG))
        if not same_way.any():
            continue
        candidates = T_train_N44[same_way]
        apart = np.linalg.norm(candidates[:, :3, 3] - T[:3, 3], axis=1)
        nearest = int(apart.argmin())
        metres.append(float(apart[nearest]))
        degrees.append(np.degrees(angles_between(candidates[nearest, :3, :3], T[:3, :3])))
    result: dict[str, Any] = {"poses": len(T_test_M44), "none_looks_that_way": 0}
    result["none_looks_that_way"] = len(T_test_M44) - len(metres)
    for unit, values in (("m", metres), ("deg", degrees)):
        for name, share in (("median", 50), ("p95", 95), ("max", 100)):
            result[f"{name}_{unit}"] = float(np.percentile(values, share)) if values else None
    return result


def _read_side(
    dataset: Dataset, progress: Callable[[int], None]
) -> tuple[SplitFindings, list[str], list[tuple[str, ImageBGR]]]:
    """Findings, a hash of each image, and some pictures."""
    T = poses_of(dataset.frames)
    jumps, track_m, step_m = _jumps(dataset, T)
    camera = dataset.camera
    side = SplitFindings(
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
    shown = set(np.linspace(0, len(dataset.frames) - 1, SAMPLE_IMAGES).round().astype(int).tolist())
    hashes, samples = [], []
    sizes: Counter[str] = Counter()
    for i, (frame, image) in enumerate(zip(dataset.frames, dataset.read_images(), strict=True)):
        try:
            hashes.append(hashlib.sha256(image.content).hexdigest())
            picture = image.decode()
        except DatasetError as error:
            if len(hashes) == i:
                hashes.append(f"unreadable {dataset.path} {i}")
            side.unreadable.append(str(error))
            continue
        finally:
            progress(i + 1)
        height, width = picture.shape[:2]
        sizes[f"{width}x{height}"] += 1
        if (width, height) != (camera.width, camera.height):
            side.other_size.append(frame.name)
        if i in shown:
            scale = min(1.0, SAMPLE_WIDTH_PX / width)
            small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            samples.append((frame.name, small.astype(np.uint8)))
    names = [frame.name for frame in dataset.frames]
    side.image_sizes = dict(sizes)
    side.same_image = _groups(names, hashes)
    side.same_stamp = _groups(names, [(f.session, f.stamp_ns) for f in dataset.frames])
    rounded = np.round(T, SAME_POSE_DECIMALS) + 0.0  # -0.0 is 0.0
    side.same_pose = _groups(names, [pose.tobytes() for pose in rounded])
    return side, hashes, samples


def _jumps(dataset: Dataset, T_N44: Array) -> tuple[list[Jump], float, float]:
    """Jumps, the length of the track without them, and its median step."""
    jumps, length_m = [], 0.0
    all_steps: list[NDArray[np.float64]] = []
    for session, indices in _sessions(dataset):
        T, frames = T_N44[indices], [dataset.frames[i] for i in indices]
        steps = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1)
        turns = np.degrees(angles_between(T[1:, :3, :3], T[:-1, :3, :3]))
        median_m, median_deg = _median_of_moves(steps), _median_of_moves(turns)
        far = steps > np.maximum(JUMP_FACTOR * median_m, SMALLEST_JUMP_M)
        far |= turns > np.maximum(JUMP_FACTOR * median_deg, SMALLEST_JUMP_DEG)
        for i in np.flatnonzero(far):
            seconds = (frames[i + 1].stamp_ns - frames[i].stamp_ns) * 1e-9
            pair = (frames[i].name, frames[i + 1].name)
            values = (float(steps[i]), float(turns[i]), seconds, median_m, median_deg)
            jumps.append(Jump(session, int(i), *pair, *values))
        length_m += float(steps[~far].sum())
        all_steps.append(steps)
    merged = np.concatenate(all_steps)
    return jumps, length_m, float(np.median(merged)) if len(merged) else 0.0


def _median_of_moves(values: Array) -> float:
    """Of those that are not zero: a vehicle that waits must not make every move a jump."""
    moved = values[values > 1e-6]
    return float(np.median(moved)) if len(moved) else 0.0


def _sessions(dataset: Dataset) -> list[tuple[str, list[int]]]:
    numbered = enumerate(dataset.frames)
    grouped = groupby(numbered, key=lambda pair: pair[1].session)
    return [(name, [i for i, _ in group]) for name, group in grouped]


def _tracks(dataset: Dataset) -> list[tuple[str, Array]]:
    T = poses_of(dataset.frames)
    return [(name, T[indices, :3, 3]) for name, indices in _sessions(dataset)]


def _groups(names: Sequence[str], keys: Sequence[Hashable]) -> list[list[str]]:
    """Names that share a key, where more than one does."""
    found = defaultdict(list)
    for name, key in zip(names, keys, strict=True):
        found[key].append(name)
    return [group for group in found.values() if len(group) > 1]


def _problems(side: SplitFindings, name: str) -> list[str]:
    prefix = f"{name}: " if name else ""
    problems = [f"{dropped['where']}: left out: {dropped['why']}" for dropped in side.dropped]
    problems += [
        f"jump from {j.before} to {j.after}: {j.metres:.2f} m, {j.degrees:.1f} deg in "
        f"{j.seconds:.2f} s (median of {j.session}: {j.median_m:.3g} m, {j.median_deg:.2g} deg)"
        for j in side.jumps
    ]
    problems += [f"image cannot be read: {text}" for text in side.unreadable]
    if side.other_size:
        problems.append(
            f"{len(side.other_size)} images have another size than the camera "
            f"({side.camera}): {_some(side.other_size)}"
        )
    for groups, what in (
        (side.same_image, "the same image"),
        (side.same_stamp, "the same stamp"),
        (side.same_pose, "the same pose"),
    ):
        if groups:
            count = sum(len(group) for group in groups)
            problems.append(f"{count} frames share {what} with another: {_some(groups[0])}")
    return [prefix + text for text in problems]


def _problems_of_both(
    train: Dataset,
    test: Dataset,
    same_image: list[list[str]],
    same_name: list[str],
    coverage: dict[str, Any],
) -> list[str]:
    problems = []
    if same_image:
        problems.append(
            f"{len(same_image)} test images are training images: {same_image[0][0]} is "
            f"{same_image[0][1]}"
        )
    if same_name and train.path == test.path:
        problems.append(f"{len(same_name)} names are in train and test: {_some(same_name)}")
    if train.map_frame != test.map_frame:
        problems.append(f"train is in the frame {train.map_frame}, test in {test.map_frame}")
    if alone := coverage["none_looks_that_way"]:
        problems.append(
            f"{alone} test poses look where no training pose does (within {SAME_WAY_DEG:.0f} deg)"
        )
    return problems


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
