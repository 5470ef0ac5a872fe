"""Replay a bag, offline or through the node, and write a results folder: the command `rgsiam replay`."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.errors import FusionError
from rgsiam_ros.fusion.report import LABELS, Tracks, describe_track, gps_state, report_tracks
from rgsiam_ros.fusion.robot_localization import FusionSetup, check_setup
from rgsiam_ros.geometry.conversions import stamp_to_ns
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.geometry.units import angle_text, length_text
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.ground_truth import drive_in_map
from rgsiam_ros.recordings.rosbag import Drive, read_drive, read_messages
from rgsiam_ros.recordings.seen_data import built_from, describe_seen, fingerprint_of_bag
from rgsiam_ros.replay.offline import replay_offline, with_truth
from rgsiam_ros.replay.options import ReplayOptions
from rgsiam_ros.replay.progress import progress_bar
from rgsiam_ros.report.chosen_frames import ChosenFrames
from rgsiam_ros.report.gallery import make_gallery
from rgsiam_ros.report.map_images import open_map_data
from rgsiam_ros.report.metrics import metrics_with_offset, replay_metrics
from rgsiam_ros.report.provenance import provenance_of, version_of
from rgsiam_ros.report.records import ReplayRecord
from rgsiam_ros.report.rerun_export import check_rerun_file, write_rerun_file
from rgsiam_ros.report.results import (
    all_or_nothing,
    claim_folder,
    print_in_red,
    print_table,
    write_results,
)


def run_replay(
    bag: Path, bundle: Path, out: Path, options: ReplayOptions, console: Console
) -> dict[str, Any]:
    """Replay `bag` with `bundle`, write the results folder `out` and print a table. Returns the metrics.

    The drive is always replayed offline. With ``options.ros`` it is replayed through the node too, and the
    poses are compared image by image. Raises RgsiamError if bag, bundle or folder cannot be used.
    """
    if options.rerun is not None:
        check_rerun_file(options.rerun)
    relocalizer = Relocalizer.from_bundle(bundle, options.engine, branch=options.branch)
    drive = drive_in_map(read_drive(bag, options.topics), relocalizer.manifest)
    mapped = open_map_data(options.map_data, options.topics, relocalizer.manifest)
    if options.with_filter:
        options = replace(
            options, fusion=_fusion_setup(options.fusion, drive, relocalizer.manifest)
        )
    claim_folder(out)
    data = fingerprint_of_bag(bag, options.topics)
    config = _effective_config(bag, bundle, relocalizer, options, data)
    known = len(drive.truth_stamps_ns) > 0 and drive.T_base_camera is not None
    chosen = ChosenFrames(relocalizer, with_truth=known, images=options.images)
    offline = _offline_with_progress(drive, chosen, options.engine.batch, console)
    extra: dict[str, Any] = {}
    if options.ros:
        from rgsiam_ros.replay.ros import replay_through_node

        played, counts, tracks = replay_through_node(drive, bundle, options, console)
        record = replace(played, frames=with_truth(played.frames, drive))
        extra = {"lost": counts["lost"], "ros": difference_to_offline(offline, record) | counts}
        if tracks:
            with all_or_nothing(out) as folder:
                extra["fusion"] = _report_tracks(tracks, drive, options, folder, config["title"])
    else:
        record = offline
    relocalizer.close()
    # the table is printed before files are written, so that a full disk does not lose it
    seen = built_from(relocalizer.manifest, data)
    limits = relocalizer.manifest.limits
    metrics = replay_metrics(record, limits) | {"seen_in_training": seen} | extra
    metrics["bundle_doubts"] = list(relocalizer.doubts)
    if offset_s := relocalizer.manifest.labels.offset_or(options.time_offset):
        T_true = [frame.T_true for frame in with_truth(record.frames, drive, offset_s)]
        metrics |= metrics_with_offset(record, T_true, offset_s, limits)
    print_table(metrics, console, config["title"])
    warning = describe_seen(relocalizer.manifest) if seen else ""
    print_in_red([*([warning] if seen else []), *relocalizer.doubts], console)
    if options.ros:
        ros = extra["ros"]
        console.print(
            f"through the node: {ros['returned']} poses for {ros['sent']} images, "
            f"{ros['returned_share']:.1%} of the {ros['expected']} expected; {_without_pose(ros)}; largest difference from "
            f"offline {length_text(ros['largest_difference_m'])}, "
            f"{angle_text(ros['largest_difference_deg'])}",
            soft_wrap=True,
        )
    for name, figures in extra.get("fusion", {}).items():
        if isinstance(figures, dict):
            console.print(f"fused, {LABELS[name]}: {describe_track(figures)}", soft_wrap=True)
    write_results(record, metrics, config, make_gallery(chosen, mapped), out, warning)
    if options.rerun is not None:
        write_rerun_file(
            record,
            drive,
            options.rerun,
            config["title"],
            images=options.images,
            levels=relocalizer.levels,
        )
        console.print(f"recording: {options.rerun}", soft_wrap=True)
    for name, file in (("picture", "replay.png"), ("report", "report.html")):
        console.print(f"{name}: {out / file}", soft_wrap=True)
    console.print(f"results: {out}", soft_wrap=True)
    return metrics


def _without_pose(ros: dict[str, Any]) -> str:
    """What became of the images without a pose, and what to do."""
    text = (
        f"{ros['lost']} lost, {ros['rejected']} rejected, {ros['skipped']} skipped because the node was busy, "
        f"{ros['never_arrived']} never arrived"
    )
    if ros["skipped"]:
        text += " (the machine is too slow for this --rate: give a smaller one)"
    if ros["never_arrived"]:
        text += " (see docs/node.md, Large raw images)"
    return text


def difference_to_offline(offline: ReplayRecord, through_node: ReplayRecord) -> dict[str, Any]:
    """Largest differences between the node's poses and the offline ones, over the stamps that both have."""
    expected = {f.stamp_ns: f.T_map_frame for f in offline.frames if f.T_map_frame is not None}
    returned = {f.stamp_ns: f.T_map_frame for f in through_node.frames if f.T_map_frame is not None}
    pairs = [(T, expected[stamp]) for stamp, T in returned.items() if stamp in expected]
    result: dict[str, Any] = {
        "sent": len(through_node.frames),
        "expected": len(expected),
        "returned": len(returned),
        "returned_share": len(pairs) / len(expected) if expected else 1.0,
        "compared": len(pairs),
        "largest_difference_m": 0.0,
        "largest_difference_deg": 0.0,
    }
    if pairs:
        estimated, reference = (np.stack(poses) for poses in zip(*pairs, strict=True))
        metres, radians = pose_errors(estimated, reference)
        result["largest_difference_m"] = float(metres.max())
        result["largest_difference_deg"] = float(np.degrees(radians.max()))
    return result


