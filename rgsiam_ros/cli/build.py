"""`rgsiam build`: from recordings to a bundle, with all that lies between."""

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
    NoImages,
    Rectified,
    Seed,
    TruthTopic,
    bag_topics,
)
from rgsiam_ros.cli.training_extra import INSTALL_HINT, missing_parts
from rgsiam_ros.recordings.topics import BagTopics

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def build(
    context: typer.Context,
    mapping: Annotated[
        list[Path], typer.Argument(help="Bags with true poses, or datasets of any known format.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the bundle; the work lies in OUT.build.")],
    test: Annotated[
        list[Path] | None,
        typer.Option(help="Another drive to test the bundle with. May be repeated."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Minutes that the steps of the training may take.", show_default="none"
        ),
    ] = None,
    no_training: Annotated[
        bool, typer.Option("--no-training", help="Only the map, without an absolute branch.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the stages and what they take, and end.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML of a training configuration, see docs/training.md."),
    ] = None,
    seed: Seed = 0,
    no_images: NoImages = False,
    image_topic: ImageTopic = None,
    camera_info_topic: InfoTopic = None,
    rectified: Rectified = False,
    truth_topic: TruthTopic = TRUTH_TOPIC,
    base_frame: BaseFrame = BASE_FRAME,
    mount: Mount = MOUNT,
) -> None:
    """Inspect, map, train, export, test: from recordings to a bundle. The same command goes on where it stopped."""
    from rgsiam_ros.building.build import plan_build, run_build
    from rgsiam_ros.building.plan import BuildOptions

    topics = bag_topics(image_topic, camera_info_topic, rectified, truth_topic, base_frame, mount)
    options = BuildOptions(
        tuple(mapping),
        tuple(test or ()),
        out,
        training=not no_training,
        budget_min=budget,
        config=config,
        seed=seed,
        images=not no_images,
        topic_options=_options_of(topics),
        training_topic_options=_training_options_of(topics),
    )
    missing = ", ".join(missing_parts())
    if missing:
        missing = f"the training extra is not installed (missing: {missing}): {INSTALL_HINT}"
    plan = plan_build(options, topics, missing)
    if dry_run:
        for stage in plan.stages:
            _say(
                f"{stage.name}: {stage.cost.describe()}\n    {stage.text}\n    writes {stage.output}"
            )
        for line in plan.left_out:
            _say(f"left out: {line}")
        total_s = sum(stage.cost.seconds for stage in plan.stages)
        total_mb = sum(stage.cost.disk_mb for stage in plan.stages)
        _say(
            f"in all about {total_s / 60.0:.0f} min of CPU on 2 cores of an AMD EPYC and {total_mb:.0f} MB of disk; a stage "
            f"is done if {options.work / 'state.json'} has its command, inputs and program as they are now"
        )
        return
    try:
        run_build(options, plan, context.obj, _say)
    except KeyboardInterrupt:
        _say("stopped: the same command goes on where it stopped")
        raise typer.Exit(INTERRUPTED) from None


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def _options_of(topics: BagTopics) -> tuple[str, ...]:
    """The options of a command that reads bags, as far as they are not the defaults."""
    given = {
        "--image-topic": topics.image,
        "--camera-info-topic": topics.camera_info,
        "--truth-topic": None if topics.truth == TRUTH_TOPIC else topics.truth,
        "--base-frame": None if topics.base_frame == BASE_FRAME else topics.base_frame,
        "--mount": None if topics.mount == MOUNT else topics.mount,
    }
    named = [part for name, value in given.items() if value is not None for part in (name, value)]
    return (*named, *(["--rectified"] if topics.rectified else []))


def _training_options_of(topics: BagTopics) -> tuple[str, ...]:
    """The same for `rgsiam train`, where two of them are settings."""
    options = list(_options_of(topics))
    if "--camera-info-topic" in options:
        at = options.index("--camera-info-topic")
        options[at : at + 2] = ["--set", f"topics.camera_info={topics.camera_info}"]
    if topics.rectified:
        options[-1:] = ["--set", "topics.rectified=true"]
    return tuple(options)
