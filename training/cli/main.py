"""Training commands of the `rgsiam` program; registered when the training extra is installed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rgsiam_training.cli.compare import compare
from rgsiam_training.cli.dataset import download, inspect

console = Console()

ImageTopic = Annotated[str | None, typer.Option(help="Image topic of the bags.")]
InfoTopic = Annotated[str | None, typer.Option(help="Camera info topic of the bags.")]
TruthTopic = Annotated[str | None, typer.Option(help="Topic of true poses in the bags.")]
BranchName = Annotated[str, typer.Option(help="absolute, refined, or auto: what the bundle has.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


def register(app: typer.Typer) -> None:
    """Add the training commands to the program."""
    for command in (
        inspect, download, train, compare, export, calibrate, evaluate, look_alikes, town,
    ):  # fmt: skip
        app.command()(command)


def train(
    datasets: Annotated[
        list[str], typer.Argument(help="Sessions of one map: bags, or see docs/datasets.md.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of this run, new.")],
    config: Annotated[Path | None, typer.Option(help="YAML of a training configuration.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    width: Annotated[int | None, typer.Option(help="Network input width, pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Network input height, pixels.")] = None,
    backbone: Annotated[str | None, typer.Option(help="timm model name.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    truth_topic: TruthTopic = None,
    depth_topic: Annotated[
        str | None, typer.Option(help="Depth image topic of the bags, for losses.reprojection.")
    ] = None,
    reach: Annotated[
        float | None, typer.Option(help="Metres between images that see the same: 8; indoors 1.")
    ] = None,
    rotation: Annotated[
        float | None, typer.Option(help="Degrees by which training turns the camera; hand-held 10.")
    ] = None,
    map_spacing: Annotated[
        float | None, typer.Option(help="Spacing of the map's images in the bundle, of the reach.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="32-true, or bf16-mixed where that is faster.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Validations without improvement before it stops; 0: never.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Loss term to switch off; may be repeated.")
    ] = None,
    stretch_frames: Annotated[
        int | None,
        typer.Option(help="Length of one held-out stretch: 40; shorter ones are more of them."),
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="x,y,radius in the map frame: use no frame there. May be repeated."),
    ] = None,
    single_image: Annotated[
        bool, typer.Option(help="No pairs: the global pose loss alone, for comparison.")
    ] = False,
    preset: Annotated[
        str | None, typer.Option(help="Another method, as `rgsiam compare` trains it.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue from the last checkpoint.")] = False,
) -> None:
    """Train on recorded sessions with true poses."""
    from rgsiam_training.config import load_config
    from rgsiam_training.data.splits import circles
    from rgsiam_training.evaluation.compare.presets import trainable
    from rgsiam_training.fitting.train import train as run_training

    overrides = {
        "datasets": datasets,
        "optimisation.epochs": epochs,
        "input_width": width,
        "input_height": height,
        "network.backbone": backbone,
        "seed": seed,
        "topics.image": image_topic,
        "topics.camera_info": camera_info_topic,
        "topics.truth": truth_topic,
        "topics.depth": depth_topic,
        "pairs.reach_m": reach,
        "augmentation.rotation_deg": rotation,
        "optimisation.precision": precision,
        "optimisation.patience": patience,
        "map_images.spacing": map_spacing,
        "split.stretch_frames": stretch_frames,
        "split.leave_out": circles(leave_out or ()) or None,
    }
    chosen = load_config(config, overrides)
    if preset:
        chosen = trainable(preset).apply(chosen)
    if single_image:
        chosen = chosen.of_single_images()
    say = partial(console.print, soft_wrap=True)
    run_training(chosen.without(without or ()), out, resume=resume, report=say)
    console.print(f"trained: {out}; next: [bold]rgsiam export {out} --out models/NAME[/bold]")


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training run.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle, new.")],
    map_spacing: Annotated[
        float | None, typer.Option(help="Keep fewer of the map's images: spacing, of the reach.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Reduced precision to try beside float32, may be repeated: bfloat16, float16 "
            "(TensorRT), int8, int8_symmetric (TensorRT). Default: int8. float32: no other."
        ),
    ] = None,
    tensorrt: Annotated[
        bool, typer.Option(help="Also compile an engine for this machine's GPU, by torch-tensorrt.")
    ] = False,
) -> None:
    """Turn a training run into a bundle; refused unless ONNX Runtime and torch agree."""
    from rgsiam_ros.bundle.precision import PRECISIONS
    from rgsiam_training.export.bundle_export import DEFAULT_PRECISIONS, export_bundle

    unknown = [name for name in precision or () if name not in PRECISIONS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(PRECISIONS)}")
    if tensorrt:
        from rgsiam_training.export.tensorrt_export import find_compiler

        find_compiler()  # says what is missing before the long work
    wanted = [p for p in PRECISIONS[1:] if p in (precision or DEFAULT_PRECISIONS)]
    bundle = export_bundle(
        run, out, map_spacing, wanted, report=partial(console.print, soft_wrap=True)
    )
    manifest = bundle.manifest
    console.print(f"exported: {out}; validation, {manifest.validation.frames} held-out frames:")
    if manifest.refinement is not None:
        features = bundle.map_features()
        console.print(
            f"map: {len(features.T_map_camera_N44)} images of {features.bytes_per_image} bytes"
        )
    for chosen in manifest.precisions:
        figures = {"absolute": manifest.absolute_figures(chosen)}
        refined = manifest.refined_figures(chosen)
        if refined is not None:
            figures["refined"] = refined
        for branch, figure in figures.items():
            v = figure.validation
            console.print(
                f"{chosen}, {branch}: median {v.median_m:.2f} m {v.median_deg:.2f} deg, p95 "
                f"{v.p95_m:.2f} m {v.p95_deg:.2f} deg; against torch at most "
                f"{v.export_difference_m * 1e3:.3g} mm, {v.export_difference_deg * 1e3:.3g} "
                "millidegrees",
                soft_wrap=True,
            )
    if tensorrt:
        from rgsiam_training.export.tensorrt_export import compile_for_this_gpu

        compile_for_this_gpu(run, bundle, console.print)


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    run: Annotated[
        Path | None, typer.Option(help="The training run: its held-out stretches are used.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Session that was not trained on. May be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of a new bundle; without it BUNDLE is replaced.")
    ] = None,
    false_accepts: Annotated[
        float, typer.Option(min=1e-4, max=0.5, help="Share of wrong poses that may be believed.")
    ] = 0.01,
    seed: Seed = 0,
    split: Annotated[
        str, typer.Option(help="train or test, where the dataset has splits.")
    ] = "test",
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    truth_topic: TruthTopic = None,
) -> None:
    """Fit covariances and lost detection on images that were not trained on (export does it too)."""
    from rgsiam_ros.bundle import Bundle
    from rgsiam_ros.recordings import open_dataset
    from rgsiam_ros.recordings.rosbag import BagTopics
    from rgsiam_training.export.calibrate import calibrate_bundle, images_of_datasets, images_of_run
    from rgsiam_training.fitting.run_folder import open_run

    if (run is None) == (not data):
        raise typer.BadParameter("give either --run or --data")
    loaded = Bundle.load(bundle)
    if run is not None:
        held_out = images_of_run(open_run(run))
    else:
        topics = BagTopics(image_topic, camera_info_topic, truth_topic or BagTopics.truth)
        opened = [open_dataset(path, split, topics) for path in data or ()]
        held_out = images_of_datasets(opened, loaded)
    calibrate_bundle(
        loaded,
        held_out,
        out or bundle,
        false_accept_rate=false_accepts,
        seed=seed,
        report=partial(console.print, soft_wrap=True),
    )
    console.print(f"calibrated: {out or bundle}")


def evaluate(
    dataset: Annotated[Path, typer.Argument(help="A bag, or see docs/datasets.md.")],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    out: Annotated[Path, typer.Option(help="Results folder, new.")],
    split: Annotated[
        str, typer.Option(help="train or test, where the dataset has splits.")
    ] = "test",
    branch: BranchName = "auto",
    engine: Annotated[str, typer.Option(help="Inference engine.")] = "auto",
    precision: Annotated[str, typer.Option(help="One of the bundle's, or auto.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, max=64, help="Images of one inference.")] = 1,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    truth_topic: TruthTopic = None,
) -> None:
    """Relocalize every image of a dataset and report errors (bags: see also `replay`)."""
    from rgsiam_ros.recordings.rosbag import BagTopics
    from rgsiam_training.evaluation.evaluate import evaluate_dataset

    topics = BagTopics(image_topic, camera_info_topic, truth_topic or BagTopics.truth)
    evaluate_dataset(
        dataset,
        bundle,
        out,
        split=split,
        topics=topics,
        branch=branch,
        engine=engine,
        precision=precision,
        batch=batch,
        console=console,
    )


def look_alikes(
    dataset: Annotated[Path, typer.Argument(help="A bag, or see docs/datasets.md.")],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    place: Annotated[list[str], typer.Option(help="x,y in the map frame; twice or more.")],
    radius: Annotated[float, typer.Option(help="Metres around a place that belong to it.")] = 20.0,
    split: Annotated[
        str, typer.Option(help="train or test, where the dataset has splits.")
    ] = "test",
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    truth_topic: TruthTopic = None,
) -> None:
    """Measure how well places that look alike are told apart."""
    from rgsiam_ros.recordings import open_dataset
    from rgsiam_ros.recordings.rosbag import BagTopics
    from rgsiam_training.evaluation.look_alikes import measure_look_alikes

    try:
        places = [(float(x), float(y)) for x, y in (text.split(",") for text in place)]
    except ValueError as error:
        raise typer.BadParameter(f"a place is x,y, not {' '.join(place)}") from error
    topics = BagTopics(image_topic, camera_info_topic, truth_topic or BagTopics.truth)
    found = measure_look_alikes(open_dataset(dataset, split, topics), bundle, places, radius)
    console.print(
        f"{found['images']} images; features of {found['near_pairs']} near pairs against "
        f"{found['far_pairs']} at another place: AUROC {found['auroc']:.3f}"
    )
    for branch in ("absolute", "refined"):
        console.print(
            f"{branch}: median {found[branch]['median_m']:.2f} m, above 5 m: "
            f"{found[branch]['above_5_m']:.1%}"
        )


def town(
    out: Annotated[Path, typer.Option(help="Folder to write the two sessions to.")],
    seed: Seed = 7,
    depth: Annotated[bool, typer.Option(help="Write depth images too, for `posenet2`.")] = False,
) -> None:
    """Render the demo town's mapping session and drive as bags (needs OpenGL through EGL)."""
    from rgsiam_training.town.session import demo_sessions, write_session

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    for session in demo_sessions(seed):
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(session.name, total=1.0)
            show = partial(progress.update, task)
            path = write_session(
                session, out, seed, lambda share, show=show: show(completed=share), depth
            )
        size = sum(file.stat().st_size for file in path.iterdir())
        console.print(f"written: {path} ({size / 1e6:.1f} MB)")
