import numpy as np
import pytest
from support.poses import random_poses

from rgsiam_ros.bundle.map_features import MapFeatures


def features(count=50, seed=0):
    random = np.random.default_rng(seed)
    feature = random.normal(size=(count, 16))
    feature /= np.linalg.norm(feature, axis=1, keepdims=True)
    return MapFeatures(feature.astype(np.float32), random_poses(count, seed))


def test_stored_features_are_read_back_in_half_precision():
    original = features()
    arrays = original.to_arrays()
    assert arrays["metric_feature_ND"].dtype == np.float16
    assert arrays["T_map_camera_N44"].dtype == np.float64
    back = MapFeatures.from_arrays(arrays)
    np.testing.assert_allclose(back.metric_feature_ND, original.metric_feature_ND, atol=1e-3)
    np.testing.assert_array_equal(back.T_map_camera_N44, original.T_map_camera_N44)


def test_nearest_features_come_best_first():
    map_ = features()
    query = map_.metric_feature_ND[7] + 0.3 * map_.metric_feature_ND[11]
    found = map_.nearest(query, 5)
    expected = np.argsort(-(map_.metric_feature_ND @ query))[:5]
    assert found.tolist() == expected.tolist()
    assert found[0] == 7
    assert len(map_.nearest(query, 99)) == 50


def test_feature_distances_are_lengths_of_differences():
    map_ = features()
    query = map_.metric_feature_ND[7]
    index = np.array([7, 3, 40])
    expected = np.linalg.norm(map_.metric_feature_ND[index] - query, axis=1)
    np.testing.assert_allclose(map_.feature_distances(query, index), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"T_map_camera_N44": None}, "'T_map_camera_N44' is missing"),
        ({"metric_feature_ND": np.ones(50)}, "do not describe map images"),
        ({"metric_feature_ND": np.ones((49, 16))}, "the numbers must be equal"),
        ({"T_map_camera_N44": np.ones((50, 4, 4))}, "not a rigid transform"),
        ({"T_map_camera_N44": np.tile(np.diag([1.0, 1.0, -1.0, 1.0]), (50, 1, 1))}, "not a rigid"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(change, message):
    arrays = {**features().to_arrays(), **change}
    with pytest.raises(ValueError, match=message):
        MapFeatures.from_arrays({k: v for k, v in arrays.items() if v is not None})
