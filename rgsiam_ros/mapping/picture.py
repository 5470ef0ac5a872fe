"""Draw a map from above, how many points each map image sees, and one localized frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.localization.match_drawing import describe, draw_matches
from rgsiam_ros.localization.matches import Matches
from rgsiam_ros.localization.pose_estimate import PoseEstimate

CANDIDATE: dict[str, Any] = {
    "linestyle": "",
    "marker": "o",
    "markersize": 8,
    "fillstyle": "none",
    "color": "tab:green",
    "label": "candidates",
}
MARGIN = 0.05
"""Share of the view that is free at each side."""
FEW, MANY = 2, 98
"""Percentiles between which points are in view, and colours have their range."""
MOST_ARROWS, LABELS = 40, 12
"""Number of map images in view that have an arrow, at most, and of those that are named by their index."""
FEWEST_NEIGHBOURS, SMALLEST_REACH_M = 10, 0.5
"""The surroundings of a camera hold at least so many map images, and are at least so large."""
SHOWN_WIDTH_PX = 1024
"""The network's image is enlarged by a whole number, to about this width."""


@dataclass(frozen=True)
class LocalizedFrame:
    """A frame of a dataset and its estimated pose."""

    name: str
    image_HW3: ImageBGR
    """BGR, at the size of the network's input."""
    estimate: PoseEstimate
    T_map_true: Array
    """``(4, 4)`` pose of the camera in the map frame as the dataset has it."""

    @property
    def matches(self) -> Matches:
        """The matches of the estimate, which is of the geometric branch."""
        assert self.estimate.matches is not None
        return self.estimate.matches

    @property
    def candidates(self) -> NDArray[np.int64]:
        """Indices of the map images that the frame was matched with; none if no pose was found."""
        found = self.matches.found
        return np.empty(0, np.int64) if found is None else found.candidates


def draw_map(
    points: MapPoints, manifest: Manifest, path: Path, width: int, frame: LocalizedFrame | None
) -> None:
    """Write the picture as PNG. It needs no screen.

    points: in the map frame; width: of the picture, pixels; frame: drawn too, if it is not None.
    """
    figure = Figure(figsize=(16.0, 12.0) if frame else (12.0, 10.0), layout="constrained")
    FigureCanvasAgg(figure)
    view = widest_axes(points)
    if frame is None:
        grid = figure.add_gridspec(2, 1, height_ratios=[4.0, 1.0])
        whole, along = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    else:
        grid = figure.add_gridspec(3, 2, height_ratios=[2.3, 2.3, 0.9])
        whole, along = figure.add_subplot(grid[:2, 0]), figure.add_subplot(grid[2, :])
        _draw_image(frame, figure.add_subplot(grid[0, 1]))
        _draw_place(points, frame, view, figure.add_subplot(grid[1, 1]))
    cameras = _draw_whole(points, frame, view, whole)
    label = "points that a map image sees"
    figure.colorbar(cameras, ax=whole, location="bottom", shrink=0.6, pad=0.01, label=label)
    _draw_along(points, frame, manifest.geometric_part.fewest_inliers, along)
    figure.suptitle(
        f"{manifest.name}: {len(points.position_P3)} points, {len(points.visible)} map images, "
        f"map frame {manifest.map_frame!r}"
    )
    figure.savefig(path, dpi=width / figure.get_figwidth())


def widest_axes(points: MapPoints) -> tuple[int, int]:
    """The two axes of the map frame along which points and cameras spread most, in rising order."""
    low, high = _extent(points)
    first, second = sorted(np.argsort(low - high, kind="stable")[:2].tolist())
    return first, second


def _extent(points: MapPoints) -> tuple[Array, Array]:
    """Corners ``(3,)`` of a box that holds all cameras and nearly all points, metres."""
    camera_N3 = points.T_points_camera_N44[:, :3, 3]
    low, high = np.percentile(points.position_P3, [FEW, MANY], axis=0)
    return np.minimum(low, camera_N3.min(axis=0)), np.maximum(high, camera_N3.max(axis=0))


def _draw_whole(
    points: MapPoints, frame: LocalizedFrame | None, view: tuple[int, int], axes: Axes
) -> PathCollection:
    """Draw the whole map. Returns the map images, for a colour bar."""
    _draw_points(points, view, axes, 0.4)
    count = len(points.visible)
    cameras = _draw_cameras(points, view, np.arange(count), axes)
    for i in np.unique(np.linspace(0, count - 1, LABELS).astype(int)).tolist():
        axes.annotate(
            str(i),
            tuple(points.T_points_camera_N44[i, view, 3]),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=8,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.7, "linewidth": 0},
        )
    if frame is not None:
        _draw_frame(points, frame, view, axes)
    low, high = _extent(points)
    _look_at(axes, view, low[list(view)], high[list(view)])
    title = (
        "points: the darker, the more map images see them; numbers: map images; arrows: headings"
    )
    axes.set_title(title, fontsize=10)
    return cameras


def _draw_points(points: MapPoints, view: tuple[int, int], axes: Axes, size: float) -> None:
    observations_P = points.observations_P()
    order = np.argsort(observations_P, kind="stable")
    most = float(np.percentile(observations_P, MANY))
    x, y = points.position_P3[order][:, view].T
    axes.scatter(
        x,
        y,
        s=size,
        c=observations_P[order],
        cmap="Greys",
        vmin=-most / 2.0,
        vmax=most,
        linewidths=0,
    )


