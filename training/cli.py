"""Training commands of the `rgsiam` program; registered when the training extra is installed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

console = Console()

ImageTopic = Annotated[str | None, typer.Option(help="Image topic of the bags.")]
InfoTopic = Annotated[str | None, typer.Option(help="Camera info topic of the bags.")]
TruthTopic = Annotated[str | None, typer.Option(help="Topic of true poses in the bags.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


def register(app: typer.Typer) -> None:
    """Add the training commands to the program."""
    for command in (train, export, evaluate, town):
        app.command()(command)


def train(
    datasets: Annotated[list[str], typer.Argument(help="Bags or 7-Scenes folders of one map.")],
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
    resume: Annotated[bool, typer.Option(help="Continue from the last checkpoint.")] = False,
) -> None:
    """Train on recorded sessions with true poses."""
    from rgsiam_training.config import load_config
    from rgsiam_training.train import train as run_training

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
    }
    run_training(load_config(config, overrides), out, resume=resume)
    console.print(f"trained: {out}; next: [bold]rgsiam export {out} --out models/NAME[/bold]")


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training run.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle, new.")],
) -> None:
    """Turn a training run into a bundle; refused unless ONNX Runtime and torch agree."""
    from rgsiam_training.export import export_bundle

    bundle = export_bundle(run, out)
    v = bundle.manifest.validation
    console.print(
        f"exported: {out}\nvalidation ({v.frames} held-out frames): median {v.median_m:.2f} m "
        f"{v.median_deg:.2f} deg, p95 {v.p95_m:.2f} m {v.p95_deg:.2f} deg\n"
        f"ONNX Runtime against torch: at most {v.export_difference_m * 1e3:.4f} mm, "
        f"{v.export_difference_deg * 1e3:.4f} millidegrees"
    )


def evaluate(
    dataset: Annotated[Path, typer.Argument(help="A bag or a 7-Scenes folder.")],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    out: Annotated[Path, typer.Option(help="Results folder, new.")],
    split: Annotated[str, typer.Option(help="train or test, for 7-Scenes.")] = "test",
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    truth_topic: TruthTopic = None,
) -> None:
    """Relocalize every image of a dataset and report errors (bags: see also `replay`)."""
    from rgsiam_ros.bags import BagTopics
    from rgsiam_training.evaluate import evaluate_dataset

    topics = BagTopics(image_topic, camera_info_topic, truth_topic or BagTopics.truth)
    evaluate_dataset(dataset, bundle, out, split=split, topics=topics, console=console)


def town(
    out: Annotated[Path, typer.Option(help="Folder to write the two sessions to.")],
    seed: Seed = 7,
) -> None:
    """Render the demo town's mapping session and drive as bags (needs OpenGL through EGL)."""
    from rgsiam_training.town.session import demo_sessions, write_session

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    for session in demo_sessions(seed):
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(session.name, total=1.0)
            show = partial(progress.update, task)
            path = write_session(session, out, seed, lambda share, show=show: show(completed=share))
        size = sum(file.stat().st_size for file in path.iterdir())
        console.print(f"written: {path} ({size / 1e6:.1f} MB)")
