"""The program `rgsiam` with the replay, bundle, engine and fusion commands.

The training package adds its own commands through entry points.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.markup import escape

from rgsiam_ros.cli.build import build
from rgsiam_ros.cli.console import console, log_to_terminal
from rgsiam_ros.cli.dataset import dataset_app
from rgsiam_ros.cli.engine import engine_app
from rgsiam_ros.cli.map import Stages, map_app
from rgsiam_ros.cli.options import (
    BASE_FRAME,
    MOUNT,
    TRUTH_TOPIC,
    BaseFrame,
    BatchSize,
    BranchName,
    BundleOption,
    BundlePath,
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
    Threads,
    TruthTopic,
    bag_topics,
    read_offset,
)
from rgsiam_ros.cli.report import compare_runs
from rgsiam_ros.cli.training_extra import COMMAND_GROUP, INSTALL_HINT, missing_parts
from rgsiam_ros.errors import RgsiamError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
bundle_app = typer.Typer(no_args_is_help=True, help="Show, verify and change bundles.")
app.command()(build)
app.add_typer(bundle_app, name="bundle")
app.command("report")(compare_runs)
app.add_typer(engine_app, name="engine")
app.add_typer(map_app, name="map")
app.add_typer(dataset_app, name="dataset")

PROGRAM = (sys.executable, "-m", "rgsiam_ros.cli.main")
"""How a command starts another one in a process of its own."""
TRAINING_COMMANDS = (
    *("train", "compare", "export", "calibrate", "evaluate", "look-alikes"),
    *("inspect", "download", "town", "tune-features"),
)
"""The commands that the training extra adds. Without the extra, they say how to install it."""


@app.callback()
def program() -> None:
    """Camera relocalization for ROS 2: train, export, replay."""


@app.command("version")
def print_version() -> None:
    """Print the version."""
    console.print(version("rgsiam_ros"))


@app.command()
def replay(
    bag: Annotated[Path, typer.Argument(help="Folder of a rosbag2 recording.")],
    bundle: BundleOption,
    out: ResultsFolder = Path("results/replay"),
    ros: Annotated[
        bool, typer.Option("--ros", help="Replay through the real node too, over DDS.")
    ] = False,
    with_filter: Annotated[
        bool,
        typer.Option("--with-filter", help="With --ros: run robot_localization's filters too."),
    ] = False,
    fusion_config: Annotated[
        Path | None,
        typer.Option(help="With --with-filter: a folder from `rgsiam fusion-config`."),
    ] = None,
    rerun: Annotated[Path | None, typer.Option(help="Write a Rerun recording (.rrd) too.")] = None,
    rate: Annotated[
        float, typer.Option(min=0.05, max=20.0, help="With --ros: playback speed.")
    ] = 1.0,
    engine: EngineName = "auto",
    precision: PrecisionName = "auto",
    branch: BranchName = "auto",
    threads: Threads = 0,
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
    """Relocalize a recorded drive and write a results folder. With --ros, replay it through the node too.

    The folder's report.html shows images of the drive: of a street or a home. --no-images leaves them out.
    """
    from rgsiam_ros.engines.options import EngineOptions
    from rgsiam_ros.fusion.robot_localization import read_setup
    from rgsiam_ros.replay.options import ReplayOptions
    from rgsiam_ros.replay.run import run_replay

    if with_filter and not ros:
        raise typer.BadParameter("--with-filter needs --ros")
    if fusion_config is not None and not with_filter:
        raise typer.BadParameter("--fusion-config needs --with-filter")
    options = ReplayOptions(
        engine=EngineOptions(engine, precision, threads, batch, fallback="none"),
        branch=branch,
        ros=ros,
        with_filter=with_filter,
        fusion=None if fusion_config is None else read_setup(fusion_config),
        rate=rate,
        topics=bag_topics(
            image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount
        ),
        time_offset=read_offset(time_offset),
        rerun=rerun,
        images=not no_images,
        map_data=tuple(map_data or ()),
    )
    run_replay(bag, bundle, out, options, console)


@app.command()
def georeference(
    bag: Annotated[Path, typer.Argument(help="Folder of a rosbag2 recording with GPS fixes.")],
    bundle: BundleOption,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    picture: Annotated[Path, typer.Option(help="File for a picture of the residuals.")] = Path(
        "results/georeference.png"
    ),
    poses: Annotated[
        str,
        typer.Option(help="bundle: the bundle relocalizes the bag; truth: the bag's true poses."),
    ] = "bundle",
    fix_topic: Annotated[
        str | None, typer.Option(help="NavSatFix topic; default: the only one of the bag.")
    ] = None,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Align the map with GPS fixes, and write a bundle with a datum and map axes east, north, up."""
    from rgsiam_ros.replay.georeference import GeoreferenceOptions, run_georeference

    topics = bag_topics(image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount)
    options = GeoreferenceOptions(poses, topics, fix_topic)
    run_georeference(bag, bundle, out, picture, options, console)


