"""Matches of a camera that drives through random points, without images."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.frames import SECOND

from rgsiam_ros.geometry.poses import invert
from rgsiam_ros.mapping.epipolar_fit import Matched
from rgsiam_ros.mapping.label_pairs import MOST_STRETCHES, PAIRS_A_STRETCH, choose_pairs, track_of
from rgsiam_ros.recordings.base import Frame

K = np.array([[250.0, 0.0, 256.0], [0.0, 250.0, 144.0], [0.0, 0.0, 1.0]])
PERIOD_S = 0.2


def winding(seconds):
    """A drive with turns of changing sharpness, 8 m/s."""
    return _drive(seconds, 0.6 * np.sin(0.9 * seconds) + 0.3 * np.sin(2.1 * seconds))


def straight(seconds):
    return _drive(seconds, np.zeros(len(seconds)))


def _drive(seconds, heading):
    """Poses of a camera that looks along its heading."""
    T = np.tile(np.eye(4), (len(seconds), 1, 1))
    forward = np.stack([np.sin(heading), np.zeros(len(heading)), np.cos(heading)], axis=1)
    T[:, :3, :3] = Rotation.from_euler("y", heading[:, None]).as_matrix()
    steps = 8.0 * np.diff(seconds, prepend=seconds[0])[:, None] * forward
    T[:, :3, 3] = np.cumsum(steps, axis=0)
    return T


def fit(path, offset_s, focal_scale, noise_m=0.0, noise_rad=0.0, seed=0):
    """The fit for labels at 5 Hz whose images show the camera `offset_s` earlier."""
    random = np.random.default_rng(seed)
    fine = np.arange(0.0, 60.0, 0.001)
    T_fine = path(fine)
    labels = np.arange(1.0, 59.0, PERIOD_S)
    T = T_fine[np.rint(labels * 1000).astype(int)]
    T[:, :3, 3] += random.normal(0.0, noise_m, (len(T), 3))
    T[:, :3, :3] @= Rotation.from_rotvec(random.normal(0.0, noise_rad, (len(T), 3))).as_matrix()
    frames = [
        Frame(str(i), "drive", round(t * SECOND), T[i]) for i, t in enumerate(labels.tolist())
    ]
    track = track_of(frames)
    pairs = choose_pairs(track)
    scaled = K @ np.diag([focal_scale, focal_scale, 1.0])
    first, second, pair = [], [], []
    shown = T_fine[np.rint((labels - offset_s) * 1000).astype(int)]
    for number, (i, j) in enumerate(zip(pairs.first_P, pairs.second_P, strict=True)):
        in_first = np.stack(
            [random.uniform(-8, 8, 40), random.uniform(-3, 3, 40), random.uniform(12, 60, 40)], 1
        )
        T_second_first = invert(shown[j]) @ shown[i]
        in_second = in_first @ T_second_first[:3, :3].T + T_second_first[:3, 3]
        for points, pixels in ((in_first, first), (in_second, second)):
            seen = points @ scaled.T
            pixels.append(seen[:, :2] / seen[:, 2:] + random.normal(0.0, 0.3, (40, 2)))
        second[-1][:8] = random.uniform(0, 250, (8, 2))  # wrong matches
        pair.append(np.full(40, number))
    matched = Matched(
        track, pairs, K, np.concatenate(first), np.concatenate(second), np.concatenate(pair)
    )
    return matched.fit()


@pytest.mark.parametrize("offset_s", [0.0, 0.075, -0.12])
def test_the_offset_and_the_focal_scale_are_found_together(offset_s):
    found = fit(winding, offset_s, 1.03)
    assert np.all(np.abs(found.value_2 - [offset_s, 1.03]) < found.half_width_2)
    assert found.half_width_2[0] < 0.02
    assert found.half_width_2[1] < 0.02


def test_noisy_labels_do_not_draw_the_offset_between_two_labels():
    found = fit(winding, 0.0, 1.0, noise_m=0.2, noise_rad=0.01)
    assert abs(found.value_2[0]) < found.half_width_2[0] < 0.05


def test_a_straight_drive_at_one_speed_gives_a_wide_interval():
    found = fit(straight, 0.075, 1.0)
    assert found.half_width_2[0] > 0.1


def test_the_number_of_pairs_is_bounded_and_sessions_stay_apart():
    T = winding(np.arange(0.0, 800.0, PERIOD_S))
    sessions = [("a", T[:3000]), ("b", T[3000:])]
    frames = [
        Frame(str(i), name, round(i * PERIOD_S * SECOND), pose)
        for name, poses in sessions
        for i, pose in enumerate(poses)
    ]
    pairs = choose_pairs(track_of(frames))
    assert 0.9 * MOST_STRETCHES < len(np.unique(pairs.stretch_P)) <= MOST_STRETCHES
    assert len(pairs.first_P) <= MOST_STRETCHES * PAIRS_A_STRETCH
    assert np.all((pairs.first_P < 3000) == (pairs.second_P < 3000))
