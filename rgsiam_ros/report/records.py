"""The record of a replay: image stamps, poses and true poses, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.uncertainty.pose_quality import GeometricQuality


@dataclass(frozen=True)
class FrameRecord:
    """One image and its pose."""

    stamp_ns: int
    T_map_frame: Array | None = None
    """Estimated ``(4, 4)`` pose of the reported frame, metres; None if no pose was published."""
    covariance_66: Array | None = None
    """About fixed axes of the map, x y z rotX rotY rotZ; metres and radians."""
    T_true: Array | None = None
    """True ``(4, 4)`` pose of the reported frame, metres; None if it is unknown."""
    timings_ms: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    """Why no pose was published; empty if one was."""
    branch: str = ""
    """The branch that the pose is from; empty if it is unknown."""
    geometric_quality: GeometricQuality | None = None
    """The figures that only a pose of the geometric branch has."""
    trust: float | None = None
    """Trust score minus threshold, below 0 if the vehicle is lost; None if it is unknown."""
    feature_distance: float | None = None
    """Distance of the image's metric feature to that of the most similar map image; None if it is unknown."""
    T_withheld: Array | None = None
    """``(4, 4)`` pose in the map frame, metres, that was not published because the vehicle was lost."""
    name: str = ""
    """Name of the image in its dataset; empty if it has none."""

    @property
    def T_estimated(self) -> Array | None:
        """The pose, published or withheld; None without one."""
        return self.T_withheld if self.T_map_frame is None else self.T_map_frame


@dataclass(frozen=True)
class ReplayRecord:
    """All frames of a replay, in the order in which they were recorded."""

    frames: list[FrameRecord]
    reported_frame: str
    """Frame id whose pose is reported: the vehicle's, or the camera's if its mount is unknown."""
    map_frame: str

    def complete_frames(self) -> list[FrameRecord]:
        """The frames that have a pose, a covariance and a true pose."""
        return [
            frame
            for frame in self.frames
            if frame.T_map_frame is not None
            and frame.T_true is not None
            and frame.covariance_66 is not None
        ]

    def errors(self) -> tuple[Array, Array, np.ndarray]:
        """Errors ``(M,)`` in metres and radians of the frames with pose and true pose, and their indices."""
        both = [
            (i, frame.T_map_frame, frame.T_true)
            for i, frame in enumerate(self.frames)
            if frame.T_map_frame is not None and frame.T_true is not None
        ]
        if not both:
            return np.zeros(0), np.zeros(0), np.zeros(0, int)
        indices, estimated, true = zip(*both, strict=True)
        metres, radians = pose_errors(np.stack(estimated), np.stack(true))
        return metres, radians, np.array(indices)
