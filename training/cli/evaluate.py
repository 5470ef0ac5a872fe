"""`rgsiam evaluate`; registered with the training commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rgsiam_ros.cli.console import console
from rgsiam_ros.cli.options import (
    BASE_FRAME,
    MOUNT,
    TRUTH_TOPIC,
    BaseFrame,
    BatchSize,
    BranchName,
    BundleOption,
    BundleTimeOffset,
    EngineName,
    ImageTopic,
    InfoTopic,
    MapData,
    Mount,
    NoImages,
    PrecisionName,
    Rectified,
    ResultsFolder,
    Split,
    TruthTopic,
    bag_topics,
    read_offset,
)


def evaluate(
    dataset: Annotated[Path, typer.Argument(help="A bag, or see docs/datasets.md.")],
    bundle: BundleOption,
    out: ResultsFolder,
    split: Split = "test",
    branch: BranchName = "auto",
    engine: EngineName = "auto",
    precision: PrecisionName = "auto",
    batch: BatchSize = 1,
    time_offset: BundleTimeOffset = "auto",
    map_data: MapData = None,
    no_images: NoImages = False,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Relocalize every image of a dataset and report errors. For bags, see also `rgsiam replay`.

    The results folder's report.html shows images of the dataset: of a street or a home. --no-images leaves them out.
    """
    from rgsiam_ros.engines.options import EngineOptions
    from rgsiam_training.evaluation.evaluate import evaluate_dataset

    evaluate_dataset(
        dataset,
        bundle,
        out,
        console,
        split=split,
        topics=bag_topics(
            image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount
        ),
        branch=branch,
        engine=EngineOptions(engine, precision, batch=batch, fallback="none"),
        time_offset=read_offset(time_offset),
        images=not no_images,
        map_data=map_data or (),
    )
