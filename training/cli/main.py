"""Training commands of the `rgsiam` program. setup.py registers them as an entry point."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from rgsiam_ros.building.plan import NOTHING_TRAINED
from rgsiam_ros.bundle.geometric_part import GeometricPart
from rgsiam_ros.cli.console import console
from rgsiam_ros.cli.map import Stages
from rgsiam_ros.cli.options import (
    BASE_FRAME,
    MOUNT,
    TRUTH_TOPIC,
    BaseFrame,
    BundlePath,
    BundleTimeOffset,
    ImageTopic,
    InfoTopic,
    Mount,
    Rectified,
    RefineCamera,
    Seed,
    Split,
    TruthTopic,
    bag_topics,
    read_offset,
)
from rgsiam_training.cli.budget import FEWEST_STEPS, within_budget
from rgsiam_training.cli.compare import compare
from rgsiam_training.cli.dataset import download, inspect
from rgsiam_training.cli.evaluate import evaluate
from rgsiam_training.cli.features import tune_features
from rgsiam_training.cli.look_alikes import look_alikes
from rgsiam_training.cli.town import town
from rgsiam_training.config import default_of

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def register(app: typer.Typer) -> None:
    """Add the training commands to the program."""
    for command in (
        inspect, download, train, compare, export, calibrate, evaluate, look_alikes, tune_features, town,
    ):  # fmt: skip
        app.command()(command)


def setting(name: str, help_text: str, default: str = "") -> Any:
    """An option for one field of the configuration, whose help shows the field's default, or the words for it."""
    return typer.Option(help=f"{help_text} ({name})", show_default=default or f"{default_of(name)}")


def train(
    datasets: Annotated[
        list[str], typer.Argument(help="Sessions of one map: bags, or see docs/datasets.md.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of this run, new.")],
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML of a training configuration, see docs/training.md.", show_default="none"
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Method to train: siamese, or another one of `rgsiam compare`.")
    ] = "siamese",
    epochs: Annotated[
        int | None,
        setting(
            "optimisation.epochs",
            "Passes over the training images",
            f"as many as make {default_of('optimisation.steps')} steps",
        ),
    ] = None,
    width: Annotated[
        int | None, setting("input_width", "Width of the network's input, pixels")
    ] = None,
    height: Annotated[
        int | None,
        setting("input_height", "Height of the network's input, pixels", "the camera's aspect"),
    ] = None,
    reach: Annotated[
        float | None,
        setting(
            "pairs.reach_m", "Largest distance of cameras with overlapping views, m; 1 in a room"
        ),
    ] = None,
    rotation: Annotated[
        float | None,
        setting(
            "augmentation.rotation_deg", "Largest random camera rotation, deg; 10 if hand-held"
        ),
    ] = None,
    hold_out: Annotated[
        str | None,
        setting("split.hold_out", "Frames for validation: stretches, interleaved, map, or auto"),
    ] = None,
    time_offset: Annotated[
        str | None,
        setting(
            "time_offset",
            "Seconds by which images show an earlier moment than their stamps, or auto",
        ),
    ] = None,
    refine_camera: RefineCamera = False,
    seed: Annotated[int | None, setting("seed", "Seed of all random numbers")] = None,
    image_topic: ImageTopic = None,
    truth_topic: Annotated[
        str | None, setting("topics.truth", "Topic of the true poses in the bags")
    ] = None,
    base_frame: Annotated[
        str | None, setting("topics.base_frame", "Frame of the true poses, if they name none")
    ] = None,
    mount: Annotated[
        str | None,
        setting("topics.mount", "identity: the true poses are those of the camera (optical axes)"),
    ] = None,
    map_bundle: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help="The map bundle that you will export with, to show what it gives.",
            show_default="none",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Minutes that the steps may take on this machine, from a few measured ones. Too few for "
            f"{FEWEST_STEPS} steps: nothing is trained, and the exit status is {NOTHING_TRAINED}.",
            show_default="none",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out.", show_default="off")
    ] = False,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            show_default="none",
            help="Any other field of the configuration, by its dotted name: --set pairs.reach_m=1. "
            "May be repeated.",
        ),
    ] = None,
) -> None:
    """Train on recorded sessions with true poses.

    One epoch is one pass over the training images: (training images / 16) steps, where 16 is
    optimisation.batch_pairs. In each step 16 images are drawn, each with a partner.
    """
    from rgsiam_ros.bundle import Bundle
    from rgsiam_training.config import load_config
    from rgsiam_training.evaluation.compare.presets import trainable
    from rgsiam_training.fitting.train import kept_of
    from rgsiam_training.fitting.train import train as run_training

    overrides = trainable(preset).settings | {
        "datasets": datasets,
        "optimisation.epochs": epochs,
        "input_width": width,
        "input_height": height,
        "pairs.reach_m": reach,
        "augmentation.rotation_deg": rotation,
        "split.hold_out": hold_out,
        "time_offset": None if time_offset is None else read_offset(time_offset),
        "refine_camera": refine_camera or None,
        "seed": seed,
        "topics.image": image_topic,
        "topics.truth": truth_topic,
        "topics.base_frame": base_frame,
        "topics.mount": mount,
    }
    settings = load_config(config, overrides, assignments or ())
    geometry = None if map_bundle is None else Bundle.load(map_bundle).manifest.geometric_part
    if reason := settings.why_no_export():
        logging.getLogger(__name__).warning("%s", reason)
    if budget is not None and not resume:
        settings = within_budget(settings, budget)
    try:
        errors = run_training(settings, out, resume=resume, map_bundle=map_bundle)
    except KeyboardInterrupt:
        kept = kept_of(out)
        if kept is None:
            remove = f", remove {out}" if out.exists() else ""
            console.print(f"stopped before the end of an epoch: nothing is kept{escape(remove)}")
            raise typer.Exit(INTERRUPTED) from None
        again = shlex.join(["rgsiam", *(a for a in sys.argv[1:] if a != "--resume"), "--resume"])
        console.print(
            f"stopped: {escape(kept)}; go on with: [bold]{escape(again)}[/bold]", soft_wrap=True
        )
        raise typer.Exit(INTERRUPTED) from None
    if errors is not None:
        console.print(errors.describe(), soft_wrap=True, highlight=False)
    _say_what_the_bundle_gives(geometry)
    adding = "" if map_bundle is None else f" --map {escape(shlex.quote(str(map_bundle)))}"
    console.print(
        f"trained: {escape(str(out))}; next: [bold]rgsiam export {escape(shlex.quote(str(out)))} "
        f"--out models/NAME{adding}[/bold]",
        soft_wrap=True,
    )