@app.command("fusion-config")
def fusion_config(
    bundle: BundlePath,
    out: Annotated[Path, typer.Option(help="Folder to write the parameter files to.")],
    wheel_topic: Annotated[str, typer.Option(help="nav_msgs/Odometry.")] = "/wheel/odometry",
    imu_topic: Annotated[str, typer.Option(help="sensor_msgs/Imu.")] = "/imu/data",
    gps_topic: Annotated[str, typer.Option(help="sensor_msgs/NavSatFix.")] = "/gps/fix",
    pose_topic: Annotated[str, typer.Option(help="Pose of the node, with covariance.")] = (
        "/relocalize/pose_with_covariance"
    ),
    map_frame: Annotated[str | None, typer.Option(help="Map frame; default: the bundle's.")] = None,
    odom_frame: Annotated[str, typer.Option(help="Odometry frame.")] = "odom",
    base_frame: Annotated[str, typer.Option(help="Vehicle frame.")] = "base_link",
    gps_frame: Annotated[str, typer.Option(help="Antenna frame.")] = "gps_link",
    delay: Annotated[float, typer.Option(min=0.0, help="Seconds from image to pose.")] = 0.1,
    sensor_rate: Annotated[
        float,
        typer.Option(
            min=1.0, max=1000.0, help="Hz of wheel odometry and IMU, the slower of the two."
        ),
    ] = 10.0,
    three_d: Annotated[
        bool, typer.Option("--three-d", help="Fuse height, roll, pitch too.")
    ] = False,
    without: Annotated[
        list[str] | None, typer.Option(help="Source to leave out: gps or visual.")
    ] = None,
) -> None:
    """Write robot_localization's parameters for this bundle and your topics and frames."""
    from rgsiam_ros.bundle import Bundle
    from rgsiam_ros.fusion.robot_localization import SOURCES, FusionSetup, write_files

    manifest = Bundle.load(bundle).manifest
    unknown = [name for name in without or () if name not in SOURCES]
    if unknown:
        raise typer.BadParameter(f"--without is one of {', '.join(SOURCES)}, not {unknown[0]}")
    setup = FusionSetup(
        wheel_topic=wheel_topic,
        imu_topic=imu_topic,
        gps_topic=gps_topic,
        pose_topic=pose_topic,
        map_frame=map_frame or manifest.map_frame,
        odom_frame=odom_frame,
        base_frame=base_frame,
        gps_frame=gps_frame,
        two_d_mode=not three_d,
        delay_s=delay,
        sensor_rate_hz=sensor_rate,
        sources=tuple(name for name in SOURCES if name not in (without or ())),
    )
    for path in write_files(manifest, setup, out):
        console.print(f"written: {path}", soft_wrap=True)
    launch = "ros2 launch rgsiam_ros relocalize_with_gps.launch.py"
    folders = f"{quote(f'bundle:={bundle.resolve()}')} {quote(f'fusion_config:={out.resolve()}')}"
    console.print(f"{launch} {escape(folders)}", soft_wrap=True, highlight=False)


