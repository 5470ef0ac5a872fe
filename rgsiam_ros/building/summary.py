"""What a build found, in words: what the bundle can be trusted with, where the reports are, what to do next."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from rgsiam_ros.building.comparison import read_comparison
from rgsiam_ros.building.plan import BuildOptions, Plan, Stage
from rgsiam_ros.building.state import State
from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.doubts import doubts
from rgsiam_ros.geometry.units import length_text
from rgsiam_ros.replay.progress import duration_text

MOST_FINDINGS = 5
"""Most findings of one inspection that are shown. All are in its inspection.json."""
REPORTS = ("report.html", "replay.png")
"""Files of a results folder to look at, the best one first."""


def summary_lines(options: BuildOptions, plan: Plan, state: State, chosen: Bundle) -> list[str]:
    """The summary of a finished build. chosen: the bundle at ``--out``."""
    seconds = sum(
        state.finished[s.name]["seconds"] for s in plan.stages if s.name in state.finished
    )
    trained = chosen.path == (plan.export.output if plan.export else None)
    what = "the map with the trained absolute branch" if trained else "the map"
    lines = ["", f"{options.out} holds {what}; all stages took {duration_text(seconds)}"]
    geometry = chosen.manifest.geometric_part
    if (found := geometry.validation) is not None:
        lines.append(
            f"validation, {found.frames} held-out images: {found.right:.1%} right, {found.wrong:.1%} wrong, "
            f"{found.answered:.1%} answered; median {length_text(found.median_m)} and {found.median_deg:.2f} deg, 95 % "
            f"within {length_text(found.p95_m)}"
        )
    lines += _comparison_lines(plan, state)
    if geometry.time_offset_from == "estimated":
        lines.append(
            f"the labels were moved by {1e3 * geometry.time_offset_s:.0f} ms, as the images show"
        )
    if (refined := geometry.pose_refinement) is not None:
        lines.append(
            f"the poses were refined: moved by {length_text(refined.moved_median_m)} (median)"
        )
    lines += [f"doubt: {text}" for text in doubts(chosen.manifest)]
    for stage in plan.inspections:
        lines += _findings(stage)
    for stage in plan.replays:
        lines += _test_lines(stage)
    if plan.report is not None:
        lines.append(f"all tests on one page: {plan.report.output}")
    lines += [f"left out: {text}" for text in plan.left_out]
    lines.append(
        f"summary: {options.work / 'summary.txt'}; everything else of the build: {options.work}"
    )
    launch = shlex.join([f"bundle:={options.out.resolve()}", *plan.launch_arguments])
    return [*lines, f"next: ros2 launch rgsiam_ros relocalize.launch.py {launch}"]


def _comparison_lines(plan: Plan, state: State) -> list[str]:
    """What the map and the trained bundle publish; or why there is no trained one."""
    if plan.training is None or plan.comparison is None:
        return []
    if state.finished[plan.training.name]["status"]:
        return ["left out: training: the budget is too small, see training.log"]
    of_map, of_trained = read_comparison(plan.comparison.output)
    return [
        "the same images with their neighbours in the map and in the training, by which the bundle was chosen:",
        f"  map:     {of_map.describe()}",
        f"  trained: {of_trained.describe()}",
    ]


def _findings(stage: Stage) -> list[str]:
    """The first findings of an inspection."""
    path = stage.output / "inspection.json"
    found = _read(path).get("look_at_these", [])
    more = [f"  {len(found) - MOST_FINDINGS} more: {path}"] if len(found) > MOST_FINDINGS else []
    shown = [f"  {text}" for text in found[:MOST_FINDINGS]]
    count = "1 finding" if len(found) == 1 else f"{len(found)} findings"
    return [f"{stage.name} of {stage.inputs[0]}: {count}", *shown, *more]


def _test_lines(stage: Stage) -> list[str]:
    """The figures of a test, and where its report is."""
    metrics = _read(stage.output / "metrics.json")
    answered = f"{metrics['availability']:.1%} of {metrics['frames']} images answered"
    report = next((stage.output / n for n in REPORTS if (stage.output / n).is_file()), stage.output)
    lines = [f"{stage.name}, {stage.inputs[0]}: {answered}{_errors(metrics)}; report: {report}"]
    if moved := metrics.get("with_time_offset"):
        lines.append(
            f"  with labels moved by {1e3 * moved['time_offset_s']:.0f} ms{_errors(moved)}"
        )
    return lines


def _errors(figures: dict[str, Any]) -> str:
    metres, degrees = figures["position_error_m"], figures["rotation_error_deg"]
    if not figures["frames_with_truth"] or metres is None:
        return "; no true poses, so no errors" if not figures["frames_with_truth"] else ""
    return (
        f", {figures['right']:.1%} right, {figures['wrong']:.1%} wrong; median {length_text(metres['median'])} and "
        f"{degrees['median']:.2f} deg, 95 % within {length_text(metres['p95'])}"
    )


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
