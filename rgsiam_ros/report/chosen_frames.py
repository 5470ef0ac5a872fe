"""The frames of a run that are worth looking at: the worst answered ones, and the most surprising lost ones."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.geometry.poses import Array, angles_between, pose_errors
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.report.records import FrameRecord
from rgsiam_ros.uncertainty.geometric_trust import RIGHT_DEG, ErrorLimits

MOST = 10
"""Number of frames of each kind."""


@dataclass(frozen=True)
class ChosenFrame:
    """One frame, the map image beside it, and what a picture of both needs."""

    index: int
    frame: FrameRecord
    estimate: PoseEstimate
    map_image: int | None
    """Index of the map image beside it; None for a bundle without map images."""
    apart: tuple[float, float] | None
    """Metres and degrees from the true pose, or the estimated one, to the nearest map image."""
    alike: bool
    """Whether the most similar map image shows the true place."""
    image_HW3: ImageBGR | None
    """BGR, at the size of the network's input; None if pictures are left out."""


class ChosenFrames:
    """Sees every frame of a run, one after the other, and keeps the ten of each kind. Memory is flat.

    The worst answered frames have the largest errors, in units of what counts as right; without true poses, the largest
    standard deviations. A lost frame is the more surprising the nearer a map image is to its true pose, and most of all
    if the map image that looks most alike shows the true place. Without true poses, trust ranks the lost frames.
    """

    def __init__(self, relocalizer: Relocalizer, *, with_truth: bool, images: bool) -> None:
        """with_truth: whether frames have true poses; images: keep their images, which are of a street or a home."""
        self.relocalizer = relocalizer
        self.with_truth, self.images = with_truth, images
        self.map_camera_N44 = relocalizer.map_cameras()
        self._limits: ErrorLimits = relocalizer.manifest.limits
        self._worst: list[tuple[tuple[float, ...], int, ChosenFrame]] = []
        self._lost: list[tuple[tuple[float, ...], int, ChosenFrame]] = []

    @property
    def worst(self) -> list[ChosenFrame]:
        """The worst answered frames, the worst first."""
        return [item[2] for item in sorted(self._worst, key=_rank, reverse=True)]

    @property
    def surprising(self) -> list[ChosenFrame]:
        """The most surprising lost frames, the most surprising first."""
        return [item[2] for item in sorted(self._lost, key=_rank, reverse=True)]

    def see(
        self,
        index: int,
        frame: FrameRecord,
        estimate: PoseEstimate,
        image_HW3: ImageBGR,
        T_camera_true: Array | None,
    ) -> None:
        """Take one localized frame.

        index: its number in the record; image_HW3: as decoded; T_camera_true: true ``(4, 4)`` pose of the camera in the
        map frame.
        """
        nearest = self._nearest(estimate.T_map_camera if T_camera_true is None else T_camera_true)
        alike = False
        score: tuple[float, ...] | None
        if estimate.lost:
            alike = self._looks_alike(estimate, T_camera_true)
            score = self._surprise(estimate, alike, nearest)
        else:
            score = self._badness(frame)
        heap = self._lost if estimate.lost else self._worst
        if score is None or (len(heap) == MOST and (score, -index) <= heap[0][:2]):
            return
        map_image = None if nearest is None else nearest[0]
        if not estimate.lost:
            map_image = self._most_matched(estimate, map_image)
        chosen = ChosenFrame(
            index,
            frame,
            estimate,
            map_image,
            None if nearest is None else nearest[1:],
            alike,
            self.relocalizer.fit(image_HW3) if self.images else None,
        )
        push = heapq.heappushpop if len(heap) == MOST else heapq.heappush
        push(heap, (score, -index, chosen))

    def _badness(self, frame: FrameRecord) -> tuple[float, ...] | None:
        T, T_true, C = frame.T_map_frame, frame.T_true, frame.covariance_66
        if self.with_truth:
            if T is None or T_true is None:
                return None
            metres, radians = (float(value) for value in pose_errors(T, T_true))
        elif C is not None:
            metres, radians = np.sqrt([np.trace(C[:3, :3]), np.trace(C[3:, 3:])]).tolist()
        else:
            return None
        return (max(metres / self._limits.right_m, float(np.degrees(radians)) / RIGHT_DEG),)

    def _surprise(
        self, estimate: PoseEstimate, alike: bool, nearest: tuple[int, float, float] | None
    ) -> tuple[float, ...]:
        if self.with_truth and nearest is not None:
            return float(alike), -self._cost(*nearest[1:])
        trust = estimate.trust
        return (-np.inf if trust is None or np.isnan(trust) else trust,)

    def _looks_alike(self, estimate: PoseEstimate, T_camera_true: Array | None) -> bool:
        """Whether the most similar map image is of the true place. Only the geometric branch knows that image."""
        matches = estimate.matches
        if T_camera_true is None or matches is None or self.map_camera_N44 is None:
            return False
        T = estimate.T_map_camera  # without a pose it is that of the most similar map image
        if matches.found is not None:
            T = self.map_camera_N44[matches.found.candidates[0]]
        metres, radians = pose_errors(T, T_camera_true)
        return not self._limits.wrong(metres, np.degrees(radians))

    def _nearest(self, T_map_camera: Array) -> tuple[int, float, float] | None:
        """Index, metres and degrees of the map image nearest to a pose."""
        cameras = self.map_camera_N44
        if cameras is None or not np.isfinite(T_map_camera).all():
            return None
        metres_N = np.linalg.norm(cameras[:, :3, 3] - T_map_camera[:3, 3], axis=1)
        degrees_N = np.degrees(angles_between(cameras[:, :3, :3], T_map_camera[:3, :3]))
        index = int(np.argmin(self._cost(metres_N, degrees_N)))
        return index, float(metres_N[index]), float(degrees_N[index])

    def _cost(self, metres: Any, degrees: Any) -> Any:
        """Distance of two cameras: an angle of `RIGHT_DEG` counts as much as `right_m`."""
        return metres / self._limits.right_m + degrees / RIGHT_DEG

    def _most_matched(self, estimate: PoseEstimate, otherwise: int | None) -> int | None:
        """Of the map images that a pose was matched with, the one that sees most of its inliers."""
        matches = estimate.matches
        if matches is None or matches.found is None:
            return otherwise
        found, visible = matches.found, matches.points.visible
        inliers = found.point_M[found.inlier_M]
        return int(max(found.candidates, key=lambda i: np.isin(inliers, visible[i]).sum()))


def _rank(item: tuple[tuple[float, ...], int, ChosenFrame]) -> tuple[tuple[float, ...], int]:
    return item[:2]
