"""Localize a drive in a map, image after image, as the vehicle would: the last trusted pose helps the next image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.features.keypoints import Keypoints
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.mapping.extraction import Extractor
from rgsiam_ros.mapping.labels import HELD_OUT, Labels
from rgsiam_ros.mapping.progress import Progress
from rgsiam_ros.mapping.stretches import describe_stretches
from rgsiam_ros.recordings.base import Dataset, require_shape
from rgsiam_ros.recordings.subset import Subset
from rgsiam_ros.uncertainty.geometric_trust import GeometricTrust

SAMPLES = 24
"""Number of images that are localized first, each alone."""
LEAST_OF_SAMPLE = 3
"""If fewer of them get a pose, the drive is refused before the long work."""
LEAST_LOCALIZED = 0.3
"""A drive of which a smaller share gets a pose is not of this map."""


@dataclass(frozen=True)
class Localizer:
    """A map, and when one of its poses may be used."""

    branch: GeometricBranch
    """Over the map, in the points' frame."""
    trust: GeometricTrust
    K: Array
    """Intrinsic matrix of the local features' image."""
    keypoints: int
    """Most keypoints of a live image."""

    def pose(self, keypoints: Keypoints, near: Sequence[Array] = ()) -> Array | None:
        """The pose ``(4, 4)`` in the points' frame, metres; None if there is none that may be used.

        keypoints: of the image, the strongest first; near: expected poses.
        """
        live = keypoints.strongest(self.keypoints)
        live = replace(live, descriptor_ND=live.descriptor_ND.astype(np.float32))
        found = self.branch.localize(live, self.K, near)
        if found is None or self.trust.why_not(found.quality):
            return None
        return found.T_map_camera


def check_sample(
    dataset: Dataset, extractor: Extractor, localizer: Localizer, labels: Labels
) -> None:
    """Raise DatasetError if hardly any image of a small, even sample is localized."""
    count = len(labels.frames)
    chosen = np.unique(np.linspace(0, count - 1, SAMPLES).round().astype(np.int64))
    lost = np.zeros(count, bool)
    images = Subset(dataset, chosen).read_images()
    for index, image in zip(chosen.tolist(), images, strict=True):
        decoded = require_shape(image.decode(), extractor.camera, labels.frames[index].name)
        found = extractor.keypoints(np.ascontiguousarray(extractor.fit(decoded)))
        lost[index] = localizer.pose(found) is None
    if len(chosen) - lost.sum() < min(LEAST_OF_SAMPLE, len(chosen)):
        refuse(dataset, lost, len(chosen), labels, gap=count // len(chosen))


def localize_in_order(
    keypoints: Sequence[Keypoints], labels: Labels, localizer: Localizer, progress: Progress
) -> tuple[Array, NDArray[np.bool_]]:
    """Poses ``(N, 4, 4)`` in the points' frame, NaN without one, and which images have one."""
    advance = progress.start("localization", len(keypoints))
    T_N44 = np.full((len(keypoints), 4, 4), np.nan)
    last: list[Array] = []
    for index, found in enumerate(keypoints):
        if index and labels.session_N[index] != labels.session_N[index - 1]:
            last = []
        T = localizer.pose(found, last)
        last = [] if T is None else [T]
        if T is not None:
            T_N44[index] = T
        advance(1)
    return T_N44, np.isfinite(T_N44).all(axis=(1, 2))


def check_share(dataset: Dataset, trusted_N: NDArray[np.bool_], labels: Labels) -> None:
    """Raise DatasetError if too few images are localized."""
    if trusted_N.mean() < LEAST_LOCALIZED:
        refuse(dataset, ~trusted_N, len(trusted_N), labels)


def refuse(
    dataset: Dataset, lost_N: NDArray[np.bool_], count: int, labels: Labels, gap: int = HELD_OUT
) -> None:
    """Raise DatasetError. lost_N: images without a pose, of `count` images; gap: see `describe_stretches`."""
    found = count - int(lost_N.sum())
    where = describe_stretches(lost_N, labels.frames, labels.session_N, gap)
    raise DatasetError(
        f"{dataset.path} does not fit the map: {found} of {count} images ({found / count:.0%}) are localized, "
        f"{LEAST_LOCALIZED:.0%} are needed; not localized: {where}; add a drive of the mapped route, or map this one alone with "
        "`rgsiam map build`"
    )
