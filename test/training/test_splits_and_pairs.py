import numpy as np
import pytest
from conftest import random_poses

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.errors import DatasetError
from rgsiam_training.datasets import Frame
from rgsiam_training.pairs import PairConfig, PairSampler, nearest_poses
from rgsiam_training.splits import SplitConfig, split_contiguous


def frames(**sessions):
    return [
        Frame(f"{name}/{i}", name, i, np.eye(4)) for name, n in sessions.items() for i in range(n)
    ]


def test_validation_is_contiguous_and_guarded():
    listing = frames(a=400, b=250)
    config = SplitConfig(fraction=0.2, stretch_frames=25, guard_frames=6)
    training, validation = split_contiguous(listing, config, seed=3)
    assert not set(training) & set(validation)
    for session, start, length in (("a", 0, 400), ("b", 400, 250)):
        held = [i - start for i in validation if listing[i].session == session]
        runs = np.split(held, np.flatnonzero(np.diff(held) > 1) + 1)
        assert all(len(run) % 25 == 0 for run in runs)
        assert len(held) == pytest.approx(0.2 * length, abs=25)
    gaps = np.abs(training[:, None] - validation[None, :]).min(axis=1)
    same_session = [
        min(
            (abs(t - v) for v in validation if listing[t].session == listing[v].session),
            default=99,
        )
        for t in training
    ]
    assert min(same_session) > 6
    assert gaps.min() > 0


def test_the_split_is_seeded():
    listing, config = frames(a=300), SplitConfig()
    first, again, other = (split_contiguous(listing, config, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[1], again[1])
    assert first[1].tolist() != other[1].tolist()


def test_a_short_session_is_refused_with_what_to_do():
    with pytest.raises(DatasetError, match=r"session a has 10 frames.*guard_frames"):
        split_contiguous(frames(a=10), SplitConfig(), seed=0)


def test_nearest_poses_against_brute_force():
    T = random_poses(1200, scale_m=20.0)
    neighbours = nearest_poses(T, 3, metres_per_radian=4.0)
    for i in (0, 500, 1150):
        metres = np.linalg.norm(T[:, :3, 3] - T[i, :3, 3], axis=1)
        cosine = np.einsum("nij,ij->n", T[:, :3, :3], T[i, :3, :3]) / 2 - 0.5
        distance = metres + 4.0 * np.arccos(np.clip(cosine, -1, 1))
        distance[i] = np.inf
        assert neighbours[i].tolist() == np.argsort(distance)[:3].tolist()


def test_pairs_are_seeded_complete_and_near_as_asked():
    T = np.tile(np.eye(4), (200, 1, 1))
    T[:, 0, 3] = np.arange(200.0)
    config = PairConfig(near_share=0.5, near_neighbours=4)
    sampler = PairSampler(T, config, batch_pairs=20, seed=7)
    batches = list(sampler)
    assert batches == list(sampler)
    assert len(batches) == len(sampler) == 10
    first = [i for batch in batches for i in batch[:20]]
    second = [i for batch in batches for i in batch[20:]]
    assert sorted(first) == list(range(200))
    apart = np.abs(np.array(first) - np.array(second))
    assert apart.min() >= 1  # never with itself
    assert 0.35 < np.mean(apart <= 4) < 0.65
    sampler.set_epoch(1)
    assert list(sampler) != batches
