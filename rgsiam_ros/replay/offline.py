"""Replay a drive straight through the relocalizer: deterministic, and as fast as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Protocol

from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.geometry.poses import Array, invert
from rgsiam_ros.localization.relocalizer import PoseEstimate, Relocalizer
from rgsiam_ros.recordings.rosbag import Drive
from rgsiam_ros.replay.records import FrameRecord, ReplayRecord
from rgsiam_ros.uncertainty.covariance import move_to_body_point


class EncodedImage(Protocol):
    """An image of a bag or a dataset."""

    def decode(self) -> ImageBGR:
        """The picture."""
        ...


def replay_offline(
    drive: Drive,
    relocalizer: Relocalizer,
    progress: Callable[[int], None] = lambda _: None,
    batch: int = 1,
) -> ReplayRecord:
    """Relocalize every image of a drive; reports base_link through the bag's mount.

    Without a mount in the bag the camera's pose is reported. A bad image leaves a frame without an
    answer and the reason; it never ends the replay. progress: called with the number of frames done;
    batch: images of one inference, as the relocalizer was started with.
    """
    if drive.camera is not None:
        relocalizer.use_camera(drive.camera)
    frames: list[FrameRecord] = []
    images = iter(drive.read_images())
    while group := list(islice(images, batch)):
        pictures, decode_ms = [], []
        for image in group:
            began = time.perf_counter()
            pictures.append(decoded(image))
            decode_ms.append((time.perf_counter() - began) * 1e3)
        answers = relocalizer.estimate_many(pictures)
        for image, answer, ms in zip(group, answers, decode_ms, strict=True):
            frames.append(_record(image.stamp_ns, answer, ms, drive))
            progress(len(frames))
    reported = drive.camera_frame if drive.T_base_camera is None else drive.base_frame
    return with_truth(ReplayRecord(frames, reported, relocalizer.manifest.map_frame), drive)


def decoded(image: EncodedImage) -> ImageBGR | RgsiamError:
    """The picture, or what is wrong with it."""
    try:
        return image.decode()
    except RgsiamError as error:
        return error


def _record(
    stamp_ns: int, answer: PoseEstimate | RgsiamError, decode_ms: float, drive: Drive
) -> FrameRecord:
    if isinstance(answer, RgsiamError):
        return FrameRecord(stamp_ns, problem=str(answer))
    T, covariance = report_pose(answer.T_map_camera, answer.covariance_66, drive.T_base_camera)
    timings = {"decode": decode_ms, **answer.timings_ms}
    timings["total"] = sum(timings.values())
    return record_of(stamp_ns, answer, T, covariance, timings)


def record_of(
    stamp_ns: int,
    answer: PoseEstimate,
    T_map_frame: Array,
    covariance_66: Array,
    timings_ms: dict[str, float],
    T_true: Array | None = None,
) -> FrameRecord:
    """What is kept of an answer: no pose where the vehicle is lost, but what it would have been."""
    return FrameRecord(
        stamp_ns,
        None if answer.lost else T_map_frame,
        covariance_66,
        T_true,
        timings_ms,
        problem=answer.why_lost,
        branch=answer.branch,
        refined_quality=answer.refined_quality,
        trust=answer.trust,
        feature_distance=answer.quality.feature_distance,
        T_withheld=T_map_frame if answer.lost else None,
    )


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
