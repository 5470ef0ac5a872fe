import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.frames import SECOND, FramesInMemory, along_x, frames_at

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.recordings.base import poses_of
from rgsiam_ros.recordings.time_offset import with_time_offset


def x_of(dataset):
    return poses_of(dataset.frames)[:, 0, 3]


@pytest.mark.parametrize(("offset_s", "kept"), [(0.25, range(3, 20)), (-0.25, range(17))])
def test_poses_move_along_the_drive_and_its_ends_are_left_out(offset_s, kept):
    """Ten frames and ten metres in each second."""
    moved = with_time_offset(FramesInMemory(frames_at(along_x(20))), offset_s)
    np.testing.assert_allclose(x_of(moved), np.array(kept) - 10.0 * offset_s, atol=1e-6)
    assert list(moved.read_images()) == list(kept)
    assert [frame.stamp_ns for frame in moved.frames] == [i * SECOND // 10 for i in kept]
    assert [(d.frames, d.why) for d in moved.dropped] == [
        (3, f"3 frames without a pose {offset_s:g} s before their stamp")
    ]


def test_rotations_move_too():
    frames = frames_at(along_x(5))
    for i, frame in enumerate(frames):
        frame.T_map_camera[:3, :3] = Rotation.from_euler("z", 0.1 * i).as_matrix()
    moved = with_time_offset(FramesInMemory(frames), 0.05)
    turns = Rotation.from_matrix(poses_of(moved.frames)[:, :3, :3]).as_euler("zyx")
    np.testing.assert_allclose(turns[:, 0], [0.05, 0.15, 0.25, 0.35], atol=1e-6)


def test_without_offset_nothing_changes():
    dataset = FramesInMemory(frames_at(along_x(3)))
    assert with_time_offset(dataset, 0.0) is dataset


def test_frames_with_equal_stamps_get_equal_poses():
    stamps = np.array([0, 1, 1, 2, 3]) * SECOND // 10
    moved = with_time_offset(FramesInMemory(frames_at(along_x(5), stamps)), 0.05)
    np.testing.assert_allclose(x_of(moved), [0.5, 0.5, 2.0, 3.5], atol=1e-6)


def test_poses_are_not_interpolated_over_a_gap():
    stamps = np.array([0, 1, 2, 30, 31, 32]) * SECOND // 10
    moved = with_time_offset(FramesInMemory(frames_at(along_x(6), stamps)), 0.05)
    assert list(moved.read_images()) == [1, 2, 4, 5]
    np.testing.assert_allclose(x_of(moved), [0.5, 1.5, 3.5, 4.5], atol=1e-6)
    exact = with_time_offset(FramesInMemory(frames_at(along_x(6), stamps)), 0.1)
    assert list(exact.read_images()) == [1, 2, 4, 5]
    np.testing.assert_allclose(x_of(exact), [0.0, 1.0, 3.0, 4.0], atol=1e-6)


def test_sessions_are_not_mixed():
    frames = frames_at(along_x(4)) + frames_at(100.0 + along_x(4), session="other")
    moved = with_time_offset(FramesInMemory(frames), 0.1)
    np.testing.assert_allclose(x_of(moved), [0, 1, 2, 100, 101, 102], atol=1e-6)
    assert list(moved.read_images()) == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize(
    ("stamps", "offset_s"), [(np.arange(5) * SECOND // 10, 2.0), (np.zeros(5), 0.1)]
)
def test_an_offset_that_leaves_no_frame_is_refused(stamps, offset_s):
    dataset = FramesInMemory(frames_at(along_x(5), stamps), name="my_drive")
    with pytest.raises(DatasetError, match=f"my_drive: no frame has a pose {offset_s:g} s before"):
        with_time_offset(dataset, offset_s)


class WithPoints(FramesInMemory):
    """Each frame sees one point, 5 m in front of it."""

    def read_points(self):
        return (frame.T_map_camera[:3, 3][None] + [0.0, 0.0, 5.0] for frame in self.frames)


def test_scene_points_move_with_their_camera():
    moved = with_time_offset(WithPoints(frames_at(along_x(20))), 0.25)
    points = np.concatenate(list(moved.read_points()))
    np.testing.assert_allclose(points[:, 0], x_of(moved), atol=1e-9)
    np.testing.assert_allclose(points[:, 2], 5.0)
    without = with_time_offset(FramesInMemory(frames_at(along_x(20))), 0.25)
    assert not hasattr(without, "read_points")