def _say_what_the_bundle_gives(geometry: GeometricPart | None) -> None:
    """Say whose pose the vehicle gets. geometry: the bundle's geometric branch, None without one."""
    if geometry is None:
        text = (
            "the bundle gives the absolute branch's pose; a map makes it far more accurate: "
            "`rgsiam map build`, then `rgsiam export --map`"
        )
    else:
        text = (
            "the bundle gives the geometric branch's pose, which the absolute branch helps to find"
        )
        if geometry.validation is not None:
            text += f"; {geometry.validation.describe()}"
    console.print(text, soft_wrap=True, highlight=False)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training run.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle, new.")],
    map_spacing: Annotated[
        float | None,
        typer.Option(
            help="Keep fewer map images: the smallest distance between two, in units of the reach."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Reduced precision to try beside float32, may be repeated: bfloat16, float16 "
            "(TensorRT), int8, int8_symmetric (TensorRT). Default: int8. float32: try none."
        ),
    ] = None,
    map_bundle: Annotated[
        Path | None,
        typer.Option(
            "--map", help="A bundle of `rgsiam map build`, whose geometric branch is added."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Session to calibrate on, of which the frames are taken that RUN was not trained on. May be "
            "repeated. Default: the frames that RUN held out."
        ),
    ] = None,
    split: Split = "test",
    tensorrt: Annotated[
        bool, typer.Option(help="Also compile an engine for this machine's GPU, by torch-tensorrt.")
    ] = False,
) -> None:
    """Export a training run to a bundle. Fails if ONNX Runtime and torch compute different poses."""
    from rgsiam_ros.bundle import refuse_existing
    from rgsiam_ros.bundle.doubts import doubts
    from rgsiam_ros.bundle.precision import PRECISIONS
    from rgsiam_ros.geometry.units import angle_text, length_text
    from rgsiam_ros.replay.progress import progress_bar
    from rgsiam_ros.report.results import print_in_red
    from rgsiam_training.export.bundle_export import DEFAULT_PRECISIONS, export_bundle
    from rgsiam_training.fitting.run_folder import open_run

    unknown = [name for name in precision or () if name not in PRECISIONS]
    if unknown:
        raise typer.BadParameter(
            f"precision {unknown[0]} is unknown: choose from {', '.join(PRECISIONS)}"
        )
    if tensorrt:
        from rgsiam_training.export.tensorrt_export import find_compiler

        find_compiler()  # reports what is missing before the export, which takes minutes
    reduced = [p for p in PRECISIONS[1:] if p in (precision or DEFAULT_PRECISIONS)]
    refuse_existing(out)
    sessions = open_run(run).open_sessions(data, split) if data else []
    with progress_bar(console) as bar:
        bundle = export_bundle(
            run,
            out,
            map_spacing,
            reduced,
            map_bundle=map_bundle,
            calibrate_on=sessions,
            progress=Stages(bar),
        )
    part = bundle.manifest.absolute_part
    frames = part.variants["float32"].validation.frames
    console.print(f"exported: {out}; errors on {frames} held-out frames:", soft_wrap=True)
    if part.retrieval is not None:
        features = bundle.map_features()
        console.print(
            f"map: {len(features.T_map_camera_N44)} images of {features.bytes_per_image} bytes"
        )
    for name, variant in part.variants.items():
        v = variant.validation
        console.print(
            f"{name}: median {v.median_m:.3g} m {v.median_deg:.2f} deg, p95 {v.p95_m:.3g} m "
            f"{v.p95_deg:.2f} deg; largest difference from torch {length_text(v.export_difference_m)}, "
            f"{angle_text(v.export_difference_deg)}",
            soft_wrap=True,
        )
    _say_what_the_bundle_gives(bundle.manifest.geometry)
    console.print(bundle.describe_pictures(), soft_wrap=True, highlight=False)
    print_in_red(doubts(bundle.manifest), console)
    if tensorrt:
        from rgsiam_training.export.tensorrt_export import compile_for_this_gpu

        compile_for_this_gpu(run, bundle)


