"""Replay a drive straight through the relocalizer: deterministic, and as fast as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from rgsiam_ros.bags import Drive
from rgsiam_ros.covariance import move_to_body_point
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.geometry import Array, invert
from rgsiam_ros.relocalizer import Relocalizer
from rgsiam_ros.replay.records import FrameRecord, ReplayRecord


def replay_offline(
    drive: Drive, relocalizer: Relocalizer, progress: Callable[[int], None] = lambda _: None
) -> ReplayRecord:
    """Relocalize every image of a drive; reports base_link through the bag's mount.

    Without a mount in the bag the camera's pose is reported. A bad image leaves a frame without an
    answer and the reason; it never ends the replay. progress: called with the number of frames done.
    """
    if drive.camera is not None:
        relocalizer.use_camera(drive.camera)
    frames = []
    for image in drive.read_images():
        started = time.perf_counter()
        try:
            image_HW3 = image.decode()
            decoded_ms = (time.perf_counter() - started) * 1e3
            estimate = relocalizer.estimate(image_HW3)
        except RgsiamError as error:
            frames.append(FrameRecord(image.stamp_ns, problem=str(error)))
        else:
            T, covariance = report_pose(
                estimate.T_map_camera, estimate.covariance_66, drive.T_base_camera
            )
            timings = {"decode": decoded_ms, **estimate.timings_ms}
            timings["total"] = (time.perf_counter() - started) * 1e3
            frames.append(
                FrameRecord(
                    image.stamp_ns,
                    T,
                    covariance,
                    timings_ms=timings,
                    branch=estimate.branch,
                    disagreement=estimate.disagreement,
                )
            )
        progress(len(frames))
    reported = drive.camera_frame if drive.T_base_camera is None else drive.base_frame
    return with_truth(ReplayRecord(frames, reported, relocalizer.manifest.map_frame), drive)


def report_pose(
    T_map_camera: Array, covariance_66: Array, T_base_camera: Array | None
) -> tuple[Array, Array]:
    """Pose and covariance of the reported frame: the vehicle where the mount is known."""
    if T_base_camera is None:
        return T_map_camera, covariance_66
    T_camera_base = invert(T_base_camera)
    covariance = move_to_body_point(covariance_66, T_map_camera, T_camera_base)
    return T_map_camera @ T_camera_base, covariance


def with_truth(record: ReplayRecord, drive: Drive) -> ReplayRecord:
    """The record with the drive's true poses filled in, where the bag has them.

    Without a mount the camera's pose is reported, and the vehicle's true poses say nothing of it.
    """
    stamps = [frame.stamp_ns for frame in record.frames]
    T_map_base, known = drive.true_base_poses(stamps)
    frames = [
        replace(
            frame, T_true=T_map_base[i] if known[i] and drive.T_base_camera is not None else None
        )
        for i, frame in enumerate(record.frames)
    ]
    return ReplayRecord(frames, record.reported_frame, record.map_frame)
