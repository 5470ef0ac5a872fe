"""Relocalize a dataset with a bundle, with the same code as on the vehicle, and report the errors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.base import Frame, describe_dropped, fingerprint
from rgsiam_ros.recordings.formats import open_split
from rgsiam_ros.recordings.ground_truth import truth_turn
from rgsiam_ros.recordings.seen_data import built_from, describe_seen
from rgsiam_ros.recordings.time_offset import moved_labels
from rgsiam_ros.recordings.topics import BagTopics
from rgsiam_ros.replay.offline import decoded, record_of
from rgsiam_ros.report.chosen_frames import ChosenFrames
from rgsiam_ros.report.gallery import make_gallery
from rgsiam_ros.report.map_images import open_map_data
from rgsiam_ros.report.metrics import metrics_with_offset, replay_metrics
from rgsiam_ros.report.provenance import provenance_of
from rgsiam_ros.report.records import FrameRecord, ReplayRecord
from rgsiam_ros.report.results import claim_folder, print_in_red, print_table, write_results

logger = logging.getLogger(__name__)


def evaluate_dataset(
    path: Path,
    bundle: Path,
    out: Path,
    console: Console,
    *,
    split: str,
    topics: BagTopics | None = None,
    branch: str = "auto",
    engine: EngineOptions | None = None,
    time_offset: float | Literal["auto"] = "auto",
    images: bool = True,
    map_data: Sequence[Path] = (),
) -> dict[str, Any]:
    """Relocalize every frame of a dataset's split, write a results folder and print a table.

    path: folder of the dataset; out: a new folder; engine: None takes the best engine and allows no fallback.
    time_offset: an image shows where the camera was this many seconds before its stamp; auto: as the bundle
    says. Errors are reported as labelled, and if it is not 0 once more with the true poses moved.
    images, map_data: see `rgsiam_ros.replay.options.ReplayOptions`.
    The reported pose is that of the camera's optical frame, as in the true poses of the dataset. If the
    bundle's map was turned by a georeference, the true poses are turned with it, see
    `rgsiam_ros.recordings.ground_truth`. Returns the metrics. Raises DatasetError, BundleError, EngineError,
    and CameraError if the camera does not fit the bundle.
    """
    engine = engine or EngineOptions(fallback="none")
    relocalizer = Relocalizer.from_bundle(bundle, engine, branch=branch)
    dataset = open_split(path, split, topics)
    mapped = open_map_data(map_data, topics, relocalizer.manifest)
    offset_s = relocalizer.manifest.labels.offset_or(time_offset)
    if left_out := describe_dropped(dataset):
        logger.warning(left_out)
    claim_folder(out)
    relocalizer.use_camera(dataset.camera)
    turn = truth_turn(relocalizer.manifest, dataset.map_frame, path)
    chosen = ChosenFrames(relocalizer, with_truth=True, images=images)
    frames: list[FrameRecord] = []
    pairs = zip(dataset.frames, dataset.read_images(), strict=True)
    while group := list(islice(pairs, engine.batch)):
        group_images = [decoded(image, levels=relocalizer.levels) for _, image in group]
        estimates = relocalizer.estimate_many(group_images)
        for (frame, _), image, estimate in zip(group, group_images, estimates, strict=True):
            T_true = turn @ frame.T_map_camera
            record_of_frame = _record(replace(frame, T_map_camera=T_true), estimate)
            if not isinstance(estimate, RgsiamError) and not isinstance(image, RgsiamError):
                chosen.see(len(frames), record_of_frame, estimate, image, T_true)
            frames.append(record_of_frame)
    data = fingerprint([dataset])
    config: dict[str, Any] = {
        "title": f"{path.name} ({split}), bundle {relocalizer.manifest.name}",
        "dataset": str(path),
        "split": split,
        "time_offset_s": offset_s,
        "bundle": str(bundle),
        "branch_in_use": relocalizer.branch,
        "bundle_created": relocalizer.manifest.created,
        "engine": relocalizer.describe_engine().__dict__,
        "provenance": provenance_of(relocalizer, path, data),
    }
    record = ReplayRecord(frames, "camera", relocalizer.manifest.map_frame)
    seen = built_from(relocalizer.manifest, data)
    limits = relocalizer.manifest.limits
    metrics = replay_metrics(record, limits) | {"seen_in_training": seen}
    metrics["bundle_doubts"] = list(relocalizer.doubts)
    if offset_s:
        moved = [
            None if frame is None else turn @ frame.T_map_camera
            for _, group in groupby(dataset.frames, key=lambda frame: frame.session)
            for frame in moved_labels(list(group), offset_s)
        ]
        metrics |= metrics_with_offset(record, moved, offset_s, limits)
    warning = describe_seen(relocalizer.manifest) if seen else ""
    write_results(record, metrics, config, make_gallery(chosen, mapped), out, warning)
    print_table(metrics, console, config["title"])
    print_in_red([*([warning] if seen else []), *relocalizer.doubts], console)
    console.print(f"report: {out / 'report.html'}\nresults: {out}", soft_wrap=True)
    return metrics


def _record(frame: Frame, estimate: PoseEstimate | RgsiamError) -> FrameRecord:
    if isinstance(estimate, RgsiamError):
        return FrameRecord(
            frame.stamp_ns, T_true=frame.T_map_camera, problem=str(estimate), name=frame.name
        )
    T, covariance = estimate.T_map_camera, estimate.covariance_66
    found = record_of(
        frame.stamp_ns, estimate, T, covariance, estimate.timings_ms, frame.T_map_camera
    )
    return replace(found, name=frame.name)