def calibrate(
    bundle: BundlePath,
    run: Annotated[
        Path | None, typer.Option(help="The training run: its held-out stretches are used.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Session that was not trained on. May be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of a new bundle; default: BUNDLE is replaced.")
    ] = None,
    false_accepts: Annotated[
        float, typer.Option(min=1e-4, max=0.5, help="Share of wrong poses that may be trusted.")
    ] = 0.01,
    seed: Seed = 0,
    split: Split = "test",
    time_offset: BundleTimeOffset = "auto",
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Fit covariance and trust on images that were not trained on. `rgsiam export` does this too."""
    from rgsiam_ros.bundle import Bundle, refuse_existing
    from rgsiam_ros.bundle.doubts import doubts
    from rgsiam_ros.recordings.formats import open_split
    from rgsiam_ros.recordings.time_offset import with_time_offset
    from rgsiam_ros.replay.progress import progress_bar
    from rgsiam_ros.report.results import print_in_red
    from rgsiam_training.export.calibrate import calibrate_bundle, images_of_datasets, images_of_run
    from rgsiam_training.fitting.run_folder import open_run

    if (run is None) == (not data):
        raise typer.BadParameter("give either --run or --data")
    loaded = Bundle.load(bundle)
    if out is not None and out.resolve() != bundle.resolve():
        refuse_existing(out)  # before the images are read
    if run is not None:
        held_out = images_of_run(open_run(run))
    else:
        topics = bag_topics(
            image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount
        )
        offset_s = loaded.manifest.labels.offset_or(read_offset(time_offset))
        opened = [
            with_time_offset(open_split(path, split, topics), offset_s) for path in data or ()
        ]
        held_out = images_of_datasets(opened, loaded)
    target = out or bundle
    with progress_bar(console) as bar:
        made = calibrate_bundle(
            loaded,
            held_out,
            target,
            false_accept_rate=false_accepts,
            seed=seed,
            progress=Stages(bar),
        )
    console.print(f"calibrated: {target}", soft_wrap=True)
    print_in_red(doubts(made.manifest, "absolute"), console)
