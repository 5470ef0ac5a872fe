"""`rgsiam`: one program. Replay and bundle commands come with the runtime, the rest with training."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from rgsiam_ros import __version__
from rgsiam_ros.cli.engine import engine_app
from rgsiam_ros.errors import RgsiamError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
bundle_app = typer.Typer(no_args_is_help=True, help="Look at and verify bundles.")
app.add_typer(bundle_app, name="bundle")
app.add_typer(engine_app, name="engine")
console = Console()

BranchName = Annotated[str, typer.Option(help="absolute, refined, or auto: what the bundle has.")]
EngineName = Annotated[str, typer.Option(help="auto, or one that `rgsiam engine list` names.")]
PrecisionName = Annotated[str, typer.Option(help="One of the bundle's, or auto.")]
TRUTH_TOPIC = "/ground_truth/odometry"
BundlePath = Annotated[Path, typer.Argument(help="Folder of the bundle.")]

TRAINING_COMMANDS = (
    *("train", "compare", "export", "calibrate", "evaluate", "look-alikes"),
    *("inspect", "download", "town"),
)
COMMAND_GROUP = "rgsiam_ros.commands"
"""Entry points of this group add commands. The training side registers its own there (setup.py), so
that the vehicle side never names it."""
TRAINING_NEEDS = ("torch", "lightning", "timm", "roma", "sklearn", "omegaconf")
INSTALL_HINT = "pip install 'rgsiam_ros[training]', or run `make dev` in a clone"


@app.callback()
def program() -> None:
    """Camera relocalization for ROS 2: train, export, replay."""


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__)


@app.command()
def replay(
    bag: Annotated[Path, typer.Argument(help="Folder of a rosbag2 recording.")],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    out: Annotated[Path, typer.Option(help="Results folder, new.")] = Path("results/replay"),
    ros: Annotated[bool, typer.Option("--ros", help="Through the real node, over DDS.")] = False,
    with_filter: Annotated[
        bool, typer.Option("--with-filter", help="--ros: beside robot_localization's real filters.")
    ] = False,
    fusion_config: Annotated[
        Path | None,
        typer.Option(help="--with-filter: topics and frames, a folder `fusion-config` wrote."),
    ] = None,
    rerun: Annotated[Path | None, typer.Option(help="Write a Rerun recording (.rrd) too.")] = None,
    rate: Annotated[float, typer.Option(min=0.05, max=20.0, help="--ros: speed of playing.")] = 1.0,
    engine: EngineName = "auto",
    precision: PrecisionName = "auto",
    branch: BranchName = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads, 0: engine's choice.")] = 0,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Images of one inference.")] = 1,
    image_topic: Annotated[str | None, typer.Option(help="Image topic of the bag.")] = None,
    camera_info_topic: Annotated[str | None, typer.Option(help="Camera info topic.")] = None,
    truth_topic: Annotated[
        str, typer.Option(help="Topic of true poses, if there is one.")
    ] = TRUTH_TOPIC,
    base_frame: Annotated[str, typer.Option(help="Vehicle frame to report.")] = "base_link",
) -> None:
    """Relocalize a recorded drive and report: offline, or (--ros) through the real node."""
    from rgsiam_ros.fusion.robot_localization import read_setup
    from rgsiam_ros.recordings.rosbag import BagTopics
    from rgsiam_ros.replay.run import ReplayOptions, run_replay

    if with_filter and not ros:
        raise typer.BadParameter("--with-filter needs --ros")
    if fusion_config is not None and not with_filter:
        raise typer.BadParameter("--fusion-config needs --with-filter")
    topics = BagTopics(image_topic, camera_info_topic, truth_topic, base_frame)
    options = ReplayOptions(
        engine=engine,
        precision=precision,
        branch=branch,
        threads=threads,
        batch=batch,
        ros=ros,
        with_filter=with_filter,
        fusion=None if fusion_config is None else read_setup(fusion_config),
        rate=rate,
        topics=topics,
        rerun=rerun,
    )
    run_replay(bag, bundle, out, options, console)


@app.command()
def georeference(
    bag: Annotated[Path, typer.Argument(help="Folder of a recording with fixes.")],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    picture: Annotated[Path, typer.Option(help="Where to draw the residuals.")] = Path(
        "results/georeference.png"
    ),
    poses: Annotated[
        str, typer.Option(help="bundle: it relocalizes the bag; truth: the bag's true poses.")
    ] = "bundle",
    fix_topic: Annotated[str | None, typer.Option(help="NavSatFix topic of the bag.")] = None,
    image_topic: Annotated[str | None, typer.Option(help="Image topic of the bag.")] = None,
    camera_info_topic: Annotated[str | None, typer.Option(help="Camera info topic.")] = None,
    truth_topic: Annotated[str, typer.Option(help="Topic of true poses.")] = TRUTH_TOPIC,
    base_frame: Annotated[str, typer.Option(help="Vehicle frame.")] = "base_link",
) -> None:
    """Find out where on the Earth a bundle's map is, and write a bundle whose map is east, north, up."""
    from rgsiam_ros.recordings.rosbag import BagTopics
    from rgsiam_ros.replay.georeference import GeoreferenceOptions, run_georeference

    topics = BagTopics(image_topic, camera_info_topic, truth_topic, base_frame)
    options = GeoreferenceOptions(poses, topics, fix_topic)
    run_georeference(bag, bundle, out, picture, options, console)


