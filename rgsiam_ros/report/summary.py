"""A run in words: what its poses can be trusted with, and where not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from rgsiam_ros.geometry.units import length_text
from rgsiam_ros.report.figure_style import degrees_text
from rgsiam_ros.report.records import ReplayRecord
from rgsiam_ros.report.series import Series
from rgsiam_ros.report.stretches import GOOD, UNSURE, Stretch, kinds_of, stretches_of
from rgsiam_ros.uncertainty.geometric_trust import RIGHT_DEG, ErrorLimits

TRUE_NEES = (0.8, 1.25)
"""Where the NEES per degree of freedom is this near to 1, the covariance is true, whatever its interval."""
PERHAPS = (0.5, 2.0)
"""Where it is this near, the covariance is true if 1 lies in the interval."""
MOST_STRETCHES = 10


class Grade(str, Enum):
    """How a finding bears on the use of the poses."""

    good = "good"
    doubt = "doubt"
    bad = "bad"
    plain = "plain"


@dataclass(frozen=True)
class Finding:
    """One sentence or two of the summary."""

    grade: Grade
    text: str
    items: tuple[str, ...] = ()
    """A list that follows the text."""


def summarise_run(
    record: ReplayRecord, series: Series, metrics: Mapping[str, Any], seen: str
) -> list[Finding]:
    """The findings of a run, the gravest warnings first.

    metrics: see `rgsiam_ros.report.metrics.replay_metrics`; seen: what to say if the bundle was built from the same
    data, empty if it was not.
    """
    limits = ErrorLimits(metrics["limits"]["right_m"], metrics["limits"]["wrong_m"])
    findings = [Finding(Grade.bad, _sentence(doubt)) for doubt in metrics["bundle_doubts"]]
    if seen:
        findings.append(Finding(Grade.bad, _sentence(seen)))
    findings += [_usable(series, limits), _answered(metrics)]
    if metrics["frames_with_truth"]:
        findings += _errors(metrics, metrics, limits)
        if moved := metrics.get("with_time_offset"):
            how = f"With the labels moved by {1e3 * moved['time_offset_s']:.0f} ms: "
            findings += [Finding(f.grade, how + f.text) for f in _errors(moved, metrics, limits)]
    else:
        findings.append(
            Finding(
                Grade.doubt,
                "The data has no true poses, so no errors can be given. Standard deviations and trust are what the bundle "
                "says about itself.",
            )
        )
    findings += _spread(series, limits)
    for name in ("position", "rotation"):
        moved = metrics.get("with_time_offset")
        how = " (labels moved)" if moved else ""
        findings += _covariance(name, (moved or metrics)["consistency"], how)
    findings.append(_where_not(record, series, limits))
    if "ros" in metrics:
        findings.append(_through_node(metrics["ros"]))
    return findings


def _answered(metrics: Mapping[str, Any]) -> Finding:
    share = metrics["availability"]
    grade = Grade.good if share >= 0.95 else Grade.doubt if share >= 0.5 else Grade.bad
    text = f"{metrics['answered']} of {metrics['frames']} images ({share:.1%}) got a pose."
    if metrics["lost"]:
        text += f" In {metrics['lost']} images the vehicle was lost, and the pose was withheld."
    return Finding(grade, text)


def _errors(
    figures: Mapping[str, Any], metrics: Mapping[str, Any], limits: ErrorLimits
) -> Iterator[Finding]:
    metres, degrees = figures["position_error_m"], figures["rotation_error_deg"]
    if metres is None:
        yield Finding(Grade.bad, "No image has both a pose and a true pose: there are no errors.")
        return
    known = figures["frames_with_truth"]
    grade = Grade.good if figures["right"] >= 0.9 else Grade.doubt
    yield Finding(
        grade,
        f"Half of the poses are within {length_text(metres['median'])} and {degrees_text(degrees['median'])} of the true "
        f"ones, 95 % within {length_text(metres['p95'])} and {degrees_text(degrees['p95'])}. "
        f"{figures['right']:.1%} of the {known} images with a true pose are right: within {limits.right_m:g} m and "
        f"{RIGHT_DEG:g}°.",
    )
    wrong = round(figures["wrong"] * known)
    bound = f"off by more than {limits.wrong_m:g} m or {metrics['limits']['wrong_deg']:g}°"
    if not wrong:
        yield Finding(Grade.good, f"No published pose is wrong ({bound}).")
    else:
        verb = "pose is" if wrong == 1 else "poses are"
        yield Finding(
            Grade.doubt if figures["wrong"] < 0.01 else Grade.bad,
            f"{wrong} published {verb} wrong ({bound}), {figures['wrong']:.1%} of the images. "
            f"The largest error is {length_text(metres['max'])}.",
        )


def _spread(series: Series, limits: ErrorLimits) -> Iterator[Finding]:
    sigma = series.sigma_m_N[np.isfinite(series.sigma_m_N)]
    if not len(sigma):
        yield Finding(Grade.doubt, "The poses have no covariance.")
        return
    unsure = int((kinds_of(series, limits) == UNSURE).sum())
    angle = float(np.nanmedian(series.sigma_deg_N))
    text = (
        f"Half of the poses state a standard deviation of at most {length_text(float(np.median(sigma)))} and "
        f"{degrees_text(angle)}"
    )
    if unsure:
        text += (
            f"; {unsure} state more than {limits.right_m:g} m or {RIGHT_DEG:g}°: use them with their covariance, or "
            "not at all"
        )
    yield Finding(Grade.doubt if unsure else Grade.plain, f"{text}.")


def _covariance(name: str, consistency: Mapping[str, Any] | None, how: str) -> Iterator[Finding]:
    if consistency is None:
        return
    nees, low, high = consistency[name]["nees"]
    interval = ", too few images for an interval"
    if low is not None:
        interval = f", 95 % interval {low:.2f} to {high:.2f}"
    figures = f"(NEES per degree of freedom {nees:.2f}{interval}; 1 is right)"
    holds = low is not None and low <= 1.0 <= high
    if TRUE_NEES[0] <= nees <= TRUE_NEES[1] or (holds and PERHAPS[0] <= nees <= PERHAPS[1]):
        text = f"The {name} covariance{how} is true: errors are as large as it says {figures}."
        yield Finding(Grade.good, text)
    elif holds:
        text = f"Whether the {name} covariance{how} is true cannot be told: a few large errors decide {figures}."
        yield Finding(Grade.doubt, text)
    elif nees > 1.0:
        text = (
            f"The {name} covariance{how} is too small: errors are {np.sqrt(nees):.1f} times as large as its standard "
            f"deviations {figures}. A filter should enlarge them by that."
        )
        yield Finding(Grade.doubt, text)
    else:
        text = f"The {name} covariance{how} is too large, which is the safe side: errors are {np.sqrt(nees):.1f} times its standard deviations {figures}."
        yield Finding(Grade.plain, text)


def _usable(series: Series, limits: ErrorLimits) -> Finding:
    """On how much of the way there is a pose to rely on."""
    step_m_N = np.diff(series.metres_N, prepend=series.metres_N[:1])
    good_N = kinds_of(series, limits) == GOOD
    good_m, all_m = float(step_m_N[good_N].sum()), float(step_m_N.sum())
    share = good_m / all_m if all_m > 0.0 else float(good_N.mean()) if len(good_N) else 0.0
    where = f"On {share:.0%} of the way ({length_text(good_m)} of {length_text(all_m)})"
    if all_m == 0.0:
        where = f"In {share:.0%} of the images"
    not_wrong = "not wrong, and " if series.with_truth else ""
    grade = Grade.good if share >= 0.95 else Grade.doubt if share >= 0.5 else Grade.bad
    return Finding(
        grade,
        f"{where} there is a pose to rely on: published, {not_wrong}with a standard deviation of at most "
        f"{limits.right_m:g} m and {RIGHT_DEG:g}°.",
    )


def _where_not(record: ReplayRecord, series: Series, limits: ErrorLimits) -> Finding:
    found = stretches_of(record, series, limits)
    if not found:
        return Finding(
            Grade.good, "No stretch is lost or wrong, and none has a large standard deviation."
        )
    rest = len(found) - MOST_STRETCHES
    text = f"Do not rely on poses in {'this stretch' if len(found) == 1 else f'these {len(found)} stretches'}"
    text += f", the {MOST_STRETCHES} worst of which are:" if rest > 0 else ":"
    items = tuple(_describe(stretch, record) for stretch in found[:MOST_STRETCHES])
    return Finding(Grade.doubt, text, items)


def _describe(stretch: Stretch, record: ReplayRecord) -> str:
    where = f"{stretch.start_m:.0f} to {stretch.end_m:.0f} m along the drive"
    if stretch.end_m - stretch.start_m < 1.0:
        where = f"{stretch.start_m:.0f} m along the drive"
    if np.isfinite(stretch.place_3).all():
        x, y, z = stretch.place_3
        where += f", near ({x:.1f}, {y:.1f}, {z:.1f}) m in {record.map_frame}"
    counts = (
        (stretch.lost, "without a pose"),
        (stretch.wrong, "wrong"),
        (stretch.unsure, "with a large standard deviation"),
    )
    what = ", ".join(f"{count} {word}" for count, word in counts if count)
    images = "image" if stretch.frames == 1 else "images"
    why = f"; mostly: {stretch.reason}" if stretch.reason else ""
    return f"{where} (images {stretch.first} to {stretch.last}): of {stretch.frames} {images} {what}{why}"


def _through_node(ros: Mapping[str, Any]) -> Finding:
    missed = ros["skipped"] + ros["never_arrived"] + ros["pose_never_arrived"]
    text = (
        f"Through the node: {ros['returned']} poses for {ros['sent']} images; {ros['lost']} images lost, "
        f"{ros['rejected']} rejected, {ros['skipped']} skipped because the node was busy, {ros['never_arrived']} never "
        f"arrived at the node, {ros['pose_never_arrived']} whose pose never arrived. The poses differ from the offline ones by at most "
        f"{length_text(ros['largest_difference_m'])} and {degrees_text(ros['largest_difference_deg'])}."
    )
    return Finding(Grade.doubt if missed else Grade.good, text)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
