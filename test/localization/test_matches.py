"""The matches of an estimate, and the drawing of them, on real images of a small map."""

from itertools import islice

import numpy as np
import pytest

from rgsiam_ros.localization.geometric import INLIER_PX
from rgsiam_ros.localization.match_drawing import (
    INLIER,
    OUTLIER,
    UNMATCHED,
    WARNING,
    describe,
    draw_estimate,
    draw_map_points,
    draw_matches,
    draw_pair,
)
from rgsiam_ros.localization.pnp import reprojection_residuals
from rgsiam_ros.localization.relocalizer import Relocalizer


@pytest.fixture(scope="module")
def relocalizer(small_map):
    relocalizer = Relocalizer.from_bundle(small_map.bundle.path)
    yield relocalizer
    relocalizer.close()


@pytest.fixture(scope="module")
def image(small_map):
    return next(islice(small_map.dataset.read_images(), 20, None)).decode()


@pytest.fixture(scope="module")
def estimate(relocalizer, image):
    return relocalizer.estimate(image)


@pytest.fixture(scope="module")
def without_pose(relocalizer, image):
    relocalizer.forget()
    noise = np.random.default_rng(0).integers(0, 256, image.shape)
    return relocalizer.estimate(noise.astype(np.uint8))


def share(drawn, colour):
    """Share of the pixels that nearly have this colour."""
    return (np.abs(drawn.astype(int) - colour).max(axis=2) < 40).mean()


def rows(array):
    return set(map(tuple, array.tolist()))


def test_inliers_are_near_their_expected_pixel(estimate, small_map):
    inliers = estimate.matches.inliers()
    assert len(inliers.pixel_M2) == estimate.quality.geometric_quality.inliers > 60
    away = np.linalg.norm(inliers.expected_M2 - inliers.pixel_M2, axis=1)
    assert away.max() <= INLIER_PX
    expected = reprojection_residuals(
        estimate.T_map_camera, inliers.point_M3, inliers.pixel_M2, small_map.K
    )
    np.testing.assert_allclose(away, expected, atol=1e-6)
    assert rows(inliers.pixel_M2) <= rows(estimate.matches.pixel_N2.astype(float))


def test_outliers_are_the_other_matches_of_the_search(estimate, small_map):
    inliers, outliers = estimate.matches.inliers(), estimate.matches.outliers()
    found = estimate.matches.found
    assert len(found.searched_keypoint_S) == estimate.quality.geometric_quality.matches
    searched = rows(estimate.matches.pixel_N2[found.searched_keypoint_S].astype(float))
    assert rows(outliers.pixel_M2) == searched - rows(inliers.pixel_M2)
    assert len(outliers.pixel_M2) > 5
    away = np.linalg.norm(outliers.expected_M2 - outliers.pixel_M2, axis=1)
    expected = reprojection_residuals(
        estimate.T_map_camera, outliers.point_M3, outliers.pixel_M2, small_map.K
    )
    np.testing.assert_allclose(away[np.isfinite(expected)], expected[np.isfinite(expected)])
    assert np.median(away[np.isfinite(expected)]) > INLIER_PX


def test_without_a_pose_only_the_keypoints_are_known(without_pose):
    assert without_pose.matches.found is None
    assert len(without_pose.matches.pixel_N2) > 50
    for pairs in (without_pose.matches.inliers(), without_pose.matches.outliers()):
        assert pairs.pixel_M2.shape == pairs.expected_M2.shape == (0, 2)


def test_a_drawing_shows_each_kind_of_match(relocalizer, image, estimate):
    fitted = relocalizer.fit(image)
    before = fitted.copy()
    for scale in (1, 2):
        drawn = draw_matches(fitted, estimate.matches, scale)
        assert drawn.shape == (scale * fitted.shape[0], scale * fitted.shape[1], 3)
        assert drawn.dtype == np.uint8
        assert share(drawn, INLIER) > 0.005 > share(fitted, INLIER)
        assert share(drawn, OUTLIER) > 0.0005 > share(fitted, OUTLIER)
    np.testing.assert_array_equal(fitted, before)
    x, y = np.rint(estimate.matches.inliers().pixel_M2).astype(int).T
    assert (draw_matches(fitted, estimate.matches)[y, x] != fitted[y, x]).any(axis=1).mean() > 0.9


def test_the_points_of_a_map_image_stand_where_it_sees_them(relocalizer, image, estimate):
    """The image is one of the map's own, so the map image that sees most inliers shows nearly the same."""
    matches, fitted = estimate.matches, relocalizer.fit(image)
    size, K = (fitted.shape[1], fitted.shape[0]), relocalizer.live_view().K
    inliers = matches.found.point_M[matches.found.inlier_M]
    seen = [np.isin(inliers, visible).sum() for visible in matches.points.visible]
    best, worst = int(np.argmax(seen)), int(np.argmin(seen))
    drawn = draw_map_points(size, matches, best, K)
    assert drawn.shape == fitted.shape
    assert share(drawn, INLIER) > 2.0 * share(draw_map_points(size, matches, worst, K), INLIER)
    assert share(drawn, UNMATCHED) > 0.0
    blank = np.zeros_like(fitted)
    pair = draw_pair(fitted, matches, blank, best, K)
    assert pair.shape == (size[1], 2 * size[0], 3)
    right = pair[:, size[0] :]
    assert (right > 0).any()
    pixel_M2 = matches.inliers().pixel_M2
    ends = np.argwhere(right.max(axis=2) > 0)
    assert abs(np.median(ends[:, 0]) - np.median(pixel_M2[:, 1])) < 0.2 * size[1]


def test_a_pair_without_a_pose_has_no_lines(relocalizer, image, without_pose):
    fitted, K = relocalizer.fit(image), relocalizer.live_view().K
    blank = np.zeros_like(fitted)
    pair = draw_pair(fitted, without_pose.matches, blank, 0, K)
    assert not pair[:, fitted.shape[1] :].any()


def test_the_text_says_how_good_the_pose_is(relocalizer, image, estimate):
    quality = estimate.quality.geometric_quality
    figures, sigmas = describe(estimate)
    assert figures.startswith(f"{quality.inliers} inliers, {quality.matches} matches of ")
    assert figures.endswith(f"rival {quality.rival_inliers}")
    assert f"trust {estimate.trust:.2f}" in sigmas
    fitted = relocalizer.fit(image)
    drawn = draw_estimate(fitted, estimate)
    above = drawn[: len(drawn) - len(fitted)]
    np.testing.assert_array_equal(drawn[len(above) :], draw_matches(fitted, estimate.matches))
    assert (above.min(axis=2) > 200).mean() > 0.02
    assert share(above, WARNING) == 0.0


def test_the_text_says_why_an_image_is_lost(relocalizer, image, estimate, without_pose):
    assert describe(without_pose) == [without_pose.why_lost]
    fitted = relocalizer.fit(image)
    drawn = draw_estimate(fitted, without_pose)
    assert drawn.shape == draw_estimate(fitted, estimate).shape  # a stream has one size
    above = drawn[: len(drawn) - len(fitted)]
    assert share(above, WARNING) > 0.005
    assert share(drawn[len(above) :], UNMATCHED) > share(fitted, UNMATCHED)
