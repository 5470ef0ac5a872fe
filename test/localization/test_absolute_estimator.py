"""The estimates of the absolute branch, from given network outputs."""

import numpy as np
import pytest

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.localization.absolute_estimator import AbsoluteEstimator


def test_feature_distances_are_of_the_nearest_and_the_last_neighbour(colour_bundle):
    bundle = Bundle.load(colour_bundle)
    features = bundle.map_features("float32").metric_feature_ND
    neighbours = bundle.manifest.absolute.retrieval.neighbours
    assert neighbours < len(features)
    query = features[0]
    outputs = {
        network_io.TRANSLATION: np.zeros((1, 3), np.float32),
        network_io.ROTATION: np.array([[1.0, 0.0, 0.0, 0.0]], np.float32),
        network_io.METRIC_FEATURE: query[None],
    }
    estimator = AbsoluteEstimator(bundle, "float32")
    distances = np.sort(np.linalg.norm(features - query, axis=1))
    quality = estimator.estimate(outputs, {}).quality
    assert quality.feature_distance == pytest.approx(0.0, abs=1e-6)
    assert quality.last_feature_distance == pytest.approx(distances[neighbours - 1], rel=1e-5)
    others = np.arange(1, len(features))
    quality = estimator.estimate(outputs, {}, allowed=others).quality
    assert quality.feature_distance == pytest.approx(distances[1], rel=1e-5)
    last = min(neighbours, len(others))
    assert quality.last_feature_distance == pytest.approx(distances[last], rel=1e-5)
