import json

import numpy as np
import pytest

from rgsiam_ros.replay.covariance_consistency import lines, normalised_squares, report


def drawn(count=4000, factor=1.0, seed=0):
    """Errors and covariances that differ from frame to frame; errors are `factor` too large."""
    random = np.random.default_rng(seed)
    A = random.normal(size=(count, 6, 6)) * [0.3, 0.3, 0.3, 0.01, 0.01, 0.01]
    C = np.swapaxes(A, 1, 2) @ A + np.diag([1e-2] * 3 + [1e-5] * 3)
    error = np.stack([random.multivariate_normal(np.zeros(6), one) for one in C])
    return factor * error, C


def test_true_covariances_have_unit_nees_and_hold_what_they_promise():
    whole = report(*drawn())
    for part in ("position", "rotation", "pose"):
        value, low, high = whole[part]["nees"]
        assert value == pytest.approx(1.0, abs=0.05)
        assert low < value < high
        for level, (share, *_) in whole[part]["coverage"].items():
            assert share == pytest.approx(float(level.rstrip("%")) / 100, abs=0.025)
    assert whole["position"]["sigma"] == pytest.approx(whole["position"]["error"], rel=0.05)


def test_overconfidence_shows_everywhere():
    whole = report(*drawn(factor=2.0))
    assert whole["pose"]["nees"][0] == pytest.approx(4.0, abs=0.2)
    assert whole["position"]["coverage"]["95%"][0] < 0.7
    assert whole["position"]["error"] == pytest.approx(2.0 * whole["position"]["sigma"], rel=0.05)
    assert "NEES per degree of freedom 4" in lines(whole)[0]


def test_the_interval_knows_that_neighbours_resemble_each_other():
    """Fifty frames with the same error count as one observation, not as fifty."""
    _, C = drawn(2000)
    C = np.broadcast_to(C[0], C.shape)
    random = np.random.default_rng(1)
    independent = random.multivariate_normal(np.zeros(6), C[0], 2000)
    repeated = np.repeat(independent[:40], 50, axis=0)

    def width(errors):
        _, low, high = report(errors, C)["pose"]["nees"]
        return high - low

    assert width(repeated) > 4.0 * width(independent)


def test_correlations_count():
    C = np.eye(6)[None] * 1.0
    C[0, 0, 1] = C[0, 1, 0] = 0.9
    along, across = np.zeros((1, 6)), np.zeros((1, 6))
    along[0, :2], across[0, :2] = (1.0, 1.0), (1.0, -1.0)
    assert normalised_squares(along, C)[0] == pytest.approx(2.0 / 1.9)
    assert normalised_squares(across, C)[0] == pytest.approx(2.0 / 0.1)


def test_too_few_frames_say_nothing_and_the_seed_repeats():
    error, C = drawn(300)
    assert report(error[:9], C[:9]) is None
    assert lines(None) == []
    assert report(error, C, seed=3) == report(error, C, seed=3)


@pytest.mark.parametrize("count", [10, 74, 200])
def test_fewer_than_five_blocks_have_a_value_but_no_interval(count):
    """Resampling a single block would give an interval of zero width."""
    whole = report(*drawn(count))
    value, *interval = whole["pose"]["nees"]
    assert 0.5 < value < 2.0
    assert interval == [None, None]
    assert whole["position"]["coverage"]["95%"][1:] == [None, None]
    assert "too few frames for an interval" in lines(whole)[0]
    json.dumps(whole, allow_nan=False)
