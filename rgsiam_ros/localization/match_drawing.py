"""Draw an image with its matches: keypoints, and lines to where the pose expects their map points."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.geometric import projected_pixels
from rgsiam_ros.localization.matches import Matches
from rgsiam_ros.localization.pose_estimate import PoseEstimate

INLIER, OUTLIER, UNMATCHED = (255, 220, 0), (14, 127, 255), (170, 170, 170)
"""Colours, BGR: cyan, orange, grey."""
TEXT, WARNING, BACKGROUND = (235, 235, 235), (80, 160, 255), 30
FONT, FONT_SCALE, LINE_PX, MARGIN_PX = cv2.FONT_HERSHEY_SIMPLEX, 0.42, 17, 5
MOST_LINES = 30
SHIFT = 4
"""Binary digits after the point of a drawn coordinate."""


def draw_estimate(image_HW3: ImageBGR, estimate: PoseEstimate) -> ImageBGR:
    """The image with its matches, and two lines of text above it: the first and the last of `describe`.

    image_HW3: BGR, the network's image, see `Relocalizer.fit`; estimate: of the geometric branch.
    """
    assert estimate.matches is not None
    lines = list(dict.fromkeys(describe(estimate)[i] for i in (0, -1)))
    picture = draw_matches(image_HW3, estimate.matches)
    drawn = np.full((2 * LINE_PX + MARGIN_PX, picture.shape[1], 3), BACKGROUND, np.uint8)
    room = drawn.shape[1] - 2 * MARGIN_PX
    for number, line in enumerate(lines, start=1):
        width = cv2.getTextSize(line, FONT, FONT_SCALE, 1)[0][0]
        scale = FONT_SCALE * min(1.0, room / width)
        colour = WARNING if line == estimate.why_lost else TEXT
        place = (MARGIN_PX, LINE_PX * number - MARGIN_PX + 1)
        cv2.putText(drawn, line, place, FONT, scale, colour, 1, cv2.LINE_AA)
    return np.concatenate([drawn, picture])


def draw_matches(image_HW3: ImageBGR, matches: Matches, scale: int = 1) -> ImageBGR:
    """A copy of the image, enlarged `scale` times, with its keypoints and matches.

    image_HW3: BGR, the network's image, see `Relocalizer.fit`. Inliers are cyan rings with a line to the
    expected pixel, outliers orange ones, and keypoints without a match grey dots.
    """
    size = (scale * image_HW3.shape[1], scale * image_HW3.shape[0])
    drawn: ImageBGR = cv2.resize(image_HW3, size, interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    radius, longest_px = 2 + scale // 2, 2.0 * max(image_HW3.shape)
    for pixel in _fixed(matches.pixel_N2.astype(np.float64), scale):
        cv2.circle(drawn, pixel, scale << SHIFT, UNMATCHED, -1, cv2.LINE_AA, SHIFT)
    for pairs, colour in ((matches.outliers(), OUTLIER), (matches.inliers(), INLIER)):
        away_M2 = np.nan_to_num(pairs.expected_M2 - pairs.pixel_M2)
        length = np.linalg.norm(away_M2, axis=1, keepdims=True)
        end_M2 = pairs.pixel_M2 + away_M2 * np.minimum(1.0, longest_px / np.maximum(length, 1.0))
        starts, ends = _fixed(pairs.pixel_M2, scale), _fixed(end_M2, scale)
        for start, end in zip(starts, ends, strict=True):
            cv2.line(drawn, start, end, colour, 1, cv2.LINE_AA, SHIFT)
            cv2.circle(drawn, start, radius << SHIFT, colour, 1, cv2.LINE_AA, SHIFT)
    return drawn


def draw_map_points(size: tuple[int, int], matches: Matches, map_image: int, K: Array) -> ImageBGR:
    """The points that a map image sees, where it sees them: bright inliers, grey others. It stands for the image.

    size: width and height, pixels; K: intrinsic matrix of the map image at that size.
    """
    drawn = np.full((size[1], size[0], 3), BACKGROUND, np.uint8)
    inside = _in_map_image(matches, map_image, K, size)
    inlier = np.isin(list(inside), _inlier_points(matches))
    for used, pixel in zip(
        inlier, _fixed(np.array([*inside.values()]).reshape(-1, 2), 1), strict=True
    ):
        colour = INLIER if used else UNMATCHED
        cv2.circle(drawn, pixel, 2 << SHIFT, colour, -1, cv2.LINE_AA, SHIFT)
    return drawn


def draw_pair(
    image_HW3: ImageBGR, matches: Matches, map_image_HW3: ImageBGR, map_image: int, K: Array
) -> ImageBGR:
    """An image with its matches, see `draw_matches`, beside a map image, with lines between both.

    Both images are BGR and of the network's size. map_image: index of the map image; K: its intrinsic matrix. At most
    `MOST_LINES` of the inliers that the map image sees have a line.
    """
    height, width = map_image_HW3.shape[:2]
    drawn = np.concatenate([draw_matches(image_HW3, matches), map_image_HW3], axis=1)
    found = matches.found
    if found is None:
        return drawn
    inside = _in_map_image(matches, map_image, K, (width, height))
    pairs = [
        (matches.pixel_N2[keypoint], inside[int(point)] + (image_HW3.shape[1], 0.0))
        for keypoint, point in zip(
            found.keypoint_M[found.inlier_M], found.point_M[found.inlier_M], strict=True
        )
        if int(point) in inside
    ]
    with_lines = drawn.copy()
    every = max(1, -(-len(pairs) // MOST_LINES))
    for start, end in pairs[::every]:
        ends = _fixed(np.array([start, end], np.float64), 1)
        cv2.line(with_lines, ends[0], ends[1], INLIER, 1, cv2.LINE_AA, SHIFT)
        cv2.circle(with_lines, ends[1], 3 << SHIFT, INLIER, 1, cv2.LINE_AA, SHIFT)
    return cv2.addWeighted(drawn, 0.4, with_lines, 0.6, 0.0)  # type: ignore[return-value]


def _in_map_image(
    matches: Matches, map_image: int, K: Array, size: tuple[int, int]
) -> dict[int, Array]:
    """Pixels of the points that a map image sees, by the points' indices."""
    points = matches.points
    seen = points.visible[map_image]
    pixel_M2, front = projected_pixels(
        points.T_points_camera_N44[map_image], points.position_P3[seen], K
    )
    inside = front & ((pixel_M2 >= 0.0) & (pixel_M2 <= np.array(size) - 1.0)).all(axis=1)
    return dict(zip(seen[inside].tolist(), pixel_M2[inside], strict=True))


