"""The absolute branch as a helper of the geometric branch, with the shipped bundle."""

from dataclasses import replace

import numpy as np
import pytest
from support.paths import TOWN_BUNDLE, TOWN_DRIVE

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.errors import BundleError
from rgsiam_ros.localization.absolute_prior import AbsolutePrior
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_ros.uncertainty.geometric_trust import score_of

pytestmark = pytest.mark.slow
FLOAT32 = EngineOptions("onnxruntime", "float32")


@pytest.fixture(scope="module")
def images():
    drive = read_drive(TOWN_DRIVE)
    return [image.decode() for image, _ in zip(drive.read_images(), range(60), strict=False)]


def test_only_trusted_absolute_poses_are_given(images):
    prior = AbsolutePrior(Bundle.load(TOWN_BUNDLE), FLOAT32)
    absolute = Relocalizer.from_bundle(TOWN_BUNDLE, FLOAT32, branch="absolute", frozen_images=0)
    given = 0
    for image in [*images[::20], np.zeros((180, 320, 3), np.uint8)]:
        estimate, found = absolute.estimate(image), prior.estimate(image)
        assert (found is None) == estimate.lost
        if found is not None:
            given += 1
            np.testing.assert_allclose(found.T_map_camera, estimate.T_map_camera, atol=1e-6)
    assert given > 0
    prior.close()
    absolute.close()


def test_a_pose_is_trusted_less_if_the_absolute_branch_is_elsewhere(images, monkeypatch):
    """After the first image the last pose is expected, and the absolute branch is not asked."""
    relocalizer = Relocalizer.from_bundle(TOWN_BUNDLE, FLOAT32, frozen_images=0)
    first = relocalizer.estimate(images[0])
    apart = first.quality.geometric_quality.absolute_sigmas
    assert not first.lost
    assert 0.0 < apart < 6.0
    absolute = AbsolutePrior.estimate

    def elsewhere(prior, image):
        estimate = absolute(prior, image)
        T = estimate.T_map_camera.copy()
        T[:3, 3] += 300.0
        return replace(estimate, T_map_camera=T)

    monkeypatch.setattr(AbsolutePrior, "estimate", elsewhere)
    next_one = relocalizer.estimate(images[1])
    assert not next_one.lost
    assert next_one.quality.geometric_quality.absolute_sigmas is None
    relocalizer.forget()
    doubtful = relocalizer.estimate(images[1])
    quality = doubtful.quality.geometric_quality
    without = replace(quality, absolute_sigmas=None)
    assert score_of(quality) == pytest.approx(score_of(without) - 3.0)
    assert doubtful.trust < next_one.trust
    relocalizer.close()


def test_a_precision_that_only_the_map_has_is_replaced():
    prior = AbsolutePrior(Bundle.load(TOWN_BUNDLE), EngineOptions("openvino", "bfloat16"))
    prior.close()


def test_a_bundle_without_an_absolute_branch_gives_none(small_map):
    with pytest.raises(BundleError, match="has no absolute branch"):
        AbsolutePrior(small_map.bundle, FLOAT32)
