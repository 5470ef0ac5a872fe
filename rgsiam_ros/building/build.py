"""Run the stages of a build: those that are done and whose inputs have not changed are left out."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rgsiam_ros.building.comparison import read_comparison
from rgsiam_ros.building.plan import NOTHING_TRAINED, BuildOptions, Plan, Stage, make_plan
from rgsiam_ros.building.process import run_process
from rgsiam_ros.building.sources import open_sources
from rgsiam_ros.building.state import State, claimed
from rgsiam_ros.building.summary import summary_lines
from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.manifest_file import ManifestFile
from rgsiam_ros.bundle.replacing import restore
from rgsiam_ros.bundle.writer import check_name, put_bundle
from rgsiam_ros.errors import BuildError, BundleError, RgsiamError
from rgsiam_ros.recordings.topics import BagTopics
from rgsiam_ros.replay.progress import duration_text

logger = logging.getLogger(__name__)

Say = Callable[[str], None]


def plan_build(options: BuildOptions, topics: BagTopics, missing: str) -> Plan:
    """Check everything that can be checked before the long work, and plan the stages. Writes nothing.

    missing: why there is no training extra, empty if it is installed. Raises the errors of
    `rgsiam_ros.building.sources.open_sources`, BundleError if ``--out`` has a wrong name or is not of this build, and
    BuildError if a folder cannot be written or the disk has too little space.
    """
    check_name(options.out)
    _refuse_foreign(options.out, State.read(options.work))
    if options.config is not None and not options.config.is_file():
        raise BuildError(
            f"{options.config} does not exist: give a YAML of a training configuration"
        )
    parent = next(
        p for p in (options.out.resolve().parent, *options.out.resolve().parents) if p.exists()
    )
    if not os.access(parent, os.W_OK):
        raise BuildError(f"{parent} cannot be written: give another --out")
    plan = make_plan(options, open_sources(options.mapping, options.tests, topics), missing)
    state = State.read(options.work)
    needed_mb = sum(s.cost.disk_mb for s in plan.stages if s.name not in state.finished)
    free_mb = shutil.disk_usage(parent).free / 1e6
    if needed_mb > free_mb:
        raise BuildError(
            f"{parent} has {free_mb:.0f} MB left, and the build needs about {needed_mb:.0f}: free space, or give --out on "
            "another disk"
        )
    return plan


def run_build(options: BuildOptions, plan: Plan, program: Sequence[str], say: Say) -> None:
    """Run the stages that are not done. The bundle of the map is at ``--out`` as soon as it is built.

    program: the command that runs `rgsiam`; say: shows a line. Raises BuildError if a stage fails, and
    KeyboardInterrupt after Ctrl-C; the same build then goes on at that stage.
    """
    waiting = f"another build works in {options.work}: waiting until it ends"
    with claimed(options.work, lambda: say(waiting)) as lock:
        _check_writable(options.out)
        _Build(options, plan, program, say, lock).run()


class _Build:
    """A build in progress."""

    def __init__(
        self, options: BuildOptions, plan: Plan, program: Sequence[str], say: Say, lock: int
    ) -> None:
        self._options, self._plan, self._program, self._say, self._lock = (
            *(options, plan, program, say, lock),
        )
        self._state = State.read(options.work)
        self._version = _version()

    def run(self) -> None:
        """All stages."""
        plan, options = self._plan, self._options
        _refuse_foreign(options.out, self._state)
        for line in plan.left_out:
            self._say(f"left out: {line}")
        for stage in plan.inspections:
            self._do(stage)
        self._do(plan.map)
        mapped = Bundle.load(plan.map.output)
        here = _manifest_at(options.out)
        if here is None or self._state.published.get(here) != mapped.manifest_sha256:
            self._publish(
                mapped, mapped, f"{options.out} holds the map: it can be used from now on"
            )
        chosen = self._train(mapped)
        if _manifest_at(options.out) != chosen.manifest_sha256:
            self._publish(
                chosen, mapped, f"{options.out} now holds the {chosen.path.parent.name} bundle"
            )
        for stage in plan.replays:
            self._do(stage, chosen.manifest_sha256)
        if plan.report is not None:
            self._do(plan.report, chosen.manifest_sha256)
        lines = summary_lines(options, plan, self._state, chosen)
        (options.work / "summary.txt").write_text("\n".join(lines) + "\n")
        for line in lines:
            self._say(line)

    def _train(self, mapped: Bundle) -> Bundle:
        """Train and export, and return the bundle whose published poses are better on validation."""
        plan = self._plan
        if plan.training is None or plan.export is None or plan.comparison is None:
            return mapped
        if self._do(plan.training) == NOTHING_TRAINED:
            return mapped
        self._do(plan.export)
        self._do(plan.comparison)
        of_map, of_trained = read_comparison(plan.comparison.output)
        if of_trained.better_than(of_map):
            return Bundle.load(plan.export.output)
        self._say(
            "the map stays: the trained bundle's published poses are not better on these images"
        )
        return mapped

    def _do(self, stage: Stage, extra: str = "") -> int:
        """Run a stage unless it is done. Returns its exit status: 0, or `NOTHING_TRAINED`."""
        key = stage.key(self._version, extra)
        done = self._state.finished.get(stage.name)
        if done and done["key"] == key and (stage.output.exists() or done["status"]):
            self._say(f"{stage.name}: done before, in {duration_text(done['seconds'])}")
            return int(done["status"])
        command = list(stage.command)
        resumes = (
            self._state.started.get(stage.name) == key
            and stage.checkpoint is not None
            and stage.checkpoint.is_file()
        )
        if resumes:
            command.append("--resume")
        else:
            _remove(stage.output)
        self._state.finished.pop(stage.name, None)
        self._state.started[stage.name] = key
        self._state.write()
        self._say(f"{stage.name}: {'goes on' if resumes else 'starts'}: {stage.text}")
        log = self._options.work / f"{stage.name.replace(' ', '_')}.log"
        began = time.monotonic()
        ended = run_process([*self._program, *command], log, self._lock)
        seconds = time.monotonic() - began
        if ended.status not in (0, NOTHING_TRAINED if stage is self._plan.training else 0):
            how = f"exit status {ended.status}"
            if ended.status < 0:
                how = f"killed by signal {-ended.status}; signal 9 often means too little memory"
            usable = (
                f"; the map in {self._options.out} can be used"
                if _manifest_at(self._options.out)
                else ""
            )
            raise BuildError(
                f"{stage.name} failed ({how}), see above and {log}: the same command goes on there{usable}"
            )
        figures = {"cpu_s": round(ended.cpu_s, 1), "memory_mb": round(ended.memory_mb)}
        self._state.finished[stage.name] = {
            "key": key, "status": ended.status, "seconds": round(seconds, 1), **figures
        }  # fmt: skip
        self._state.write()
        kept = f"kept: {stage.output}" if stage.output.exists() else "nothing to keep"
        self._say(
            f"{stage.name}: done in {duration_text(seconds)} ({duration_text(ended.cpu_s)} of CPU, "
            f"{ended.memory_mb / 1000:.1f} GB of memory); {kept}"
        )
        return ended.status

    def _publish(self, bundle: Bundle, mapped: Bundle, text: str) -> None:
        self._state.published[bundle.manifest_sha256] = mapped.manifest_sha256
        self._state.write()  # before the bundle is there, so that it is never taken for another build's
        put_bundle(bundle, self._options.out)
        self._say(text)


def _refuse_foreign(out: Path, state: State) -> None:
    """Raise BundleError if `out` holds anything that this build did not put there."""
    if not state.folder.exists() and not out.exists():
        return
    restore(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if _manifest_at(out) not in state.published:
        raise BundleError(
            f"{out} exists already, and is not of the build in {state.folder}: choose another --out or remove it"
        )


def _manifest_at(out: Path) -> str | None:
    """SHA-256 of the manifest of the bundle at `out`; None without one."""
    try:
        return ManifestFile.of_bundle(out).sha256
    except RgsiamError:
        return None


def _check_writable(out: Path) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent):
            pass
    except OSError as error:
        raise BuildError(f"{out.parent} cannot be written ({error}): give another --out") from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _version() -> str:
    """Version of the program; a bare checkout has none."""
    try:
        return version("rgsiam_ros")
    except PackageNotFoundError:
        return "not installed"
