"""Loader for TUM RGB-D: ``rgb.txt``, ``groundtruth.txt`` and, for scene points, ``depth.txt``.

True poses ``stamp tx ty tz qx qy qz qw`` are camera to world, metres, of the colour camera (OpenCV axes).
They are interpolated at the stamps of the images. Depth is 16 bit with 5000 units per metre, registered to
the colour image. The intrinsics come from ``camera.yaml`` if it exists, otherwise from the benchmark's web
page for freiburg1, 2 and 3.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array, interpolate_poses, quaternion_wxyz_from_xyzw
from rgsiam_ros.recordings.base import Frame
from rgsiam_ros.recordings.depth_points import points_of_depth
from rgsiam_ros.recordings.image_files import FileDataset, read_camera, read_depth, read_lines
from rgsiam_ros.recordings.pose_labels import BadLabelError, numbers, pose_from_quaternion, stamp_ns

LONGEST_GAP_NS = 100_000_000
"""Largest time between two true poses between which poses are interpolated."""
LONGEST_TO_DEPTH_NS = 20_000_000
"""Largest time between an image and its depth image."""
DEPTH_UNITS_PER_METRE = 5000.0
INTRINSICS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3, (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": (520.9, 521.0, 325.1, 249.7, (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": (535.4, 539.2, 320.1, 247.6, ()),
}
"""fx, fy, cx, cy, distortion (k1 k2 p1 p2 k3) at 640x480."""


class TumRgbdDataset(FileDataset):
    """See `rgsiam_ros.recordings.base.PointDataset`. One session; it has no splits."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        session = path.resolve().name
        stamps_ns, T_N44 = self._read_track(path / "groundtruth.txt")
        for where, line in read_lines(path / "rgb.txt"):
            with self._dropping(where):
                stamp, name = _stamp_and_name(line)
                T = _pose_at(stamps_ns, T_N44, stamp)
                self._add(Frame(f"{session}/{Path(name).name}", session, stamp, T), path / name)
        self._finish()
        self.camera = self._camera(session)

    def read_points(self) -> Iterator[Array]:
        """See `PointDataset`. An image without a depth image within 20 ms gives no points."""
        listing = self.path / "depth.txt"
        if not listing.is_file():
            raise DatasetError(f"{listing} is missing: {self.path} has no depth")
        by_stamp: dict[int, Path] = {}
        for where, line in read_lines(listing):
            try:
                stamp, name = _stamp_and_name(line)
            except BadLabelError as error:
                raise DatasetError(f"{where}: {error}: remove the line") from error
            by_stamp[stamp] = self.path / name
        stamps = np.array(sorted(by_stamp), np.int64)
        for frame in self.frames:
            offsets_ns = np.abs(stamps - frame.stamp_ns)
            if not len(offsets_ns) or offsets_ns.min() > LONGEST_TO_DEPTH_NS:
                yield np.empty((0, 3))
            else:
                nearest = by_stamp[int(stamps[offsets_ns.argmin()])]
                depth_m = read_depth(nearest, DEPTH_UNITS_PER_METRE)
                yield points_of_depth(depth_m, self.camera, frame.T_map_camera)

    def _read_track(self, path: Path) -> tuple[list[int], list[Array]]:
        stamps: list[int] = []
        poses = []
        for where, line in read_lines(path):
            with self._dropping(where, frames=0):
                first, *fields = line.split()
                stamp = stamp_ns(first)
                values = numbers(fields, 7)
                T = pose_from_quaternion(values[:3], quaternion_wxyz_from_xyzw(values[3:]))
                if stamps and stamp <= stamps[-1]:
                    raise BadLabelError("the stamp is not later than the one before")
                stamps.append(stamp)
                poses.append(T)
        if len(stamps) < 2:
            raise DatasetError(f"{path} has {len(stamps)} usable poses: at least 2 are needed")
        return stamps, poses

    def _camera(self, name: str) -> Camera:
        camera_file = self.path / "camera.yaml"
        known = next((INTRINSICS[key] for key in INTRINSICS if key in name), None)
        if camera_file.is_file() or known is None:
            return read_camera(camera_file)
        if self._image_size() != (640, 480):
            width, height = self._image_size()
            raise DatasetError(
                f"{self.path}: the images have {width}x{height} pixels, but the known intrinsics of "
                f"{name} are for 640x480: write the camera to {camera_file}"
            )
        fx, fy, cx, cy, distortion = known
        return Camera(
            width=640, height=480, fx=fx, fy=fy, cx=cx, cy=cy,
            distortion_model="plumb_bob" if distortion else "none", distortion=distortion,
        )  # fmt: skip


def _stamp_and_name(line: str) -> tuple[int, str]:
    stamp, _, name = line.partition(" ")
    if not name.strip():
        raise BadLabelError(f"{line!r} is not 'stamp file'")
    return stamp_ns(stamp), name.strip()


def _pose_at(stamps_ns: list[int], T_N44: list[Array], stamp: int) -> Array:
    """The true pose at a stamp. Raises BadLabelError outside the track and in its gaps."""
    if not stamps_ns[0] <= stamp <= stamps_ns[-1]:
        raise BadLabelError("outside the time span of groundtruth.txt")
    after = max(1, bisect_left(stamps_ns, stamp))
    gap = stamps_ns[after] - stamps_ns[after - 1]
    if gap > LONGEST_GAP_NS and stamp not in stamps_ns[after - 1 : after + 1]:
        raise BadLabelError(f"in a gap of {gap * 1e-9:.2f} s of groundtruth.txt")
    pair = slice(after - 1, after + 1)
    return interpolate_poses(stamps_ns[pair], np.stack(T_N44[pair]), [stamp])[0]