@app.command("fusion-config")
def fusion_config(
    bundle: BundlePath,
    out: Annotated[Path, typer.Option(help="Folder to write the parameter files to.")],
    wheel_topic: Annotated[str, typer.Option(help="nav_msgs/Odometry.")] = "/wheel/odometry",
    imu_topic: Annotated[str, typer.Option(help="sensor_msgs/Imu.")] = "/imu/data",
    gps_topic: Annotated[str, typer.Option(help="sensor_msgs/NavSatFix.")] = "/gps/fix",
    pose_topic: Annotated[str, typer.Option(help="The node's pose.")] = (
        "/relocalize/pose_with_covariance"
    ),
    map_frame: Annotated[str | None, typer.Option(help="Map frame; the bundle's.")] = None,
    odom_frame: Annotated[str, typer.Option(help="Odometry frame.")] = "odom",
    base_frame: Annotated[str, typer.Option(help="Vehicle frame.")] = "base_link",
    gps_frame: Annotated[str, typer.Option(help="Antenna frame.")] = "gps_link",
    delay: Annotated[float, typer.Option(min=0.0, help="Seconds from image to pose.")] = 0.1,
    three_d: Annotated[
        bool, typer.Option("--three-d", help="Fuse height, roll, pitch too.")
    ] = False,
    without: Annotated[list[str] | None, typer.Option(help="gps or visual: leave it out.")] = None,
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
        sources=tuple(name for name in SOURCES if name not in (without or ())),
    )
    for path in write_files(manifest, setup, out):
        console.print(f"written: {path}")
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
        str, typer.Option(help="latitude,longitude,ellipsoidal height of the origin.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
) -> None:
    """Give a bundle a surveyed datum, where its map is east, north, up there (else: georeference)."""
    from pydantic import ValidationError

    from rgsiam_ros.bundle import Bundle, rewrite_bundle
    from rgsiam_ros.geometry.geodesy import Datum

    try:
        latitude, longitude, height = (float(value) for value in datum.split(","))
        place = Datum(latitude_deg=latitude, longitude_deg=longitude, ellipsoidal_height_m=height)
    except (ValueError, ValidationError) as error:
        raise typer.BadParameter(f"a datum is latitude,longitude,height: {error}") from error
    rewrite_bundle(Bundle.load(path), out, {"datum": place.model_dump()}, {})
    console.print(f"written: {out}")


@bundle_app.command("verify")
def bundle_verify(path: BundlePath) -> None:
    """Check every file of a bundle and start the best engine that passes the self-test."""
    from rgsiam_ros.localization.relocalizer import Relocalizer

    relocalizer = Relocalizer.from_bundle(path)
    relocalizer.close()
    console.print(f"{path} is sound: {relocalizer.manifest.name}, {relocalizer.describe_engine()}")


def _register_training() -> None:
    missing = [name for name in TRAINING_NEEDS if find_spec(name) is None]
    if not missing:
        for entry_point in entry_points(group=COMMAND_GROUP):
            entry_point.load()(app)
        return
    for name in TRAINING_COMMANDS:
        app.command(
            name,
            help=f"Needs the training extra: {INSTALL_HINT}",
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
    """Run the program; an error the input caused is one line and exit status 1."""
    if not sys.argv[1:] or sys.argv[1] in (*TRAINING_COMMANDS, "--help"):
        _register_training()
    try:
        app()
    except RgsiamError as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
