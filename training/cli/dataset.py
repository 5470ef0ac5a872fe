"""`rgsiam inspect` and `rgsiam download`; registered with the training commands."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)

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


def inspect(
    dataset: Annotated[Path, typer.Argument(help="Dataset: a bag, or see docs/datasets.md.")],
    test: Annotated[
        Path | None, typer.Option(help="Another session to test with. Default: its own test split.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder for inspection.json and inspection.png.")
    ] = None,
    time_offset: Annotated[
        float, typer.Option(help="Seconds; the labels are moved by it before they are inspected.")
    ] = 0.0,
    no_images: Annotated[
        bool,
        typer.Option(
            "--no-images",
            help="Leave sample images out of inspection.png: they show a street or a home.",
        ),
    ] = False,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Count, check and draw a dataset. Problems are listed under "look at these"."""
    import json

    from rgsiam_ros.recordings.formats import open_dataset, open_test_side, own_test_split
    from rgsiam_ros.recordings.time_offset import with_time_offset
    from rgsiam_ros.replay.progress import progress_bar
    from rgsiam_ros.report.results import claim_folder
    from rgsiam_training.datasets.inspection import inspect_datasets
    from rgsiam_training.datasets.inspection_plot import draw_inspection
    from rgsiam_training.datasets.inspection_table import print_inspection

    topics = bag_topics(image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount)
    if out is not None:
        claim_folder(out)
    opened = open_dataset(dataset, "train", topics)
    opened = with_time_offset(opened, time_offset)
    other = own_test_split(dataset, topics) if test is None else open_test_side(test, topics)
    other = None if other is None else with_time_offset(other, time_offset)
    with progress_bar(console, transient=True) as bar:
        task = bar.add_task("reading images", total=None)
        inspection = inspect_datasets(
            opened, other, lambda done, total: bar.update(task, completed=done, total=total)
        )
    print_inspection(inspection, console)
    if out is not None:
        (out / "inspection.json").write_text(json.dumps(inspection.numbers(), indent=2) + "\n")
        draw_inspection(inspection, out / "inspection.png", images=not no_images)
        console.print(f"written: {out}/inspection.json, inspection.png", soft_wrap=True)


def download(
    benchmark: Annotated[str, typer.Argument(help="7scenes or cambridge.")],
    scenes: Annotated[
        list[str], typer.Argument(help="Scenes, for example redkitchen or KingsCollege.")
    ],
    to: Annotated[Path, typer.Option(help="Parent folder of the scenes' folders.")],
    keep_archive: Annotated[bool, typer.Option(help="Keep the zip after unpacking.")] = False,
    accept_changed: Annotated[
        bool, typer.Option(help="Accept a file whose SHA-256 has changed.")
    ] = False,
) -> None:
    """Download a public benchmark. Read its terms of use first. Interrupted downloads continue."""
    from rgsiam_training.datasets.download import download_scene

    for scene in scenes:
        columns = TextColumn("{task.description}"), BarColumn()
        with Progress(
            *columns, DownloadColumn(), TransferSpeedColumn(), console=console, transient=True
        ) as bar:
            task = bar.add_task(scene, total=None)

            def show(done: int, total: int, bar: Progress = bar, task: int = task) -> None:
                bar.update(task, completed=done, total=total)  # type: ignore[arg-type]

            folder = download_scene(
                benchmark,
                scene,
                to,
                progress=show,
                keep_archive=keep_archive,
                accept_changed=accept_changed,
            )
        console.print(
            f"next: [bold]rgsiam inspect {escape(quote(str(folder)))}[/bold]", soft_wrap=True
        )
