import json

import numpy as np
import pytest

from rgsiam_ros.report.covariance_consistency import (
    consistency_report,
    normalised_squares,
    report_lines,
)


def drawn(count=4000, factor=1.0, seed=0):
    """Errors and covariances of frames. The errors are larger than the covariances say by `factor`."""
    random = np.random.default_rng(seed)
    A = random.normal(size=(count, 6, 6)) * [0.3, 0.3, 0.3, 0.01, 0.01, 0.01]
    C = np.swapaxes(A, 1, 2) @ A + np.diag([1e-2] * 3 + [1e-5] * 3)
    error = np.stack([random.multivariate_normal(np.zeros(6), covariance) for covariance in C])
    return factor * error, C


def test_right_covariances_have_unit_nees_and_nominal_coverage():
    report = consistency_report(*drawn())
    for part in ("position", "rotation", "pose"):
        value, low, high = report[part]["nees"]
        assert value == pytest.approx(1.0, abs=0.05)
        assert low < value < high
        for level, (share, *_) in report[part]["coverage"].items():
            assert share == pytest.approx(float(level.rstrip("%")) / 100, abs=0.025)
    assert report["position"]["sigma"] == pytest.approx(report["position"]["error"], rel=0.05)


def test_too_small_covariances_show_in_every_figure():
    report = consistency_report(*drawn(factor=2.0))
    assert report["pose"]["nees"][0] == pytest.approx(4.0, abs=0.2)
    assert report["position"]["coverage"]["95%"][0] < 0.7
    assert report["position"]["error"] == pytest.approx(2.0 * report["position"]["sigma"], rel=0.05)
    assert "NEES per degree of freedom 4" in report_lines(report)[0]


def test_the_interval_allows_for_similar_consecutive_frames():
    """Fifty frames with the same error count as one independent frame."""
    _, C = drawn(2000)
    C = np.broadcast_to(C[0], C.shape)
    random = np.random.default_rng(1)
    independent = random.multivariate_normal(np.zeros(6), C[0], 2000)
    repeated = np.repeat(independent[:40], 50, axis=0)

    def width(errors):
        _, low, high = consistency_report(errors, C)["pose"]["nees"]
        return high - low

    assert width(repeated) > 4.0 * width(independent)


def test_normalised_squares_use_correlations():
    C = np.eye(6)[None] * 1.0
    C[0, 0, 1] = C[0, 1, 0] = 0.9
    along, across = np.zeros((1, 6)), np.zeros((1, 6))
    along[0, :2], across[0, :2] = (1.0, 1.0), (1.0, -1.0)
    assert normalised_squares(along, C)[0] == pytest.approx(2.0 / 1.9)
    assert normalised_squares(across, C)[0] == pytest.approx(2.0 / 0.1)


def test_too_few_frames_give_no_report_and_a_seed_repeats_it():
    error, C = drawn(300)
    assert consistency_report(error[:9], C[:9]) is None
    assert report_lines(None) == []
    assert consistency_report(error, C, seed=3) == consistency_report(error, C, seed=3)


@pytest.mark.parametrize("count", [10, 74, 200])
def test_fewer_than_five_blocks_give_a_value_without_interval(count):
    """Resamples of one block are all equal, and their interval would have no width."""
    report = consistency_report(*drawn(count))
    value, *interval = report["pose"]["nees"]
    assert 0.5 < value < 2.0
    assert interval == [None, None]
    assert report["position"]["coverage"]["95%"][1:] == [None, None]
    assert "too few frames for an interval" in report_lines(report)[0]
    json.dumps(report, allow_nan=False)
