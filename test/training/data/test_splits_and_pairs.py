import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.recordings.base import Frame, frames_of
from rgsiam_training.config import PairConfig, SplitConfig
from rgsiam_training.data.map_selection import thin
from rgsiam_training.data.pairs import PairSampler, look_alikes
from rgsiam_training.data.splits import split_contiguous, split_frames
from rgsiam_training.data.view_geometry import overlapping_images


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


def test_a_short_session_is_refused_with_advice():
    with pytest.raises(DatasetError, match=r"session a \(3 frames\).*guard_frames"):
        split_contiguous(frames(a=3), SplitConfig(), seed=0)


BOUNDS = np.array([-1.0, -0.6]), np.array([1.0, 0.6])


def line_of_cameras(count, spacing_m=1.0):
    """Cameras side by side, all looking the same way (their z)."""
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, 0, 3] = spacing_m * np.arange(count)
    return T


def overlaps(T, reach_m=5.0, smallest_overlap=0.4, seed=0):
    return overlapping_images(
        T, BOUNDS, reach_m=reach_m, smallest_overlap=smallest_overlap, seed=seed
    )


def test_images_overlap_within_reach_and_view():
    """Side by side, 4.4 m apart: at 5 m (the reach) a view is 10 m wide, so that 3 of 6 columns are
    common, and at 20 m 5 of 6, together 67 %; 3.3 m apart 4 and 5, together 75 %."""
    T = line_of_cameras(12, spacing_m=1.1)
    near = overlaps(T)
    assert near[6].tolist() == [2, 3, 4, 5, 7, 8, 9, 10]
    assert overlaps(T, smallest_overlap=0.7)[6].tolist() == [3, 4, 5, 7, 8, 9]
    turned = T.copy()
    turned[6, :3, :3] = Rotation.from_euler("y", 180, degrees=True).as_matrix()
    assert overlaps(turned)[6].tolist() == []
    assert 6 not in overlaps(turned)[5]
    a_little = T.copy()
    a_little[6, :3, :3] = Rotation.from_euler("y", 60, degrees=True).as_matrix()
    assert overlaps(a_little, smallest_overlap=0.7)[6].tolist() == []


def test_images_along_the_direction_of_view_overlap():
    """The camera looks ahead: after 2 m most of the first view is still in view, after 8 m it is not."""
    T = np.tile(np.eye(4), (10, 1, 1))
    T[:, 2, 3] = np.arange(10.0)
    near = overlaps(T, reach_m=8.0, smallest_overlap=0.6)[0].tolist()
    assert {1, 2} <= set(near)
    assert near == list(range(1, len(near) + 1))
    assert len(near) < 8


@pytest.mark.slow
def test_overlap_is_mutual_and_seeded_where_there_are_too_many():
    T = line_of_cameras(400, spacing_m=0.02)
    near = overlaps(T)
    assert all(len(partners) <= 64 for partners in near)
    again, other = overlaps(T), overlaps(T, seed=1)
    assert all((a == b).all() for a, b in zip(near, again, strict=True))
    assert any(a.tolist() != b.tolist() for a, b in zip(near, other, strict=True))
    few = overlaps(line_of_cameras(30))
    assert all(own in few[partner] for own in range(30) for partner in few[own])


def sampler_of(partners, config, *, count=200, stamps_s=None, session_N=None, hard=None, seed=7):
    stamps_s = np.arange(count) if stamps_s is None else stamps_s
    return PairSampler(
        partners,
        np.zeros(count, np.int64) if session_N is None else session_N,
        (np.asarray(stamps_s) * 1e9).astype(np.int64),
        config,
        batch_pairs=20,
        seed=seed,
        hard_partners=lambda: hard,
    )


def drawn(sampler, batch_pairs=20):
    batches = list(sampler)
    first = np.array([i for batch in batches for i in batch[:batch_pairs]])
    return first, np.array([i for batch in batches for i in batch[batch_pairs:]])


def test_pairs_are_seeded_complete_and_change_with_the_epoch():
    partners = overlaps(line_of_cameras(200))
    sampler = sampler_of(partners, PairConfig())
    first, second = drawn(sampler)
    assert first.tolist() != drawn(sampler_of(partners, PairConfig(), seed=8))[0].tolist()
    np.testing.assert_array_equal(second, drawn(sampler)[1])
    assert sorted(first) == list(range(200))
    assert (first != second).all()
    assert len(sampler) == 10
    sampler.set_epoch(1)
    assert drawn(sampler)[1].tolist() != second.tolist()


def test_shares_of_near_hard_and_random_pairs_are_as_configured():
    partners = overlaps(line_of_cameras(200))
    hard = (np.arange(200)[:, None] + 100) % 200
    config = PairConfig(near_share=0.5, hard_share=0.25)
    first, second = drawn(sampler_of(partners, config, hard=hard))
    distance = np.abs(first - second)
    assert 0.38 < np.mean(distance <= 5) < 0.62
    assert 0.15 < np.mean(distance == 100) < 0.35
    first, second = drawn(sampler_of(partners, config, hard=None))  # no features are known yet
    assert np.mean(np.abs(first - second) == 100) < 0.05


@pytest.mark.parametrize("by", ["lap", "session"])
def test_near_pairs_connect_laps_and_sessions(by):
    """Two passes of the same 100 places, in one recording after a long time or in two recordings."""
    T = np.concatenate([line_of_cameras(100)] * 2)
    stamps = np.concatenate([np.arange(100.0) * 0.05] * 2)
    session = np.zeros(200, np.int64)
    if by == "lap":
        stamps[100:] += 600.0
    else:
        session[100:] = 1
    config = PairConfig(near_share=1.0, hard_share=0.0, other_pass_share=0.5)
    first, second = drawn(sampler_of(overlaps(T), config, stamps_s=stamps, session_N=session))
    across = np.mean((first < 100) != (second < 100))
    assert 0.65 < across < 0.85  # half on purpose, and half of the rest by chance
    never = config.model_copy(update={"other_pass_share": 0.0})
    first, second = drawn(sampler_of(overlaps(T), never, stamps_s=stamps, session_N=session))
    assert np.mean((first < 100) != (second < 100)) < 0.65


