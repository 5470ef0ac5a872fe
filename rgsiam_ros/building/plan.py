"""The stages of a build: what each runs, reads and writes, and what it will take.

Each stage is a command that can be typed by hand. It runs in a process of its own, so that its memory is returned.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from rgsiam_ros.building.rates import Cost, cost_of, training_cost
from rgsiam_ros.building.sources import Source, Sources, files_of
from rgsiam_ros.uncertainty.covariance import MINIMUM_SAMPLES

NOTHING_TRAINED = 3
"""Exit status of `rgsiam train` if its budget is too small."""
FEWEST_TO_TRAIN = 3 * MINIMUM_SAMPLES
"""Fewer images cannot be trained on: an export needs `MINIMUM_SAMPLES` held-out ones."""
VALIDATION_NAME = "validation.json"


@dataclass(frozen=True)
class BuildOptions:
    """What the user asks for."""

    mapping: tuple[Path, ...]
    tests: tuple[Path, ...]
    out: Path
    training: bool = True
    budget_min: float | None = None
    """Minutes that the steps of the training may take; None: no limit."""
    config: Path | None = None
    """YAML of a training configuration."""
    seed: int = 0
    images: bool = True
    """Whether the reports show pictures."""
    topic_options: tuple[str, ...] = ()
    """Options of the commands that read bags."""
    training_topic_options: tuple[str, ...] = ()
    """The same for `rgsiam train`."""

    @property
    def work(self) -> Path:
        """Folder of all that the stages write."""
        return self.out.with_name(f"{self.out.name}.build")


@dataclass(frozen=True)
class Stage:
    """One command."""

    name: str
    command: tuple[str, ...]
    """Its arguments after `rgsiam`."""
    inputs: tuple[Path, ...]
    """Recordings and files that it reads, by path, size and time of change."""
    output: Path
    """The file or folder that it writes. It is removed before the stage runs again."""
    cost: Cost
    after: tuple[Stage, ...] = field(default=(), repr=False)
    """Stages whose output it reads."""
    checkpoint: Path | None = None
    """If this file exists, an interrupted stage goes on with ``--resume``."""

    @property
    def text(self) -> str:
        """The command as the user would type it."""
        return shlex.join(["rgsiam", *self.command])

    def key(self, version: str, extra: str = "") -> str:
        """SHA-256 of the command, its inputs, the stages before and the program. The stage runs again if it changes.

        extra: what else its result depends on.
        """
        stats = [
            (str(file), file.stat().st_size, file.stat().st_mtime_ns)
            for path in self.inputs
            for file in files_of(path)
        ]
        before = [stage.key(version) for stage in self.after]
        text = json.dumps([version, self.command, stats, before, extra])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """All stages of a build, in order, and where its bundles lie."""

    inspections: tuple[Stage, ...]
    map: Stage
    training: Stage | None
    export: Stage | None
    comparison: Stage | None
    replays: tuple[Stage, ...]
    report: Stage | None
    """One page about several tests."""
    left_out: tuple[str, ...]
    """What is not done, and why, one line each."""
    launch_arguments: tuple[str, ...]
    """Of `relocalize.launch.py`, for the camera of the recordings."""

    @property
    def stages(self) -> list[Stage]:
        """All stages in order."""
        trained = [self.training, self.export, self.comparison]
        report = [self.report] if self.report else []
        return [*self.inspections, self.map, *(s for s in trained if s), *self.replays, *report]


def make_plan(options: BuildOptions, sources: Sources, missing: str) -> Plan:
    """Plan a build. missing: why there is no training extra, empty if it is installed."""
    left_out = []
    work, name = options.work, options.out.name
    images, topics = sources.images, options.topic_options
    mapping = [str(path) for path in options.mapping]
    if missing:
        left_out.append(f"inspection and training: {missing}")
    inspections = (
        ()
        if missing
        else tuple(_inspection(options, sources, index) for index in range(len(options.mapping)))
    )
    built = Stage(
        "map",
        (
            "map",
            "build",
            *mapping,
            "--out",
            str(work / "map" / name),
            "--seed",
            str(options.seed),
            *topics,
        ),
        options.mapping,
        work / "map" / name,
        cost_of("map", images, sources.input_pixels),
    )
    training = export = comparison = None
    why = "" if options.training else "--no-training"
    if not missing and not why and images < FEWEST_TO_TRAIN:
        why = f"{images} images are too few, {FEWEST_TO_TRAIN} are needed"
    if why:
        left_out.append(f"training: {why}")
    if not missing and not why:
        training = _training(options, sources, built)
        export = Stage(
            "export",
            (
                "export",
                str(work / "run"),
                "--out",
                str(work / "trained" / name),
                "--map",
                str(built.output),
            ),
            (),
            work / "trained" / name,
            cost_of("export", images, sources.input_pixels),
            (training, built),
        )
        comparison = Stage(
            "comparison",
            (
                "bundle",
                "compare",
                str(built.output),
                str(export.output),
                "--out",
                str(work / VALIDATION_NAME),
                *(part for path in mapping for part in ("--data", path)),
                *topics,
            ),
            options.mapping,
            work / VALIDATION_NAME,
            cost_of("comparison", images, sources.input_pixels),
            (export, built),
        )
    replays = []
    for index, test in enumerate(sources.tests):
        if not test.is_bag and missing:
            left_out.append(
                f"{test.path}: it is no bag, and `rgsiam evaluate` needs the training extra"
            )
            continue
        replays.append(_replay(options, test, index, sources.input_pixels))
    report = None
    if len(replays) > 1:
        tests = [str(stage.output) for stage in replays]
        report = Stage(
            "report",
            ("report", *tests, "--out", str(work / "report.html")),
            (),
            work / "report.html",
            cost_of("report", 0, 0),
            tuple(replays),
        )
    return Plan(
        inspections,
        built,
        training,
        export,
        comparison,
        tuple(replays),
        report,
        tuple(left_out),
        sources.launch_arguments,
    )


def _inspection(options: BuildOptions, sources: Sources, index: int) -> Stage:
    """The inspection of one mapping recording; the first one is compared with the first test."""
    source = sources.mapping[index]
    tests = [test for test in sources.tests if test.has_truth][:1] if index == 0 else []
    output = options.work / f"inspection_{index + 1}"
    beside = [part for test in tests for part in ("--test", str(test.path))]
    images = source.images + sum(test.images for test in tests)
    return Stage(
        f"inspection {index + 1}",
        (
            *("inspect", str(source.path), *beside, "--out", str(output)),
            *([] if options.images else ["--no-images"]),
            *options.topic_options,
        ),
        (source.path, *(test.path for test in tests)),
        output,
        cost_of("inspection", images, sources.input_pixels),
    )


def _training(options: BuildOptions, sources: Sources, built: Stage) -> Stage:
    run = options.work / "run"
    command = ["train", *map(str, options.mapping), "--out", str(run), "--hold-out", "map"]
    command += ["--map", str(built.output), "--seed", str(options.seed)]
    if options.config is not None:
        command += ["--config", str(options.config)]
    if options.budget_min is not None:
        command += ["--budget", f"{options.budget_min:g}"]
    configs = () if options.config is None else (options.config,)
    return Stage(
        "training",
        (*command, *options.training_topic_options),
        (*options.mapping, *configs),
        run,
        training_cost(sources.images, sources.input_pixels, options.budget_min),
        (built,),
        checkpoint=run / "last.ckpt",
    )


def _replay(options: BuildOptions, test: Source, index: int, pixels: int) -> Stage:
    output = options.work / f"test_{index + 1}"
    command = "replay" if test.is_bag else "evaluate"
    return Stage(
        f"test {index + 1}",
        (
            command,
            str(test.path),
            "--bundle",
            str(options.out),
            "--out",
            str(output),
            *(part for path in options.mapping for part in ("--map-data", str(path))),
            *([] if options.images else ["--no-images"]),
            *options.topic_options,
        ),
        (test.path, *options.mapping),
        output,
        cost_of("test", test.images, pixels),
    )
