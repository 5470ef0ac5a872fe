"""Replay a drive through the relocalizer without ROS, as fast as possible. The result is deterministic."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Protocol

from rgsiam_ros.camera.levels import Levels
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.rosbag import Drive
from rgsiam_ros.report.chosen_frames import ChosenFrames
from rgsiam_ros.report.records import FrameRecord, ReplayRecord
from rgsiam_ros.uncertainty.covariance import vehicle_pose


class EncodedImage(Protocol):
    """An image of a bag or a dataset."""

    def decode(
        self, enough: tuple[int, int] | None = None, levels: Levels | None = None
    ) -> ImageBGR:
        """The image ``(H, W, 3)`` uint8 BGR. Raises ImageError.

        enough, levels: see `rgsiam_ros.camera.decoding.decode_message`.
        """
        ...


def replay_offline(
    drive: Drive,
    relocalizer: Relocalizer,
    progress: Callable[[int], None] = lambda _: None,
    batch: int = 1,
    chosen: ChosenFrames | None = None,
) -> ReplayRecord:
    """Relocalize every image of a drive.

    Reports poses of the vehicle, or of the camera if the bag has no mount. A bad image gives a frame without
    a pose, with the reason. progress: called with the number of finished frames; batch: the batch size that
    the relocalizer was started with; chosen: sees every localized frame. Raises CameraError if the drive's camera does
    not fit the bundle.
    """
    if drive.camera is not None:
        relocalizer.use_camera(drive.camera)
    reported = drive.camera_frame if drive.T_base_camera is None else drive.base_frame
    frames: list[FrameRecord] = []
    images = iter(drive.read_images())
    while group := list(islice(images, batch)):
        images_or_errors, decode_ms = [], []
        for image in group:
            began = time.perf_counter()
            images_or_errors.append(decoded(image, relocalizer.enough, relocalizer.levels))
            decode_ms.append((time.perf_counter() - began) * 1e3)
        estimates = relocalizer.estimate_many(images_or_errors)
        records = [
            _record(image.stamp_ns, estimate, ms, drive)
            for image, estimate, ms in zip(group, estimates, decode_ms, strict=True)
        ]
        for frame, estimate, image_or_error in zip(
            with_truth(records, drive), estimates, images_or_errors, strict=True
        ):
            if chosen is not None and not isinstance(estimate, RgsiamError):
                assert not isinstance(image_or_error, RgsiamError)
                T = frame.T_true
                if T is not None and drive.T_base_camera is not None:
                    T = T @ drive.T_base_camera
                chosen.see(len(frames), frame, estimate, image_or_error, T)
            frames.append(frame)
            progress(len(frames))
    return ReplayRecord(frames, reported, relocalizer.manifest.map_frame)


def decoded(
    image: EncodedImage, enough: tuple[int, int] | None = None, levels: Levels | None = None
) -> ImageBGR | RgsiamError:
    """The decoded image, or the error of decoding it. enough, levels: see `EncodedImage.decode`."""
    try:
        return image.decode(enough, levels)
    except RgsiamError as error:
        return error


def _record(
    stamp_ns: int, estimate: PoseEstimate | RgsiamError, decode_ms: float, drive: Drive
) -> FrameRecord:
    if isinstance(estimate, RgsiamError):
        return FrameRecord(stamp_ns, problem=str(estimate))
    T, covariance = estimate.T_map_camera, estimate.covariance_66
    if drive.T_base_camera is not None:  # without the mount, the camera's pose is reported
        T, covariance = vehicle_pose(T, covariance, drive.T_base_camera)
    timings = {"decode": decode_ms, **estimate.timings_ms}
    timings["total"] = sum(timings.values())
    return record_of(stamp_ns, estimate, T, covariance, timings)


def record_of(
    stamp_ns: int,
    estimate: PoseEstimate,
    T_map_frame: Array,
    covariance_66: Array,
    timings_ms: dict[str, float],
    T_true: Array | None = None,
) -> FrameRecord:
    """The record of an estimate. If the vehicle is lost, the pose is recorded as withheld.

    T_map_frame: ``(4, 4)`` pose of the reported frame, metres; covariance_66: about fixed axes of the map.
    """
    return FrameRecord(
        stamp_ns,
        None if estimate.lost else T_map_frame,
        covariance_66,
        T_true,
        timings_ms,
        problem=estimate.why_lost,
        branch=estimate.branch,
        geometric_quality=estimate.quality.geometric_quality,
        trust=estimate.trust,
        feature_distance=estimate.quality.feature_distance,
        T_withheld=T_map_frame if estimate.lost else None,
    )


def with_truth(
    frames: Sequence[FrameRecord], drive: Drive, offset_s: float = 0.0
) -> list[FrameRecord]:
    """The frames with the drive's true poses, as far as the bag has them.

    offset_s: the true poses are those of this many seconds before the stamps.

    Without a mount no true pose is added, because the bag has true poses of the vehicle only.
    """
    stamps = [frame.stamp_ns - round(offset_s * 1e9) for frame in frames]
    T_map_base, known = drive.true_base_poses(stamps)
    return [
        replace(
            frame, T_true=T_map_base[i] if known[i] and drive.T_base_camera is not None else None
        )
        for i, frame in enumerate(frames)
    ]
