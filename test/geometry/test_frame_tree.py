import numpy as np
import pytest
from support.poses import random_poses

from rgsiam_ros.errors import TransformUnavailableError
from rgsiam_ros.geometry import frame_tree
from rgsiam_ros.geometry.frame_tree import TransformTree

SECOND = 1_000_000_000


def test_static_chains_of_any_depth_and_direction():
    T = random_poses(4)
    tree = TransformTree()
    frames = ["base_link", "roof", "rig", "camera_link", "optical"]
    for i, (parent, child) in enumerate(zip(frames, frames[1:], strict=False)):
        tree.update(parent, child, T[i], 0, static=True)
    tree.update("base_link", "imu", random_poses(1, seed=9)[0], 0, static=True)
    expected = T[0] @ T[1] @ T[2] @ T[3]
    np.testing.assert_allclose(tree.lookup("base_link", "optical"), expected, atol=1e-12)
    np.testing.assert_allclose(
        tree.lookup("optical", "base_link"), np.linalg.inv(expected), atol=1e-9
    )
    np.testing.assert_allclose(tree.lookup("/base_link", "/base_link"), np.eye(4))
    between = tree.lookup("imu", "optical")
    np.testing.assert_allclose(tree.lookup("base_link", "imu") @ between, expected, atol=1e-9)


def test_moving_transforms_are_interpolated_between_their_stamps():
    tree = TransformTree()
    for i in range(3):
        T = np.eye(4)
        T[0, 3] = float(i)
        tree.update("odom", "base_link", T, i * SECOND, static=False)
    assert tree.lookup("odom", "base_link", SECOND // 2)[0, 3] == pytest.approx(0.5)
    assert tree.lookup("odom", "base_link")[0, 3] == 2.0
    with pytest.raises(TransformUnavailableError, match="newer"):
        tree.lookup("odom", "base_link", 3 * SECOND)


def test_an_older_stamp_clears_the_history():
    tree = TransformTree()
    tree.update("odom", "base_link", np.eye(4), 100 * SECOND, static=False)
    tree.update("odom", "base_link", np.eye(4), 1 * SECOND, static=False)
    assert tree.lookup("odom", "base_link", 1 * SECOND).shape == (4, 4)


def test_the_error_names_the_known_frames():
    tree = TransformTree()
    tree.update("base_link", "imu", np.eye(4), 0, static=True)
    with pytest.raises(TransformUnavailableError, match="base_link and camera; known frames: base"):
        tree.lookup("base_link", "camera")


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize(
    ("parent", "child"),
    [("b", "b"), ("/b", "b"), ("b", "a"), ("c", "a"), ("c", "b")],
    ids=["itself", "slash", "pair", "chain", "own child"],
)
def test_no_frame_gets_above_itself(parent, child, static):
    tree = TransformTree()
    T = random_poses(2)
    tree.update("a", "b", T[0], 0, static=True)
    tree.update("b", "c", T[1], 0, static=True)
    with pytest.raises(ValueError, match="above itself"):
        tree.update(parent, child, np.eye(4), 0, static=static)
    np.testing.assert_allclose(tree.lookup("a", "c"), T[0] @ T[1], atol=1e-12)


def test_the_number_of_frames_and_their_names_are_limited(monkeypatch):
    monkeypatch.setattr(frame_tree, "MOST_FRAMES", 1000)
    tree = TransformTree()
    for i in range(1000):
        tree.update("root", f"frame{i}", np.eye(4), 0, static=False)
    with pytest.raises(ValueError, match="1000 frames already"):
        tree.update("root", "frame1000", np.eye(4), 0, static=False)
    tree.update("frame1", "frame2", np.eye(4), 1, static=True)  # the known ones may change
    with pytest.raises(ValueError, match="name has more than 256 characters"):
        tree.update("root", "n" * 257, np.eye(4), 0, static=True)
    with pytest.raises(TransformUnavailableError, match="known frames: .* and 981 more") as error:
        tree.lookup("camera" * 1000, "root")
    assert len(str(error.value)) < 600


def test_a_matrix_that_is_not_rigid_is_refused():
    with pytest.raises(ValueError, match="orthonormal"):
        TransformTree().update("a", "b", np.diag([2.0, 1.0, 1.0, 1.0]), 0, static=True)
