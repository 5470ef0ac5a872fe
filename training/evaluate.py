"""Run a bundle over a dataset, exactly as the vehicle would, and report errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from rgsiam_ros.bags import BagTopics
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.relocalizer import Relocalizer
from rgsiam_ros.replay.records import FrameRecord, ReplayRecord
from rgsiam_ros.replay.results import claim_folder, print_table, write_results
from rgsiam_training.datasets import open_dataset


def evaluate_dataset(
    path: Path,
    bundle: Path,
    out: Path,
    *,
    split: str,
    console: Console,
    topics: BagTopics | None = None,
    branch: str = "auto",
) -> dict[str, Any]:
    """Relocalize every frame of a dataset's split; write a results folder; return the metrics.

    The reported pose is the camera's, as the datasets label it.
    """
    relocalizer = Relocalizer.from_bundle(bundle, branch=branch)
    dataset = open_dataset(path, split, topics)
    claim_folder(out)
    relocalizer.use_camera(dataset.camera)
    frames = []
    for frame, image in zip(dataset.frames, dataset.read_images(), strict=True):
        try:
            estimate = relocalizer.estimate(image.decode())
        except RgsiamError as error:
            record = FrameRecord(frame.stamp_ns, T_true=frame.T_map_camera, problem=str(error))
        else:
            record = FrameRecord(
                frame.stamp_ns,
                estimate.T_map_camera,
                estimate.covariance_66,
                frame.T_map_camera,
                estimate.timings_ms,
                branch=estimate.branch,
                disagreement=estimate.disagreement,
            )
        frames.append(record)
    config = {
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
    console.print(f"results: {out}")
    return metrics
