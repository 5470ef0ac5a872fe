"""`rgsiam tune-features`; registered with the training commands."""

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
    ImageTopic,
    InfoTopic,
    Mount,
    Rectified,
    Seed,
    TimeOffset,
    TruthTopic,
    bag_topics,
    read_offset,
)


def tune_features(
    datasets: Annotated[
        list[Path], typer.Argument(help="The datasets of `rgsiam map build`, in its order.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the tuned networks.")],
    steps: Annotated[
        int, typer.Option(min=1, help="Number of steps; one takes about a second.")
    ] = 600,
    feature_width: Annotated[
        int, typer.Option(min=64, max=2048, help="Width of the local features' image, pixels.")
    ] = 512,
    time_offset: TimeOffset = "auto",
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Tune the network of the local features on your drives, for `rgsiam map build --features`."""
    from rgsiam_ros.cli.map import Stages
    from rgsiam_ros.recordings.formats import open_dataset
    from rgsiam_ros.replay.progress import progress_bar
    from rgsiam_training.features.tune import TuneOptions
    from rgsiam_training.features.tune import tune_features as tune

    topics = bag_topics(image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount)
    opened = [open_dataset(path, "train", topics) for path in datasets]
    options = TuneOptions(feature_width, read_offset(time_offset), steps, seed)
    try:
        with progress_bar(console) as bar:
            tune(opened, out, options, Stages(bar), resume=resume)
    except KeyboardInterrupt:
        console.print(f"stopped: {out}; go on with the same command and --resume", soft_wrap=True)
        raise
    console.print(
        f"tuned: {out}; next: rgsiam map build ... --features {out}",
        soft_wrap=True,
        highlight=False,
    )
