"""What one replay produced, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.uncertainty.pose_quality import RefinedQuality


@dataclass(frozen=True)
class FrameRecord:
    """One image that went in, and what came out."""

    stamp_ns: int
    T_map_frame: Array | None = None
    """Estimated ``(4, 4)`` pose of the reported frame, or None: no answer."""
    covariance_66: Array | None = None
    """Fixed map axes; metres and radians."""
    T_true: Array | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    """Why there is no answer."""
    branch: str = ""
    """Which branch answered; empty where that is not known."""
    refined_quality: RefinedQuality | None = None
    """How a refined pose stands to its sources."""
    trust: float | None = None
    """Score less threshold; below 0 the vehicle is lost. None where that is not known."""
    feature_distance: float | None = None
    """To the most similar map image."""
    T_withheld: Array | None = None
    """The pose that was not published, because it is not to be believed."""

    @property
    def T_estimated(self) -> Array | None:
        """The pose, published or withheld."""
        return self.T_withheld if self.T_map_frame is None else self.T_map_frame


@dataclass(frozen=True)
class ReplayRecord:
    """All frames of one replay, in the order of their stamps."""

    frames: list[FrameRecord]
    reported_frame: str
    """The frame whose pose is reported: base_link, or the camera where no mount is known."""
    map_frame: str

    def with_both(self) -> list[FrameRecord]:
        """The frames that have an answer, a covariance and a true pose."""
        return [
            frame
            for frame in self.frames
            if frame.T_map_frame is not None
            and frame.T_true is not None
            and frame.covariance_66 is not None
        ]

    def errors(self) -> tuple[Array, Array, np.ndarray]:
        """Metres and radians of the frames that have both poses, and their indices."""
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