def _fusion_setup(chosen: FusionSetup | None, drive: Drive, manifest: Manifest) -> FusionSetup:
    """Sources, topics and frames for the filters. Raises FusionError if they do not fit bundle and drive."""
    setup = chosen or FusionSetup(
        map_frame=manifest.map_frame,
        base_frame=drive.base_frame,
        sources=("visual",) if manifest.datum is None else FusionSetup.sources,
    )
    if setup.base_frame != drive.base_frame:
        raise FusionError(
            f"the filters' vehicle frame is {setup.base_frame}, but the replay's is {drive.base_frame}: give "
            f"--base-frame {setup.base_frame}"
        )
    check_setup(manifest, setup)
    return setup


def _report_tracks(
    tracks: Tracks, drive: Drive, options: ReplayOptions, out: Path, title: str
) -> dict[str, Any]:
    fixes: list[Any] = []
    if options.fusion is not None and "gps" in options.fusion.sources:
        _, fixes = read_messages(drive.path, options.fusion.gps_topic, "fix")
    stamps = np.array([stamp_to_ns(message.header.stamp) for message in fixes], np.int64)
    return report_tracks(tracks, drive, (stamps, gps_state(fixes)), out, title)


def _offline_with_progress(
    drive: Drive, chosen: ChosenFrames, batch: int, console: Console
) -> ReplayRecord:
    with progress_bar(console) as bar:
        task = bar.add_task("offline", total=drive.images)
        show = partial(bar.update, task)
        return replay_offline(
            drive, chosen.relocalizer, lambda done: show(completed=done), batch, chosen
        )


def _effective_config(
    bag: Path, bundle: Path, relocalizer: Relocalizer, options: ReplayOptions, data: str | None
) -> dict[str, Any]:
    mode = f"through the node at rate {options.rate:g}" if options.ros else "offline"
    manifest = relocalizer.manifest
    return {
        "title": f"{bag.name}, bundle {manifest.name}, {mode}",
        "rgsiam_ros": version_of("rgsiam_ros"),
        "bag": str(bag),
        "bundle": str(bundle),
        "bundle_created": manifest.created,
        "network_sha256": manifest.files[relocalizer.engine.file].sha256,
        "branch_in_use": relocalizer.branch,
        "engine_in_use": asdict(relocalizer.describe_engine()),
        "provenance": provenance_of(relocalizer, bag, data),
        "options": _plain(asdict(options)),
    }


def _plain(value: Any) -> Any:
    """Paths as text and tuples as lists, so that YAML can hold them."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
