"""`rgsiam map`: build, extend and show maps for the geometric branch."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from rgsiam_ros.cli.console import console
from rgsiam_ros.cli.options import (
    BASE_FRAME,
    MOUNT,
    TRUTH_TOPIC,
    BaseFrame,
    BundlePath,
    ImageTopic,
    InfoTopic,
    Mount,
    Rectified,
    RefineCamera,
    Seed,
    TimeOffset,
    TruthTopic,
    bag_topics,
    read_offset,
)

map_app = typer.Typer(no_args_is_help=True, help="Build, extend and show maps of local features.")
NewBundle = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of a new bundle; default: the bundle is replaced."),
]


class RefinePoses(str, Enum):
    """The choices of ``--refine-poses``."""

    auto = "auto"
    on = "on"
    off = "off"


@map_app.command("build")
def map_build(
    datasets: Annotated[
        list[Path], typer.Argument(help="Bags with true poses, or datasets of any known format.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    feature_width: Annotated[
        int, typer.Option(min=64, max=2048, help="Width of the local features' image, pixels.")
    ] = 512,
    points: Annotated[
        int, typer.Option(min=50, help="Points that the map keeps for each image.")
    ] = 250,
    features: Annotated[
        Path | None,
        typer.Option(help="Folder of `rgsiam tune-features`; default: the package's network."),
    ] = None,
    time_offset: TimeOffset = "auto",
    refine_camera: RefineCamera = False,
    refine: Annotated[
        RefinePoses,
        typer.Option(
            "--refine-poses", help="Adjust poses that do not fit the images: auto, on or off."
        ),
    ] = RefinePoses.auto,
    seed: Seed = 0,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Build a bundle from posed images, without any training. The node can serve it at once."""
    from rgsiam_ros.bundle.doubts import doubts
    from rgsiam_ros.mapping.build import MapOptions, build_bundle
    from rgsiam_ros.recordings.formats import open_dataset
    from rgsiam_ros.replay.progress import progress_bar
    from rgsiam_ros.report.results import print_in_red

    topics = bag_topics(image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount)
    opened = [open_dataset(path, "train", topics) for path in datasets]
    options = MapOptions(
        feature_width=feature_width,
        points_per_image=points,
        refine_poses=refine.value,
        time_offset=read_offset(time_offset),
        refine_camera=refine_camera,
        seed=seed,
        features=features,
    )
    with progress_bar(console) as bar:
        bundle = build_bundle(opened, out, options, Stages(bar))
    size = sum(entry.size for entry in bundle.manifest.files.values())
    console.print(f"written: {out} ({size / 1e6:.1f} MB)", soft_wrap=True, highlight=False)
    console.print(bundle.describe_pictures(), soft_wrap=True, highlight=False)
    print_in_red(doubts(bundle.manifest), console)


@map_app.command("show")
def map_show(
    bundle: BundlePath,
    dataset: Annotated[
        Path | None,
        typer.Argument(help="Bag or dataset of which one frame is localized and drawn."),
    ] = None,
    frame: Annotated[
        int | None, typer.Option(min=0, help="Index of the frame; default: the middle one.")
    ] = None,
    out: Annotated[Path, typer.Option(help="File for the picture, PNG.")] = Path("results/map.png"),
    width: Annotated[
        int, typer.Option(min=400, max=8000, help="Width of the picture, pixels.")
    ] = 1800,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Draw the map of a bundle, and one localized frame with its matches."""
    from rgsiam_ros.mapping.show import show_map
    from rgsiam_ros.recordings.formats import open_dataset

    if frame is not None and dataset is None:
        raise typer.BadParameter("--frame needs a DATASET")
    topics = bag_topics(image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount)
    opened = None if dataset is None else open_dataset(dataset, "train", topics)
    show_map(bundle, out, width, opened, frame)
    console.print(f"picture: {out}", soft_wrap=True, highlight=False)


@map_app.command("add")
def map_add(
    bundle: BundlePath,
    drive: Annotated[Path, typer.Argument(help="Bag, with or without poses, or any dataset.")],
    out: NewBundle = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the session in the map; default: that of the drive's folder."),
    ] = None,
    seed: Seed = 0,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Add a drive of another day to the map of a bundle: other light, moved things."""
    from rgsiam_ros.bundle import Bundle
    from rgsiam_ros.mapping.grow import add_session
    from rgsiam_ros.mapping.map_sessions import describe_sessions, size_of
    from rgsiam_ros.recordings.unlabelled import open_drive
    from rgsiam_ros.replay.progress import progress_bar

    topics = bag_topics(image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount)
    loaded = Bundle.load(bundle)
    opened = open_drive(drive, topics)
    with progress_bar(console) as bar:
        added = add_session(loaded, opened, out, name, seed, Stages(bar))
    sizes = [size_of(each) for each in (loaded, added.bundle)]
    growth = f"{sizes[0] / 1e6:.2f} to {sizes[1] / 1e6:.2f} MB ({sizes[1] - sizes[0]:+} bytes)"
    written = f"written: {added.bundle.path} ({growth})"
    sessions = added.bundle.manifest.geometric_part.sessions
    for line in (*added.lines, *describe_sessions(sessions), written):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


@map_app.command("remove")
def map_remove(
    bundle: BundlePath,
    session: Annotated[str, typer.Argument(help="Name of the session, see `rgsiam bundle show`.")],
    out: NewBundle = None,
) -> None:
    """Take a session out of the map of a bundle again. Points that it removed come back."""
    from rgsiam_ros.bundle import Bundle
    from rgsiam_ros.mapping.map_sessions import describe_sessions, size_of
    from rgsiam_ros.mapping.shrink import remove_session

    left = remove_session(Bundle.load(bundle), session, out)
    written = f"written: {left.path} ({size_of(left) / 1e6:.2f} MB)"
    for line in (*describe_sessions(left.manifest.geometric_part.sessions), written):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


class Stages:
    """See `rgsiam_ros.mapping.progress.Progress`."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar

    def start(self, stage: str, steps: int) -> Stage:
        """Add a line for a stage."""
        return Stage(self._bar, self._bar.add_task(stage, total=steps))


class Stage:
    """The line of one stage."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def __call__(self, steps: int) -> None:
        """Advance."""
        self._bar.advance(self._task, steps)