def _draw_cameras(
    points: MapPoints, view: tuple[int, int], index: NDArray[np.int64], axes: Axes
) -> PathCollection:
    """Map images as dots, some of them with an arrow that shows the heading."""
    seen_N = _counts(points)
    T = points.T_points_camera_N44[index]
    x, y = T[:, view, 3].T
    dots = axes.scatter(
        x,
        y,
        c=seen_N[index],
        s=9,
        cmap="plasma",
        vmin=0,
        vmax=max(float(np.percentile(seen_N, MANY)), 1.0),
        linewidths=0,
        zorder=3,
    )
    some = slice(None, None, -(-len(index) // MOST_ARROWS) or 1)
    axes.quiver(*T[some][:, view, 3].T, *T[some][:, view, 2].T, **_arrow(0.2, "0.2"), zorder=3)
    return dots


def _arrow(inches: float, colour: str) -> dict[str, Any]:
    length = {"angles": "xy", "scale_units": "inches", "scale": 1.0 / inches}
    return {**length, "units": "inches", "width": 0.018, "color": colour}


def _draw_along(points: MapPoints, frame: LocalizedFrame | None, fewest: int, axes: Axes) -> None:
    """The number of points that each map image sees, with the candidates of the frame."""
    seen_N = _counts(points)
    axes.fill_between(np.arange(len(seen_N)), seen_N, step="mid", color="0.8", linewidth=0)
    axes.plot(seen_N, color="0.4", linewidth=0.8, drawstyle="steps-mid")
    axes.axhline(fewest, color="tab:red", linewidth=1, label=f"a pose needs {fewest} inliers")
    if frame is not None:
        axes.plot(frame.candidates, seen_N[frame.candidates], **CANDIDATE)
    axes.set(xlabel="map image, in the order of the route", ylabel="points that it sees")
    axes.set(xlim=(-0.5, len(seen_N) - 0.5), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncol=2, fontsize=8)


def _draw_image(frame: LocalizedFrame, axes: Axes) -> None:
    scale = max(1, round(SHOWN_WIDTH_PX / frame.image_HW3.shape[1]))
    drawn = draw_matches(frame.image_HW3, frame.matches, scale)
    axes.imshow(cv2.cvtColor(drawn, cv2.COLOR_BGR2RGB))
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(
        "cyan: inliers, orange: outliers, with a line to where the pose expects the map's point; "
        "grey: no match",
        fontsize=8,
    )
    metres, radians = pose_errors(frame.estimate.T_map_camera, frame.T_map_true)
    error = f"{metres:.3f} m, {np.degrees(radians):.2f} deg from the true pose"
    text = "\n".join([frame.name, *describe(frame.estimate), error])
    axes.set_title(text, fontsize=10, color="tab:red" if frame.estimate.lost else "k")


def _draw_place(
    points: MapPoints, frame: LocalizedFrame, view: tuple[int, int], axes: Axes
) -> None:
    """The surroundings of the camera, with the points of its matches."""
    at = frame.estimate.T_map_camera[view, 3]
    inlier_M2, outlier_M2 = (
        pairs.point_M3[:, view] for pairs in (frame.matches.inliers(), frame.matches.outliers())
    )
    metres_N = np.linalg.norm(points.T_points_camera_N44[:, view, 3] - at, axis=1)
    nearest = np.sort(metres_N)[:FEWEST_NEIGHBOURS][-1]
    reach = np.median(np.linalg.norm(inlier_M2 - at, axis=1)) if len(inlier_M2) else 0.0
    radius = 1.5 * max(reach, nearest, SMALLEST_REACH_M)
    _draw_points(points, view, axes, 2.0)
    axes.plot(*outlier_M2.T, ".", color="tab:orange", markersize=4, label="points of outliers")
    axes.plot(*inlier_M2.T, ".", color="tab:cyan", markersize=4, label="points of inliers")
    _draw_cameras(points, view, np.flatnonzero(metres_N < 2.0 * radius), axes)
    _draw_frame(points, frame, view, axes)
    _look_at(axes, view, at - radius, at + radius)


def _draw_frame(
    points: MapPoints, frame: LocalizedFrame, view: tuple[int, int], axes: Axes
) -> None:
    """The candidates, and the poses: true, found, and the rival."""
    found, lost = frame.matches.found, frame.estimate.lost
    axes.plot(*points.T_points_camera_N44[frame.candidates][:, view, 3].T, **CANDIDATE, zorder=4)
    poses = [(frame.T_map_true, "0.0", "true")]
    if found is not None and found.T_map_rival is not None:
        poses.append((found.T_map_rival, "tab:red", "rival: the best pose in another place"))
    name = "found" if found is not None else "most similar map image"
    poses.append((frame.estimate.T_map_camera, "tab:blue", f"{name}, lost" if lost else name))
    for T, colour, label in poses:
        axes.quiver(*T[view, 3], *T[view, 2], **_arrow(0.45, colour), zorder=5)
        axes.plot(*T[view, 3], "o", color=colour, markersize=5, label=label, zorder=5)
    axes.legend(loc="best", fontsize=8)


def _look_at(axes: Axes, view: tuple[int, int], low: Array, high: Array) -> None:
    """Show a rectangle, and what is beside it where the axes are wider. For axes that have all their content."""
    margin = MARGIN * (high - low).max()
    axes.set_xlim(low[0] - margin, high[0] + margin, auto=True)
    axes.set_ylim(low[1] - margin, high[1] + margin, auto=True)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel=f"{'xyz'[view[0]]} (m)", ylabel=f"{'xyz'[view[1]]} (m)")
    axes.grid(alpha=0.3)


def _counts(points: MapPoints) -> NDArray[np.int64]:
    return np.array([len(seen) for seen in points.visible])
