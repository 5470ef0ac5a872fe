"""`rgsiam look-alikes`; registered with the training commands."""

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
    BundleOption,
    ImageTopic,
    InfoTopic,
    Mount,
    Rectified,
    Split,
    TruthTopic,
    bag_topics,
)


def look_alikes(
    dataset: Annotated[Path, typer.Argument(help="A bag, or see docs/datasets.md.")],
    bundle: BundleOption,
    place: Annotated[
        list[str], typer.Option(help="x,y in the map frame, metres. Give two or more.")
    ],
    radius: Annotated[float, typer.Option(help="Radius of a place, metres.")] = 20.0,
    split: Split = "test",
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Measure how well a bundle distinguishes places that look alike."""
    from rgsiam_ros.recordings.formats import open_split
    from rgsiam_training.evaluation.look_alikes import measure_look_alikes

    try:
        places = [(float(x), float(y)) for x, y in (text.split(",") for text in place)]
    except ValueError as error:
        raise typer.BadParameter(f"--place takes x,y, not {' '.join(place)}") from error
    topics = bag_topics(image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount)
    figures = measure_look_alikes(open_split(dataset, split, topics), bundle, places, radius)
    console.print(
        f"{figures['images']} images; AUROC of the metric features, {figures['near_pairs']} pairs at the same "
        f"place against {figures['far_pairs']} pairs at different places: {figures['auroc']:.3f}"
    )
    console.print(
        f"median error {figures['median_m']:.2f} m, wrong: {figures['wrong']:.1%} of the images"
    )
