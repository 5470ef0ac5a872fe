import numpy as np
import pytest

from rgsiam_ros.uncertainty.geometric_trust import (
    OUTDOORS,
    ROOM,
    GeometricTrust,
    fit_threshold,
    limits_for,
    score_of,
)
from rgsiam_ros.uncertainty.pose_quality import GeometricQuality

BAR = GeometricTrust(fewest_inliers=30, threshold=1.0)


def quality(
    inliers=200, similarity=0.93, rival_inliers=0, rival_similarity=0.92, absolute_sigmas=None
):
    return GeometricQuality(
        inliers=inliers,
        matches=300,
        residual_px=2.0,
        similarity=similarity,
        rival_inliers=rival_inliers,
        rival_similarity=rival_similarity,
        absolute_sigmas=absolute_sigmas,
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"inliers": 30}, ""),
        ({"inliers": 30, "rival_inliers": 15}, ""),
        ({"inliers": 29}, "29 matches with the map agree, 30 are needed"),
        ({"inliers": 0, "similarity": 0.0}, "0 matches with the map agree, 30 are needed"),
        (
            {"inliers": 30, "rival_inliers": 16},
            "two places look alike: 30 matches agree with one, 16 with the other",
        ),
        ({"rival_inliers": 180, "rival_similarity": 0.87}, ""),
        (
            {"rival_inliers": 180, "rival_similarity": 0.89},
            "two places look alike: 200 matches agree with one, 180 with the other",
        ),
        (
            {"inliers": 130, "similarity": 0.76},
            "the matches are not similar enough: 130 agree, with a mean similarity of 0.76",
        ),
        (
            {"similarity": 0.87, "absolute_sigmas": 30.0},
            "the two branches disagree: the absolute pose is 30 of its standard deviations away",
        ),
    ],
)
def test_the_margin_is_negative_exactly_if_there_is_a_reason(changes, reason):
    assert BAR.why_not(quality(**changes)) == reason
    assert (BAR.margin(quality(**changes)) < 0.0) == bool(reason)


def test_more_and_more_similar_matches_without_a_rival_score_higher():
    base = score_of(quality())
    assert score_of(quality(similarity=0.94)) > base
    assert score_of(quality(inliers=300)) > base
    assert score_of(quality(rival_inliers=50)) < base
    assert score_of(quality(absolute_sigmas=1.0)) > base > score_of(quality(absolute_sigmas=3.0))
    assert score_of(quality(absolute_sigmas=1e6)) == pytest.approx(base - 3.0)


def test_chance_matches_of_an_unmapped_place_are_not_enough():
    """As measured: a right pose has a mean similarity of 0.88 and more, a wrong one of about 0.76."""
    bar = GeometricTrust(30)
    assert bar.why_not(quality(150, 0.88)) == ""
    assert bar.why_not(quality(150, 0.76))


def test_the_threshold_rejects_wrong_poses_if_right_ones_are_far_from_it():
    random = np.random.default_rng(0)
    right, wrong = random.normal(8.0, 1.0, 500), random.normal(1.0, 1.0, 2000)
    threshold = fit_threshold(right, np.ones(500, bool), wrong, images=2000)
    assert (wrong >= threshold).sum() == 20
    assert (right >= threshold).all()


def test_the_threshold_keeps_right_poses_if_some_wrong_ones_look_the_same():
    random = np.random.default_rng(0)
    right, wrong = random.normal(5.0, 1.0, 500), random.normal(5.0, 1.0, 500)
    recorded = np.zeros(500, bool)
    assert (right > fit_threshold(right, recorded, wrong, 500)).mean() == pytest.approx(
        0.95, abs=0.01
    )
    recorded[:] = True
    assert (right > fit_threshold(right, recorded, wrong, 500)).mean() == pytest.approx(
        0.99, abs=0.01
    )


def test_the_threshold_is_0_where_nothing_tells_it():
    nothing = np.empty(0)
    some = np.array([5.0, 6.0])
    assert fit_threshold(some, np.ones(2, bool), nothing, 100) == 0.0
    assert fit_threshold(nothing, np.zeros(0, bool), np.array([-3.0]), 1) == 0.0
    assert fit_threshold(some, np.ones(2, bool), np.array([-3.0, -4.0]), 2) == 0.0
    one_in_a_hundred = np.array([4.0])
    assert fit_threshold(some, np.ones(2, bool), one_in_a_hundred, 100) == 0.0


def test_right_and_wrong_follow_the_scale_of_the_map():
    assert limits_for(1.0) == ROOM
    assert limits_for(13.0) == OUTDOORS
    assert limits_for(None) == OUTDOORS
    assert OUTDOORS.recall_levels == ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
    metres, degrees = (
        np.array([0.2, 0.8, 6.0, 0.2, np.nan]),
        np.array([1.0, 1.0, 1.0, 30.0, np.nan]),
    )
    assert OUTDOORS.right(metres, degrees).tolist() == [True, True, False, False, False]
    assert OUTDOORS.wrong(metres, degrees).tolist() == [False, False, True, True, False]
    assert ROOM.right(metres, degrees).tolist() == [True, False, False, False, False]
    assert ROOM.wrong(metres, degrees).tolist() == [False, True, True, True, False]