@bundle_app.command("show")
def bundle_show(path: BundlePath) -> None:
    """Verify a bundle and print its manifest."""
    from rgsiam_ros.bundle import Bundle
    from rgsiam_ros.bundle.writer import dump_manifest

    console.print(escape(dump_manifest(Bundle.load(path).manifest)), highlight=False)


@bundle_app.command("set-datum")
def bundle_set_datum(
    path: BundlePath,
    datum: Annotated[
        str,
        typer.Option(
            help="latitude,longitude,ellipsoidal height of the map's origin, degrees and metres."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
) -> None:
    """Add a surveyed datum to a bundle whose map axes are east, north, up. Otherwise use georeference."""
    from pydantic import ValidationError

    from rgsiam_ros.bundle import Bundle, rewrite_bundle
    from rgsiam_ros.geometry.geodesy import Datum

    try:
        latitude, longitude, height = (float(value) for value in datum.split(","))
        surveyed = Datum(
            latitude_deg=latitude, longitude_deg=longitude, ellipsoidal_height_m=height
        )
    except (ValueError, ValidationError) as error:
        raise typer.BadParameter(f"give the datum as latitude,longitude,height: {error}") from error
    rewrite_bundle(Bundle.load(path), out, {"datum": surveyed.model_dump()}, {})
    console.print(f"written: {out}")


@bundle_app.command("compare")
def bundle_compare(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles of the same recordings.")],
    data: Annotated[
        list[Path], typer.Option(help="Recording that they were made from, in order. Repeated.")
    ],
    out: Annotated[Path | None, typer.Option(help="File for the figures, JSON.")] = None,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Localize the images that `map build` held out, each alone. For networks of `train --hold-out map`."""
    from rgsiam_ros.building.comparison import compare_bundles, write_comparison
    from rgsiam_ros.recordings.formats import open_dataset
    from rgsiam_ros.replay.progress import progress_bar

    topics = bag_topics(image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount)
    opened = [open_dataset(path, "train", topics) for path in data]
    with progress_bar(console) as bar:
        found = compare_bundles(bundles, opened, Stages(bar))
    for one in found:
        console.print(f"{one.bundle}: {one.describe()}", soft_wrap=True, highlight=False)
    if out is not None:
        write_comparison(found, out)


@bundle_app.command("verify")
def bundle_verify(path: BundlePath) -> None:
    """Check every file of a bundle and start the best engine that passes the self-test."""
    from rgsiam_ros.localization.relocalizer import Relocalizer
    from rgsiam_ros.report.results import print_in_red

    relocalizer = Relocalizer.from_bundle(path)
    relocalizer.close()
    info = relocalizer.describe_engine()
    console.print(
        f"{path} is sound: bundle {relocalizer.manifest.name}, engine {info.name} {info.version} "
        f"{info.precision} on {info.device}",
        soft_wrap=True,
    )
    print_in_red(relocalizer.doubts, console)


def _register_training() -> None:
    """Add the training commands, or commands that say what to install if the training extra is missing."""
    missing = missing_parts()
    if not missing:
        for entry_point in entry_points(group=COMMAND_GROUP):
            entry_point.load()(app)
        return
    for name in TRAINING_COMMANDS:
        app.command(
            name,
            help=f"Needs the training extra: {escape(INSTALL_HINT)}",
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_refuse(missing))


def _refuse(missing: list[str]) -> Callable[[typer.Context], None]:
    def command(context: typer.Context) -> None:
        raise RgsiamError(
            f"`rgsiam {context.info_name}` needs the training extra, which is not installed "
            f"(missing: {', '.join(missing)}): {INSTALL_HINT}"
        )

    return command


def main() -> None:
    """Run the program. A RgsiamError gives one line on standard error and exit status 1."""
    log_to_terminal()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # removes temporary files
    if not sys.argv[1:] or sys.argv[1] in (*TRAINING_COMMANDS, "--help"):
        _register_training()
    try:
        app(obj=PROGRAM)
    except RgsiamError as error:
        logging.getLogger("rgsiam_ros").error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
