"""Datasets that exist only in memory."""

from pathlib import Path

import numpy as np

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.recordings.base import Frame

SECOND = 1_000_000_000


class FramesInMemory:
    """See `rgsiam_ros.recordings.base.Dataset`. Each image is the index of its frame, or one of `images`."""

    def __init__(self, frames, images=None, name="memory"):
        self.path, self.frames, self.map_frame, self.dropped = Path(name), frames, "map", []
        self.camera = Camera(width=64, height=64, fx=50.0, fy=50.0, cx=32.0, cy=32.0)
        self.images = range(len(frames)) if images is None else images

    def read_images(self):
        return iter(self.images)


def frames_at(positions_m, stamps_ns=None, session="drive"):
    """Frames at these positions, not turned, ten in a second unless `stamps_ns` are given."""
    stamps_ns = SECOND // 10 * np.arange(len(positions_m)) if stamps_ns is None else stamps_ns
    frames = []
    for i, (position, stamp) in enumerate(zip(positions_m, stamps_ns, strict=True)):
        T = np.eye(4)
        T[:3, 3] = position
        frames.append(Frame(f"{session}/{i}", session, int(stamp), T))
    return frames


def along_x(count, step_m=1.0):
    return np.stack([step_m * np.arange(count), np.zeros(count), np.zeros(count)], axis=1)
