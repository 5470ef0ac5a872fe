"""Plot an inspection: the paths of the sessions from above, and sample images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.report.plot import widest_axes
from rgsiam_training.datasets.inspection import SAMPLE_IMAGES, Inspection, Jump

MOST_IN_LEGEND = 8
TEST_COLOUR, JUMP_COLOUR = "black", "tab:red"
COLUMNS, MAP_WIDTH = 3, 2.6
WIDTH_IN, TITLE_IN, LOWEST_IN = 13.5, 0.35, 4.5


def draw_inspection(inspection: Inspection, path: Path, *, images: bool = True) -> None:
    """Write the plot to the PNG file `path`. No display is needed. images: draw the sample images too."""
    splits = list(inspection.samples)
    if not images:
        figure = Figure(figsize=(WIDTH_IN / 2, WIDTH_IN / 2), layout="constrained")
        FigureCanvasAgg(figure)
        _draw_tracks(inspection, figure.add_subplot())
        figure.savefig(path, dpi=100)
        return
    rows = SAMPLE_IMAGES // COLUMNS * len(splits)
    shapes = [image.shape for samples in inspection.samples.values() for _, image in samples]
    tallest = max((height / width for height, width, _ in shapes), default=1.0)
    row_in = WIDTH_IN / (MAP_WIDTH + COLUMNS) * tallest + TITLE_IN
    figure = Figure(figsize=(WIDTH_IN, max(LOWEST_IN, rows * row_in)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, 1 + COLUMNS, width_ratios=[MAP_WIDTH] + [1.0] * COLUMNS)
    _draw_tracks(inspection, figure.add_subplot(grid[:, 0]))
    for s, split in enumerate(splits):
        for i, (name, image) in enumerate(inspection.samples[split]):
            row = s * (SAMPLE_IMAGES // COLUMNS) + i // COLUMNS
            axes = figure.add_subplot(grid[row, 1 + i % COLUMNS])
            axes.imshow(image[:, :, ::-1])
            axes.set_axis_off()
            label = _shortened(name)
            axes.set_title(f"{split}: {label}" if len(splits) > 1 else label, fontsize=7)
    figure.savefig(path, dpi=100)


def _draw_tracks(inspection: Inspection, axes: Axes) -> None:
    all_positions = np.concatenate([p for track in inspection.tracks.values() for _, p in track])
    first, second = widest_axes(all_positions)
    sessions = inspection.tracks["train"]
    palette = colormaps["tab10" if len(sessions) <= 10 else "turbo"]
    for i, (name, positions) in enumerate(sessions):
        colour = palette(i if len(sessions) <= 10 else i / (len(sessions) - 1))
        label = None
        if i < MOST_IN_LEGEND:
            label = f"{name}: {len(positions)}"
        elif i == MOST_IN_LEGEND:
            label = f"... {len(sessions) - i} more sessions"
        jumps = _jump_indices(inspection.train.jumps, name)
        _line(axes, positions, jumps, (first, second), color=colour, label=label, linewidth=2.5)
    for i, (name, positions) in enumerate(inspection.tracks.get("test", ())):
        jumps = _jump_indices(inspection.test.jumps if inspection.test is not None else [], name)
        count = sum(len(p) for _, p in inspection.tracks["test"])
        label = None if i else f"test: {count}"
        _line(
            axes, positions, jumps, (first, second), color=TEST_COLOUR, label=label, linewidth=0.9
        )
    name_of = dict(enumerate("xyz"))
    axis_label = f"{inspection.train.map_frame} %s (m)"
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(axis_label % name_of[first])
    axes.set_ylabel(axis_label % name_of[second])
    axes.grid(alpha=0.3)
    counts = f"{inspection.train.frames} frames"
    if inspection.test is not None:
        counts += f" to train, {inspection.test.frames} to test"
    axes.set_title(f"{Path(inspection.train.path).name}: {counts}", fontsize=10)
    axes.legend(loc="best", fontsize=8, title="session: frames", title_fontsize=8)


def _line(
    axes: Axes, positions: Array, jumps: list[int], along: tuple[int, int], **style: object
) -> None:
    """Draw the path of a session. At a jump the line is interrupted, and the jump is drawn in red."""
    flat = positions[:, along]
    cut = np.insert(flat, [jump + 1 for jump in jumps], np.nan, axis=0)
    axes.plot(cut[:, 0], cut[:, 1], marker=".", markersize=2, **style)  # type: ignore[arg-type]
    for jump in jumps:
        labels = axes.get_legend_handles_labels()[1]
        label = None if "jump" in labels else "jump"
        axes.plot(*flat[jump : jump + 2].T, color=JUMP_COLOUR, linewidth=3, label=label, zorder=3)


def _jump_indices(jumps: list[Jump], session: str) -> list[int]:
    return [jump.index for jump in jumps if jump.session == session]


def _shortened(name: str, most: int = 30) -> str:
    return name if len(name) <= most else "..." + name[-most + 3 :]
