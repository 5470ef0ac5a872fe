"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rgsiam_ros.recordings.topics import MOUNTS, BagTopics


def _one_of(value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(allowed)}")
    return value


BundlePath = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
BundleOption = Annotated[Path, typer.Option(help="Folder of the bundle.")]
ResultsFolder = Annotated[Path, typer.Option(help="New folder for the results.")]
BranchName = Annotated[
    str,
    typer.Option(help="absolute, refined (geometric), or auto: refined if the bundle has it."),
]
EngineName = Annotated[str, typer.Option(help="auto, or a name from `rgsiam engine list`.")]
PrecisionName = Annotated[str, typer.Option(help="auto, or a precision that the bundle offers.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0: the engine chooses.")]
BatchSize = Annotated[int, typer.Option(min=1, max=64, help="Number of images in one inference.")]
MapData = Annotated[
    list[Path] | None,
    typer.Option(
        help="What the bundle was built from; repeat it for several. The report then shows its images beside the "
        "live ones.",
        show_default=False,
    ),
]
NoImages = Annotated[
    bool,
    typer.Option(
        "--no-images",
        help="Leave pictures out of report.html and the Rerun recording. They show where the camera was: a street or a "
        "home.",
    ),
]
CacheFolder = Annotated[
    Path | None, typer.Option(help="Folder of built engines; default: the user's own cache.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the random numbers.")]
Split = Annotated[str, typer.Option(help="train or test, if the dataset has splits.")]
LONGEST_OFFSET_S = 10.0
OFFSET_HELP = (
    "Seconds by which images show an earlier moment than their stamps: the labels are moved."
)


def _checked_offset(text: str) -> str:
    read_offset(text)
    return text


def read_offset(text: str) -> float | Literal["auto"]:
    """A number of seconds, or auto."""
    try:
        if text == "auto" or abs(float(text)) <= LONGEST_OFFSET_S:
            return "auto" if text == "auto" else float(text)
    except ValueError:
        pass
    raise typer.BadParameter(
        f"give auto, or seconds from -{LONGEST_OFFSET_S:g} to {LONGEST_OFFSET_S:g}, not {text!r}"
    )


TimeOffset = Annotated[
    str,
    typer.Option(
        metavar="SECONDS|auto",
        callback=_checked_offset,
        help=f"{OFFSET_HELP} auto: by what the images of the mapping sessions show, if that is not 0.",
    ),
]
BundleTimeOffset = Annotated[
    str,
    typer.Option(
        metavar="SECONDS|auto",
        callback=_checked_offset,
        help=f"{OFFSET_HELP} auto: that of the bundle.",
    ),
]
RefineCamera = Annotated[
    bool,
    typer.Option(
        "--refine-camera",
        help="Estimate the focal length from the images too.",
        show_default="off",
    ),
]
ImageTopic = Annotated[
    str | None, typer.Option(help="Image topic.", show_default="the only one of the bag")
]
InfoTopic = Annotated[
    str | None,
    typer.Option(help="Camera info topic; default: camera_info in the namespace of the images."),
]
Rectified = Annotated[
    bool,
    typer.Option(
        "--rectified", help="The images are rectified: use P of camera_info, without distortion."
    ),
]
TruthTopic = Annotated[
    str,
    typer.Option(
        help="Topic of the true poses: Odometry, PoseStamped or PoseWithCovarianceStamped."
    ),
]
BaseFrame = Annotated[
    str,
    typer.Option(help="Frame of the true poses, if they name none; usually the vehicle's."),
]
Mount = Annotated[
    str,
    typer.Option(
        callback=lambda value: _one_of(value, MOUNTS),
        metavar="|".join(MOUNTS),
        help="The camera's pose on the vehicle: from the bag's /tf_static, or identity if the true poses are "
        "those of the camera (optical axes).",
    ),
]


def bag_topics(
    image: str | None, info: str | None, rectified: bool, truth: str, base_frame: str, mount: str
) -> BagTopics:
    """The topics from the options that every command that reads a bag has, in their order."""
    return BagTopics(image, info, truth, base_frame, rectified=rectified, mount=mount)


TRUTH_TOPIC = BagTopics.truth or ""
BASE_FRAME = BagTopics.base_frame
MOUNT = BagTopics.mount
