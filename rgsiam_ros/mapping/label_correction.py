"""Move labels and scale the focal length as the user says, or as the images of the mapping session say."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Literal

from rgsiam_ros.bundle.parts import LabelCorrection
from rgsiam_ros.mapping.label_estimate import LabelEstimate, estimate_labels
from rgsiam_ros.mapping.progress import Progress
from rgsiam_ros.recordings.base import Dataset
from rgsiam_ros.recordings.time_offset import with_time_offset

logger = logging.getLogger(__name__)

OffsetOption = float | Literal["auto"]
"""Seconds, or auto: as estimated, where the interval excludes zero."""


def correct_labels(
    datasets: Sequence[Dataset],
    time_offset: OffsetOption,
    refine_camera: bool,
    progress: Progress | None = None,
) -> tuple[list[Dataset], LabelCorrection]:
    """The mapping sessions with moved labels and the refined camera, and what was done. Logs what was found.

    Raises DatasetError if an image cannot be read, or if no frame is left.
    """
    correction = LabelCorrection()
    if isinstance(time_offset, float) and time_offset != 0.0:
        correction = LabelCorrection(time_offset_s=time_offset, time_offset_from="given")
    if time_offset == "auto" or refine_camera:
        found = estimate_labels(datasets, progress)
        for line in found.lines():
            logger.info(line)
        correction = _applied(found, correction, time_offset == "auto", refine_camera)
    return corrected(datasets, correction), correction


def corrected(datasets: Sequence[Dataset], correction: LabelCorrection) -> list[Dataset]:
    """The datasets with the correction applied. Raises DatasetError if no frame is left."""
    return [
        with_time_offset(
            _with_focal_scale(dataset, correction.focal_scale), correction.time_offset_s
        )
        for dataset in datasets
    ]


def _applied(
    found: LabelEstimate, given: LabelCorrection, move_labels: bool, refine_camera: bool
) -> LabelCorrection:
    """The correction by what was found, as far as an interval excludes that nothing is wrong."""
    changes: dict[str, object] = {}
    offset, scale = found.time_offset_s, found.focal_scale
    if move_labels and offset is not None:
        changes["time_offset_interval_s"] = (offset.low, offset.high)
        if offset.excludes(0.0):
            changes |= {"time_offset_s": offset.value, "time_offset_from": "estimated"}
            logger.warning("labels are moved by %.0f ms", 1e3 * offset.value)
    if refine_camera and scale is not None:
        changes["focal_scale_interval"] = (scale.low, scale.high)
        if scale.excludes(1.0):
            changes["focal_scale"] = scale.value
            logger.warning("the focal length is multiplied by %.3f", scale.value)
    return given.model_copy(update=changes)


def _with_focal_scale(dataset: Dataset, scale: float) -> Dataset:
    if scale == 1.0:
        return dataset
    refined = copy.copy(dataset)
    refined.camera = dataset.camera.with_focal_scale(scale)
    return refined
