"""Pictures and figures of the chosen frames of a run."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.geometry.units import length_text
from rgsiam_ros.localization.match_drawing import describe, draw_map_points, draw_matches, draw_pair
from rgsiam_ros.recordings.base import Dataset
from rgsiam_ros.report.chosen_frames import ChosenFrame, ChosenFrames
from rgsiam_ros.report.figure_style import degrees_text
from rgsiam_ros.report.map_images import MapData, images_near

QUALITIES = ((80, 1200), (60, 1200), (40, 1200), (20, 1200), (20, 400))
"""WebP quality, and the widest picture in pixels. The first are taken that make a picture small enough."""
LARGEST_PICTURE = 65_000
"""Bytes."""
NO_IMAGES = "Pictures were left out (--no-images)."
WITH_MAP_DATA = (
    "On the left the live image, on the right the map image. Cyan: inliers and their lines; orange: matches that do not agree "
    "with the pose; grey: keypoints without a match."
)
WITHOUT_MAP_DATA = (
    "On the left the live image, on the right the points that the map image sees: a bundle does not hold the map images, and "
    "--map-data was not given. Cyan: inliers and their lines; orange: matches that do not agree with the pose; grey: "
    "keypoints without a match, and points without one."
)
ABSOLUTE = "The live image alone: the absolute branch has no matches."
PRIVATE = "These are pictures of where the camera was: of a street or a home. Give the page only to those who may see them."


@dataclass(frozen=True)
class Shown:
    """One frame on the page."""

    title: str
    lines: tuple[str, ...]
    picture: str
    """A WebP image as a ``data:`` URL; empty without one."""


@dataclass(frozen=True)
class Gallery:
    """What is shown of the chosen frames, and where the map images are."""

    worst: list[Shown]
    surprising: list[Shown]
    note: str
    """How the pictures are to be read, or why there are none."""
    how_chosen: str
    map_position_N3: Array | None = None
    """Positions of the map images, metres in the map frame."""


def make_gallery(chosen: ChosenFrames, map_data: MapData | None = None) -> Gallery:
    """Draw the chosen frames. map_data: None or empty without the map's images."""
    map_data = map_data or MapData()
    pictures = _Pictures(chosen, map_data.datasets)
    cameras = chosen.map_camera_N44
    if not chosen.images:
        note = NO_IMAGES
    else:
        geometric = chosen.relocalizer.branch == "refined"
        with_map = WITH_MAP_DATA if map_data.datasets else WITHOUT_MAP_DATA
        doubt = f"{map_data.doubt}. " if map_data.doubt else ""
        note = f"{with_map if geometric else ABSOLUTE} {doubt}{PRIVATE}"
    how = (
        "The worst poses have the largest errors, where 5 degrees count as much as the metres of a right pose. A lost image "
        "is the more surprising the nearer a map image is, and most of all if the most similar map image shows its place."
        if chosen.with_truth
        else "Without true poses, the worst poses are those with the largest standard deviations, and the most surprising "
        "lost images those whose trust is the least below 0."
    )
    return Gallery(
        [_shown(item, pictures) for item in chosen.worst],
        [_shown(item, pictures) for item in chosen.surprising],
        note,
        how,
        None if cameras is None else cameras[:, :3, 3],
    )


class _Pictures:
    """Draws a chosen frame beside its map image."""

    def __init__(self, chosen: ChosenFrames, map_data: Sequence[Dataset]) -> None:
        self._images: dict[int, tuple[str, ImageBGR]] = {}
        self._view = chosen.relocalizer.live_view()
        beside = (shown.map_image for shown in (*chosen.worst, *chosen.surprising))
        wanted = sorted({image for image in beside if image is not None})
        cameras = chosen.map_camera_N44
        if chosen.images and map_data and wanted and cameras is not None:
            manifest = chosen.relocalizer.manifest
            found = images_near(map_data, manifest, self._view, cameras[wanted])
            self._images = dict(zip(wanted, found, strict=True))

    def name(self, map_image: int) -> str:
        """The frame's name in the dataset that the map was built from; empty if it is not known."""
        return self._images[map_image][0] if map_image in self._images else ""

    def draw(self, chosen: ChosenFrame) -> str:
        """The picture as a ``data:`` URL; empty if the image was not kept."""
        image, matches, map_image = chosen.image_HW3, chosen.estimate.matches, chosen.map_image
        if image is None:
            return ""
        if matches is None or map_image is None:
            return data_url(image)
        if map_image in self._images:
            beside = self._images[map_image][1]
        else:
            size = image.shape[1], image.shape[0]
            beside = draw_map_points(size, matches, map_image, self._view.K)
        if matches.found is None:
            return data_url(np.concatenate([draw_matches(image, matches), beside], axis=1))
        return data_url(draw_pair(image, matches, beside, map_image, self._view.K))


def _shown(chosen: ChosenFrame, pictures: _Pictures) -> Shown:
    frame, estimate = chosen.frame, chosen.estimate
    title = f"Image {chosen.index}" + (f", {frame.name}" if frame.name else "")
    lines = [f"stamp {frame.stamp_ns * 1e-9:.3f} s"]
    T = frame.T_estimated
    has_pose = estimate.matches is None or estimate.matches.found is not None
    if has_pose and T is not None and frame.T_true is not None:
        away_m, away_rad = (float(value) for value in pose_errors(T, frame.T_true))
        what = "the withheld pose is off by" if estimate.lost else "off by"
        lines.append(
            f"{what} {length_text(away_m)} and {degrees_text(float(np.degrees(away_rad)))}"
        )
    lines += describe(estimate) if estimate.matches is not None else [estimate.why_lost]
    if chosen.apart is not None:
        metres, degrees = chosen.apart
        known = "true" if frame.T_true is not None else "estimated"
        lines.append(
            f"the nearest map image is {length_text(metres)} and {degrees_text(degrees)} from the {known} pose"
        )
    if chosen.alike:
        lines.append("the most similar map image shows this place")
    drawn = estimate.matches is not None and chosen.image_HW3 is not None
    if drawn and chosen.map_image is not None:
        name = pictures.name(chosen.map_image)
        lines.append(f"beside it: map image {chosen.map_image}" + (f", {name}" if name else ""))
    return Shown(title, tuple(line for line in lines if line), pictures.draw(chosen))


def data_url(image_HW3: ImageBGR) -> str:
    """A picture as a WebP image in a ``data:`` URL, of about 90 kB at most."""
    height, width = image_HW3.shape[:2]
    for quality, widest in QUALITIES:
        size = min(width, widest), max(1, round(height * min(1.0, widest / width)))
        small = cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)
        content = cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
        if len(content) <= LARGEST_PICTURE:
            break
    return "data:image/webp;base64," + base64.b64encode(content).decode()
