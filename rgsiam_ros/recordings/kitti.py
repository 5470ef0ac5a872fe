"""Loader for KITTI odometry: ``ROOT/sequences/NN``.

A sequence has ``calib.txt``, ``times.txt`` and ``image_2`` or ``image_0``. Each line of ``ROOT/poses/NN.txt``
is the 3x4 pose of the left grey camera (cam0, OpenCV axes) in the world for one image, metres. The images are
rectified, so ``P2 = K [I | t_cam2_cam0]`` gives the offset of the colour camera.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array, invert
from rgsiam_ros.recordings.base import Frame
from rgsiam_ros.recordings.image_files import FileDataset, read_lines
from rgsiam_ros.recordings.pose_labels import BadLabelError, numbers, pose_from_matrix, stamp_ns


class KittiDataset(FileDataset):
    """See `rgsiam_ros.recordings.base.Dataset`. One session; it has no splits."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        session = path.resolve().name
        truth = path.resolve().parent.parent / "poses" / f"{session}.txt"
        if not truth.is_file():
            raise DatasetError(
                f"{truth} is missing: KITTI has true poses of the sequences 00 to 10 only; download "
                "the poses, or use one of these sequences"
            )
        number = "2" if (path / "image_2").is_dir() else "0"
        images = path / f"image_{number}"
        if not images.is_dir():
            raise DatasetError(f"{path} has neither image_2 nor image_0: unzip the images there")
        K, T_cam_cam0 = _projection(path / "calib.txt", f"P{number}:")
        times, labels = read_lines(path / "times.txt"), read_lines(truth)
        if len(times) != len(labels):
            raise DatasetError(
                f"{path / 'times.txt'} has {len(times)} lines, but {truth} has {len(labels)}: both need "
                "one line for each image"
            )
        for i, ((_, time), (where, label)) in enumerate(zip(times, labels, strict=True)):
            with self._dropping(where):
                T_map_cam0 = pose_from_matrix(numbers(label.split(), 12).reshape(3, 4))
                T_map_cam = T_map_cam0 @ invert(T_cam_cam0)
                frame = Frame(f"{session}/{i:06d}", session, stamp_ns(time), T_map_cam)
                self._add(frame, images / f"{i:06d}.png")
        self._finish()
        width, height = self._image_size()
        fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
        self.camera = Camera(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy)


def _projection(path: Path, name: str) -> tuple[Array, Array]:
    """Read ``K (3, 3)`` and ``T_cam_cam0 (4, 4)`` from a line of calib.txt. Raises DatasetError."""
    for where, line in read_lines(path):
        if not line.startswith(name):
            continue
        try:
            P = numbers(line.split()[1:], 12).reshape(3, 4)
            T_cam_cam0 = np.eye(4)
            T_cam_cam0[:3, 3] = np.linalg.solve(P[:, :3], P[:, 3])
            pose_from_matrix(T_cam_cam0)
        except (BadLabelError, np.linalg.LinAlgError) as error:
            raise DatasetError(f"{where}: {error}") from error
        return P[:, :3], T_cam_cam0
    raise DatasetError(f"{path} has no line {name}")
