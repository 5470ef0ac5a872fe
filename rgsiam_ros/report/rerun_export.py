"""Write a replay as a Rerun recording: images, tracks, poses with covariance, and lost frames."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rgsiam_ros.camera.levels import Levels
from rgsiam_ros.errors import ImageError, ResultsError
from rgsiam_ros.geometry.conversions import quaternion_xyzw_of
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.recordings.rosbag import Drive, RecordedImage
from rgsiam_ros.report.records import FrameRecord, ReplayRecord

TRUE, ESTIMATED, LOST = (140, 140, 140), (31, 119, 180), (255, 127, 14)
SIGMAS = 2.0
"""Half axes of the drawn ellipsoid, in standard deviations."""


def check_rerun_file(path: Path) -> None:
    """Raise ResultsError if no recording can be written to `path`. Call it before the replay."""
    if find_spec("rerun") is None:
        raise ResultsError("--rerun needs the Rerun SDK: pip install 'rgsiam_ros[rerun]'")
    if path.exists():
        raise ResultsError(f"{path} exists: choose another --rerun or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{path.parent} cannot be created ({error}): change --rerun") from error


def write_rerun_file(
    record: ReplayRecord,
    drive: Drive,
    path: Path,
    title: str,
    *,
    images: bool,
    levels: Levels | None = None,
) -> None:
    """Write the recording. The file appears under its name when it is complete.

    drive: the drive that `record` is from; title: the recording's id; images: write the camera's images too; levels:
    of 16-bit images, those of the bundle. Raises ResultsError.
    """
    import rerun

    unfinished = path.with_name(f".{path.name}.unfinished")
    stream = rerun.RecordingStream("rgsiam_replay", recording_id=title)
    try:
        stream.save(unfinished)
        _log(stream, record, drive, images, levels)
        stream.flush()
        stream.disconnect()
        unfinished.rename(path)
    except (OSError, RuntimeError) as error:
        stream.disconnect()
        unfinished.unlink(missing_ok=True)
        raise ResultsError(f"{path} cannot be written ({error}): free space") from error


def _log(
    stream: Any, record: ReplayRecord, drive: Drive, images: bool, levels: Levels | None
) -> None:
    import rerun

    def track(name: str, poses: list[Any], colour: tuple[int, int, int]) -> None:
        positions = [T[:3, 3] for T in poses if T is not None]
        stream.log(f"map/{name}", rerun.Points3D(positions, colors=[colour]), static=True)

    track("true", [frame.T_true for frame in record.frames], TRUE)
    track("estimated", [frame.T_map_frame for frame in record.frames], ESTIMATED)
    track("lost", [frame.T_withheld for frame in record.frames], LOST)
    by_stamp = {frame.stamp_ns: frame for frame in record.frames}
    for image in drive.read_images():
        stream.set_time("stamp", timestamp=np.datetime64(image.stamp_ns, "ns"))
        if images:
            _log_image(stream, image, levels)
        if image.stamp_ns in by_stamp:
            _log_frame(stream, by_stamp[image.stamp_ns])


def _log_image(stream: Any, image: RecordedImage, levels: Levels | None) -> None:
    import rerun

    try:
        jpeg = cv2.imencode(".jpg", image.decode(levels=levels))[1].tobytes()
        stream.log("camera", rerun.EncodedImage(contents=jpeg, media_type="image/jpeg"))
    except ImageError as error:
        stream.log("status", rerun.TextLog(str(error), level="WARN"))


def _log_frame(stream: Any, frame: FrameRecord) -> None:
    import rerun

    level = "INFO" if frame.T_map_frame is not None else "WARN"
    stream.log("status", rerun.TextLog(frame.problem or "localised", level=level))
    if frame.trust is not None:
        stream.log("plots/trust", rerun.Scalars(frame.trust))
    T = frame.T_map_frame
    if T is None:
        stream.log("map/pose", rerun.Clear(recursive=True))
        return
    rotation = rerun.Quaternion(xyzw=quaternion_xyzw_of(T))
    pose = rerun.Transform3D(translation=T[:3, 3], quaternion=rotation)
    stream.log("map/pose", pose, rerun.TransformAxes3D(2.0))
    if frame.covariance_66 is not None:
        variances, axes = np.linalg.eigh(frame.covariance_66[:3, :3])
        axes[:, 0] *= np.sign(np.linalg.det(axes))  # a rotation must be right-handed
        turn = np.eye(4)
        turn[:3, :3] = axes
        sigmas = np.sqrt(np.maximum(variances, 0.0))
        ellipsoid = rerun.Ellipsoids3D(
            centers=[T[:3, 3]],
            half_sizes=[SIGMAS * sigmas],
            quaternions=[rerun.Quaternion(xyzw=quaternion_xyzw_of(turn))],
            colors=[ESTIMATED],
        )
        stream.log("map/covariance", ellipsoid)
        stream.log("plots/sigma_m", rerun.Scalars(float(sigmas.max())))
    if frame.T_true is not None:
        metres, radians = pose_errors(T, frame.T_true)
        stream.log("plots/error_m", rerun.Scalars(float(metres)))
        stream.log("plots/error_deg", rerun.Scalars(float(np.degrees(radians))))