def _inlier_points(matches: Matches) -> NDArray[np.int64]:
    found = matches.found
    return np.empty(0, np.int64) if found is None else found.point_M[found.inlier_M]


def describe(estimate: PoseEstimate) -> list[str]:
    """The figures of an estimate of the geometric branch in lines of ASCII text, and why it is lost if so."""
    lines = []
    quality, matches = estimate.quality.geometric_quality, estimate.matches
    if quality is not None and matches is not None:
        sigma = np.sqrt(np.maximum(np.diag(estimate.covariance_66), 0.0))
        lines.append(
            f"{quality.inliers} inliers, {quality.matches} matches of {len(matches.pixel_N2)} keypoints, "
            f"rival {quality.rival_inliers}"
        )
        lines.append(
            f"sigma {np.linalg.norm(sigma[:3]):.3f} m {np.degrees(np.linalg.norm(sigma[3:])):.2f} deg, "
            f"residual {quality.residual_px:.1f} px, trust {estimate.trust:.2f}"
        )
    if estimate.lost:
        lines.append(estimate.why_lost)
    return lines


def _fixed(pixel_N2: Array, scale: int) -> list[list[int]]:
    """Pixels of the enlarged image, as integers with `SHIFT` binary digits after the point."""
    enlarged = (pixel_N2 + 0.5) * scale - 0.5
    return np.rint(enlarged * (1 << SHIFT)).astype(np.int64).tolist()
