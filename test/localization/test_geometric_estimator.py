"""A pose that the estimator is told to expect."""

from itertools import islice

import numpy as np
import pytest

from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.localization.relocalizer import Relocalizer


@pytest.fixture
def expected(monkeypatch):
    """The poses near which each image was looked for."""
    asked = []
    localize = GeometricBranch.localize

    def remember(self, keypoints, K, near=(), *rest):
        asked.append(list(near))
        return localize(self, keypoints, K, near, *rest)

    monkeypatch.setattr(GeometricBranch, "localize", remember)
    return asked


@pytest.mark.slow
def test_a_hint_is_used_until_there_is_a_trusted_pose(small_map, expected):
    relocalizer = Relocalizer.from_bundle(small_map.bundle.path)
    expected.clear()  # the self-test has localized the golden views
    image = next(islice(small_map.dataset.read_images(), 20, None)).decode()
    hint = small_map.dataset.frames[20].T_map_camera.copy()
    hint[:3, 3] += [1.0, -1.0, 0.3]
    assert relocalizer.expect(hint)
    assert relocalizer.estimate(np.zeros_like(image)).lost
    found = relocalizer.estimate(image)
    assert not found.lost
    assert pose_errors(found.T_map_camera, small_map.dataset.frames[20].T_map_camera)[0] < 0.3
    relocalizer.estimate(image)
    assert [len(near) for near in expected] == [1, 1, 1]
    np.testing.assert_array_equal(expected[0][0], hint)
    np.testing.assert_array_equal(expected[1][0], hint)
    np.testing.assert_array_equal(expected[2][0], found.T_map_camera)
    assert relocalizer.expect(hint)
    relocalizer.forget()
    relocalizer.estimate(image)
    assert expected[3] == []
    relocalizer.close()


def test_the_absolute_branch_can_use_no_hint(colour_bundle):
    relocalizer = Relocalizer.from_bundle(colour_bundle)
    assert not relocalizer.expect(np.eye(4))
    relocalizer.close()
