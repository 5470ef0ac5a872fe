"""Run a bundle over a dataset, exactly as the vehicle would, and report errors."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.localization.relocalizer import PoseEstimate, Relocalizer
from rgsiam_ros.recordings import open_dataset
from rgsiam_ros.recordings.base import Frame, describe_dropped
from rgsiam_ros.recordings.ground_truth import truth_turn
from rgsiam_ros.recordings.rosbag import BagTopics
from rgsiam_ros.replay.offline import decoded, record_of
from rgsiam_ros.replay.records import FrameRecord, ReplayRecord
from rgsiam_ros.replay.results import claim_folder, print_table, write_results

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
) -> dict[str, Any]:
    """Relocalize every frame of a dataset's split, write a results folder, print a table.

    Returns the metrics. The reported pose is the camera's, as the datasets label it. The labels are rotated
    where the bundle was (see `rgsiam_ros.recordings.ground_truth`). engine: default: no fallback.
    """
    engine = engine or EngineOptions(fallback="none")
    relocalizer = Relocalizer.from_bundle(bundle, engine, branch=branch)
    dataset = open_dataset(path, split, topics)
    if left_out := describe_dropped(dataset):
        logger.warning(left_out)
    claim_folder(out)
    relocalizer.use_camera(dataset.camera)
    turn = truth_turn(relocalizer.manifest, dataset.map_frame, path)
    frames = []
    pairs = zip(dataset.frames, dataset.read_images(), strict=True)
    while group := list(islice(pairs, engine.batch)):
        estimates = relocalizer.estimate_many([decoded(image) for _, image in group])
        for (frame, _), estimate in zip(group, estimates, strict=True):
            true = replace(frame, T_map_camera=turn @ frame.T_map_camera)
            frames.append(_record(true, estimate))
    config: dict[str, Any] = {
        "title": f"{path.name} ({split}), bundle {relocalizer.manifest.name}",
        "dataset": str(path),
        "split": split,
        "bundle": str(bundle),
        "branch_in_use": relocalizer.branch,
        "bundle_created": relocalizer.manifest.created,
        "engine": relocalizer.describe_engine().__dict__,
    }
    result = ReplayRecord(frames, "camera", relocalizer.manifest.map_frame)
    metrics = write_results(result, config, out)
    print_table(metrics, console, config["title"])
    console.print(f"results: {out}", soft_wrap=True)
    return metrics


def _record(frame: Frame, answer: PoseEstimate | RgsiamError) -> FrameRecord:
    if isinstance(answer, RgsiamError):
        return FrameRecord(frame.stamp_ns, T_true=frame.T_map_camera, problem=str(answer))
    T, covariance = answer.T_map_camera, answer.covariance_66
    return record_of(frame.stamp_ns, answer, T, covariance, answer.timings_ms, frame.T_map_camera)
