"""`rgsiam dataset`: write a folder of posed images from bags."""

from __future__ import annotations

import os
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
    TruthTopic,
    bag_topics,
)

dataset_app = typer.Typer(no_args_is_help=True, help="Write folders of posed images.")


@dataset_app.callback()
def dataset() -> None:
    """Write folders of posed images."""


@dataset_app.command("from-bag")
def from_bag(
    bags: Annotated[list[Path], typer.Argument(help="Bags of one map and one camera.")],
    out: Annotated[Path, typer.Option(help="Folder of the dataset, new or interrupted.")],
    tf: Annotated[
        str | None,
        typer.Option(
            help="Take the poses of --base-frame in this frame from /tf.", metavar="FRAME"
        ),
    ] = None,
    heading_topic: Annotated[
        str | None,
        typer.Option(
            help="Take the poses from fixes, and from the orientations (east, north, up) on this topic, an Imu."
        ),
    ] = None,
    fix_topic: Annotated[
        str | None,
        typer.Option(help="With --heading-topic: NavSatFix topic; default: the only one."),
    ] = None,
    spacing: Annotated[
        float, typer.Option(min=0.0, help="Keep a frame after so many metres; 0: any.")
    ] = 0.0,
    turn: Annotated[
        float, typer.Option(min=0.0, help="Or after a turn of so many degrees; 0: any.")
    ] = 0.0,
    undistort: Annotated[
        bool, typer.Option("--undistort", help="Remove the lens distortion; writes PNG.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, max=64, help="Bags that are read at once; 0: one for each core.")
    ] = 0,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Write the posed images of bags as files. Every command reads the folder as a dataset."""
    from rgsiam_ros.recordings.folder_writer import FolderOptions, write_folder
    from rgsiam_ros.recordings.pose_sources import FixTopics
    from rgsiam_ros.replay.progress import progress_bar

    if tf is not None and heading_topic is not None:
        raise typer.BadParameter("give --tf or --heading-topic, not both")
    if fix_topic is not None and heading_topic is None:
        raise typer.BadParameter("--fix-topic needs --heading-topic")
    options = FolderOptions(
        bag_topics(image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount),
        tf,
        None if heading_topic is None else FixTopics(heading_topic, fix_topic),
        spacing,
        turn,
        undistort,
    )
    with progress_bar(console) as bar:
        task = bar.add_task("images", total=None)
        sessions = write_folder(
            bags,
            out,
            options,
            workers or os.cpu_count() or 1,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    for session in sessions:
        unposed = sum(dropped.frames for dropped in session.dropped)
        console.print(
            f"{session.name}: {session.frames} images; left out: {session.left_out} near another one, {unposed} "
            "without a pose or repeated",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    console.print(f"written: {out}", soft_wrap=True, highlight=False, markup=False)