def test_shares_that_do_not_fit_are_refused():
    with pytest.raises(ValidationError, match="more than 1"):
        PairConfig(near_share=0.9, hard_share=0.2)


def test_hard_pairs_look_alike_and_stand_far_apart():
    """Four places, twice: image i and i + 4 look the same, neighbours look a little alike."""
    T = line_of_cameras(8, spacing_m=30.0)
    feature = np.zeros((8, 4), np.float32)
    feature[np.arange(8), np.arange(8) % 4] = 1.0
    found = look_alikes(feature, T, reach_m=8.0, metres_per_radian=4.0, count=2)
    assert found[:, 0].tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    near = look_alikes(feature, line_of_cameras(8, 1.0), reach_m=8.0, metres_per_radian=4.0)
    assert (near == -1).all()  # no image is more than twice the reach away
    feature[5] = 0.0  # not seen yet
    found = look_alikes(feature, T, reach_m=8.0, metres_per_radian=4.0, count=2)
    assert (found[5] == -1).all()
    assert not (found == 5).any()


def test_look_alikes_may_be_in_one_place_with_another_direction():
    T = np.tile(np.eye(4), (2, 1, 1))
    T[1, :3, :3] = Rotation.from_euler("y", 180, degrees=True).as_matrix()
    feature = np.ones((2, 1), np.float32)
    found = look_alikes(feature, T, reach_m=1.0, metres_per_radian=4.0, count=1)
    assert found[:, 0].tolist() == [1, 0]


def test_thinned_images_stand_apart_and_leave_no_gap():
    random = np.random.default_rng(0)
    T = line_of_cameras(200, spacing_m=0.1)
    T[:, :3, :3] = Rotation.from_euler("y", random.normal(0, 4, (200, 1)), degrees=True).as_matrix()
    kept = thin(T, spacing_m=1.0, spacing_deg=10.0)

    def distance(i, j):
        turn = Rotation.from_matrix(T[i, :3, :3].T @ T[j, :3, :3]).magnitude()
        return np.linalg.norm(T[i, :3, 3] - T[j, :3, 3]) / 1.0 + np.degrees(turn) / 10.0

    assert kept[0] == 0
    assert len(kept) < 100
    assert all(distance(i, j) >= 1.0 for n, i in enumerate(kept) for j in kept[:n])
    assert all(
        min(distance(i, j) for j in kept) < 1.0 for i in set(range(200)) - set(kept.tolist())
    )
    assert thin(T, 0.0, 10.0).tolist() == list(range(200))


def drive(count, laps=1, step_m=2.0):
    """Frames along a straight road, passed `laps` times in one session."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = step_m * (np.arange(count) % (count // laps))
    return [Frame(f"{i}", "a", i, T) for i, T in enumerate(poses)]


def longest_run(indices):
    return max(len(run) for run in np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1))


def test_a_short_session_is_trained_on_as_a_whole(caplog):
    training, validation = split_contiguous(frames(a=3, b=100), SplitConfig(), seed=0)
    assert {0, 1, 2} <= set(training)
    assert len(validation)
    assert "trained on as a whole: a (3 frames)" in caplog.text


@pytest.mark.parametrize("hold_out", ["auto", "stretches", "interleaved"])
@pytest.mark.parametrize(("count", "needed"), [(41, 12), (60, 12), (80, 12), (150, 24)])
def test_enough_frames_are_held_out_for_an_export(count, needed, hold_out):
    config = SplitConfig(hold_out=hold_out)
    training, validation = split_frames(drive(count), config, reach_m=8.0, seed=0)
    assert needed <= len(validation) < count // 2
    assert len(training) >= count // 3
    assert not set(training) & set(validation)


def test_too_few_frames_are_refused_before_the_training():
    with pytest.raises(DatasetError, match="30 posed images are too few.*at least 36"):
        split_frames(drive(30), SplitConfig(), reach_m=8.0, seed=0)


@pytest.mark.parametrize("hold_out", ["auto", "stretches", "interleaved"])
def test_circles_that_leave_too_little_to_export_are_refused_at_once(hold_out):
    config = SplitConfig(hold_out=hold_out, leave_out=[(0.0, 0.0, 340.0)])
    with pytest.raises(
        DatasetError, match=r"no frame is left|only \d+ of 200 .* needs 12: hold out"
    ):
        split_frames(drive(200), config, reach_m=8.0, seed=0)


@pytest.mark.parametrize(
    ("laps", "hold_out", "in_a_row"),
    [(1, "auto", 2), (3, "auto", 40), (1, "stretches", 40), (3, "interleaved", 2)],
)
def test_a_drive_that_passes_each_place_once(laps, hold_out, in_a_row):
    config = SplitConfig(hold_out=hold_out)
    _, validation = split_frames(drive(600, laps), config, reach_m=8.0, seed=0)
    assert longest_run(validation) == in_a_row


class Session:
    path = "data/drive"

    def __init__(self, count):
        self.frames = frames(seq=count)


def test_sessions_of_two_datasets_with_one_name_stay_apart():
    apart = frames_of([Session(50), Session(50)])
    assert len({frame.session for frame in apart}) == 2
    _, validation = split_contiguous(apart, SplitConfig(), seed=0)
    assert {i // 50 for i in validation} == {0, 1}
