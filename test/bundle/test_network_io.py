import numpy as np
import pytest

from rgsiam_ros.bundle.network_io import raw_covariance, restore_poses, restore_relative_poses
from rgsiam_ros.bundle.parts import Target
from rgsiam_ros.errors import EngineError

TARGET = Target(origin_m=(100.0, 200.0, 3.0), scale_m=10.0)


def test_relative_poses_are_scaled_but_have_no_origin():
    t, q_wxyz = [[0.1, -0.2, 0.3]], [[2.0, 0.0, 0.0, 0.0]]  # of any norm
    T = restore_relative_poses(t, q_wxyz, TARGET)
    np.testing.assert_allclose(T[0, :3, 3], [1.0, -2.0, 3.0])
    np.testing.assert_allclose(T[0, :3, :3], np.eye(3))
    np.testing.assert_allclose(restore_poses(t, q_wxyz, TARGET)[0, :3, 3], [101.0, 198.0, 6.0])
    assert T.dtype == np.float64


@pytest.mark.parametrize(
    ("t", "q_wxyz"),
    [
        ([[np.nan, 0, 0]], [[1, 0, 0, 0]]),
        ([[0, 0, 0]], [[0, 0, 0, 0]]),
        ([[0, 0, 0]], [[np.inf] * 4]),
    ],
)
def test_outputs_that_are_no_poses_raise(t, q_wxyz):
    with pytest.raises(EngineError, match="non-finite"):
        restore_relative_poses(t, q_wxyz, TARGET)


def test_the_raw_covariance_is_that_of_whitened_errors():
    random = np.random.default_rng(0)
    factor = np.concatenate([random.normal(2.0, 0.5, 6), random.normal(0.0, 1.0, 15)])
    W = np.diag(np.exp(factor[:6]))
    W[np.tril_indices(6, -1)] = factor[6:]
    found = raw_covariance({"precision_factor": factor[None].astype(np.float32)}, TARGET)
    errors = random.normal(size=(400_000, 6)) @ np.linalg.inv(W).T
    errors[:, :3] *= 10.0
    expected = errors.T @ errors / len(errors)
    sigma = np.sqrt(np.diag(expected))
    assert np.abs((found - expected) / np.outer(sigma, sigma)).max() < 0.02
    assert raw_covariance({}, TARGET) is None
    broken = np.full((1, 21), np.nan, np.float32)
    assert np.isnan(raw_covariance({"precision_factor": broken}, TARGET)).all()
    huge = np.full((1, 21), 3e38, np.float32)
    huge[:, :6] = -100.0
    assert np.isnan(raw_covariance({"precision_factor": huge}, TARGET)).all()
